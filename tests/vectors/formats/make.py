"""Make an environment's files as vectors: ``python -m tests.vectors.formats.make``.

Run once; a new run gives new keys.  It writes the files beside this one and fills the examples of
the format documents from them.  ``… make fill`` only fills the documents again.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from msgspec.structs import replace

from custody.crypto.quorum import Person, Threshold
from custody.crypto.signature import public_bytes
from custody.encoding import encode, key_id
from custody.formats.case import Documents
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Statement, decode_envelope, decode_statement, encode_statement
from custody.formats.goldenset import GoldenSet
from custody.formats.policy import HostRequirements, Policy, Principal, SigningKey
from custody.formats.policy_text import parse_quorum
from custody.formats.recovery import BreakGlass, UsedShare
from custody.formats.retirement import Retirement
from custody.formats.state import (
    CrlMemory,
    EnrolmentMemory,
    GoldenMemory,
    HostMemory,
    Identity,
    KeyMemory,
    Memory,
    ShareIdentity,
)
from custody.keys.tpm_credential import make_credential
from custody.keys.tpm_host import TpmHost
from custody.lab import bootlog
from custody.lab.swtpm import Swtpm
from custody.ops import enroll, retire
from custody.ops.golden import approve_state, measure
from custody.ops.home import Home
from custody.ops.pem import read_certificate_file
from custody.ops.recovery import RecoveryOrder, make_recovery
from custody.ops.trust import pin
from custody.rules.enrolment import record_identity
from custody.rules.situation import Situation
from tests.unit.formats.examples import BLOCK, DOCUMENTS, VECTORS, lay_out
from tests.unit.people import NOW, key, policy, principal, signed_policy, signer


def main() -> None:
    """Write the vectors, then the documents."""
    if sys.argv[1:] != ["fill"]:
        with tempfile.TemporaryDirectory(prefix="tpm") as folder:
            _make(Path(folder))
    fill()


def fill() -> None:
    """Put the vectors into the blocks of the documents."""
    for document in sorted(DOCUMENTS.glob("*.md")):
        text = document.read_text()
        filled = BLOCK.sub(lambda m: f"```json example={m[1]}\n{_block(m[1])}\n```", text)
        if filled != text:
            document.write_text(filled)


def _block(name: str) -> str:
    file, _, part = name.partition("#")
    data = (VECTORS / file).read_bytes()
    if file.endswith(".dsse") and not part:
        data = decode_envelope(data).payload
    return lay_out(json.loads(data))


def _make(folder: Path) -> None:
    machine = Swtpm(folder / "host", folder / "vendor")
    machine.manufacture()
    machine.start()
    try:
        bootlog.extend(machine, bootlog.record(bootlog.BootState()))
        statement = signed_policy(_policy(read_certificate_file(machine.vendor_root)), "ann", "ben")
        _write("policy.dsse", encode_statement(statement.predicate, statement.envelope.signatures))
        _vouch(folder, TpmHost(machine.tcti), statement)
    finally:
        machine.stop()


def _policy(vendor_root: bytes) -> Policy:
    people = [
        *(_two_roles(name) for name in ("ann", "ben", "cleo")),
        *(principal(name, "officer") for name in ("dora", "emil")),
        principal("lab", "publisher"),
    ]
    quorum = Threshold(k=2, of=(Person(principal="dora"), Person(principal="emil")))
    host = HostRequirements(
        bank="sha256",
        pcrs=(0, 4, 7),
        trust_classes=("software",),
        vendor_roots=(vendor_root,),
        event_log="required",
        vendor_crls=(),
        further=(),
    )
    return policy(principals=tuple(people), quorum=quorum, host=host)


def _two_roles(name: str) -> Principal:
    spki = public_bytes(key(name).public_key())
    return Principal(
        id=name,
        name=name.title(),
        roles=("custodian", "enroller"),
        keys=(SigningKey(spki=spki, token_class="software"),),
    )


def _vouch(folder: Path, tpm: TpmHost, statement: Statement[Policy]) -> None:
    request = enroll.ask(tpm, host="gpu-1")
    inventory = {enroll.ek_digest(request): None}
    measurement = measure(tpm, pcrs=(0, 2, 4, 7), now=NOW)
    _write("enrolment-request.json", encode(request))
    _write("measurement.json", encode(measurement))
    record: Statement[EnrolmentRecord] | None = None
    golden: Statement[GoldenSet] | None = None
    for name in ("ann", "ben"):
        home, situation = _enroller(folder, name, statement)
        made = enroll.challenge(
            home,
            request,
            situation=situation,
            inventory=inventory,
            make_credential=make_credential,
        )
        answer = enroll.answer(tpm, made.challenge)
        if name == "ann":
            _write("challenge.json", encode(made.challenge))
            _write("answer.json", encode(answer))
        data = enroll.record(
            home,
            request,
            answer,
            signer=signer(name),
            situation=situation,
            inventory=inventory,
            trust_class="software",
            onto=record,
        )
        record = decode_statement(EnrolmentRecord, data)
        _write("enrolment.dsse", data)
        data = approve_state(
            measurement,
            signer=signer(name),
            situation=situation,
            name="lab-6.1",
            notes="lab boot loader 2.06, kernel 6.1.0-1",
            epoch=1,
            onto=golden,
        )
        golden = decode_statement(GoldenSet, data)
        _write("golden.dsse", data)
    shown = measure(tpm, pcrs=(0, 4, 7), now=NOW, event_log=bootlog.record(bootlog.BootState()))
    data = approve_state(
        shown, signer=signer("ann"), situation=situation, name="lab", notes="", epoch=2, oldest=1
    )
    _write("golden-events.dsse", data)
    _retire(folder, statement, record)
    _recovery(statement)
    assert record is not None
    _state(statement, enroll.ek_digest(request), record_identity(record.predicate))


def _retire(
    folder: Path, statement: Statement[Policy], record: Statement[EnrolmentRecord] | None
) -> None:
    if record is None:
        raise ValueError("nothing was enrolled")
    ended: Statement[Retirement] | None = None
    for name in ("ann", "ben"):
        _, situation = _enroller(folder / "later", name, statement)
        situation = dataclasses.replace(situation, now=NOW + timedelta(days=40))
        data = retire.retire(
            record,
            reason="moved to a test rack",
            signer=signer(name),
            situation=situation,
            onto=ended,
        )
        ended = decode_statement(Retirement, data)
    _write("retirement.dsse", data)


def _recovery(statement: Statement[Policy]) -> None:
    order = RecoveryOrder(
        environment="production",
        epoch=1,
        suite="P256",
        among=parse_quorum("2 of (ann, ben, cleo)"),
    )
    made = make_recovery(order, signer=signer("ann"), token_random=None, now=NOW)
    _write("recovery-record.dsse", made.statement)
    used = [handed.share for handed in made.shares if handed.share.holder != "ben"]
    broken = BreakGlass(
        author=signer("ben").key_id,
        environment=statement.digest,
        manifest="b0" * 32,
        replacement="c0" * 32,
        recovery=made.record.predicate.key_id,
        record=made.record.digest,
        shares=tuple(UsedShare(group=s.group, member=s.member, holder=s.holder) for s in used),
        reason="the officers' tokens were recalled",
        opened_at=NOW + timedelta(days=40),
    )
    _write("break-glass.dsse", signer("ben").statement(broken))


def _enroller(folder: Path, name: str, statement: Statement[Policy]) -> tuple[Home, Situation]:
    home = Home(folder / name)
    home.save_identity(_identity(name, "enroller"))
    documents = Documents(policies=(statement,))
    return home, pin(home, documents=documents, digest=statement.digest, now=NOW)


def _identity(name: str, role: str) -> Identity:
    return Identity(
        kind="custody/identity/v1",
        principal=name,
        display=name.title(),
        role=role,  # type: ignore[arg-type]
        token=f"pkcs11:token={name}?module-name=softhsm2",
        signing_spki=public_bytes(key(name).public_key()),
        shares=(),
    )


def _state(statement: Statement[Policy], ek: str, record: str) -> None:
    share = ShareIdentity(
        suite="P256",
        spki=public_bytes(key("dora share").public_key()),
        mlkem=None,
        mlkem_seed_file=None,
    )
    _write("identity.json", encode(replace(_identity("dora", "officer"), shares=(share,))))
    known = KeyMemory(name="000b" + "3c" * 32, request="a7" * 32)
    memory = Memory(
        kind="custody/memory/v1",
        pin=statement.digest,
        environment=statement.digest,
        policy=statement.digest,
        policy_version=1,
        crls=(CrlMemory(authority=key_id(public_bytes(key("ca").public_key())), number=4),),
        golden_sets=(GoldenMemory(name="lab-6.1", oldest=2),),
        hosts=(HostMemory(ek_spki=ek, reset_count=3, keys=(known,)),),
        enrolments=(
            EnrolmentMemory(ek_spki=ek, epoch=1, record=record, retired=0, retired_at=None),
        ),
    )
    _write("memory.json", encode(memory))


def _write(name: str, data: bytes) -> None:
    (VECTORS / name).write_bytes(data)


if __name__ == "__main__":
    main()
