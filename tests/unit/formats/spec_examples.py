"""The examples of manifest, request, approval, logged, receipt, burn, authorisation and model.md.

One small release.

Two officers, alice and bob, must both approve the model of parts.md for the host gpu-1.  Everything
follows from words (`fixed`), so that ``python -m tests.unit.formats.spec_examples`` writes the same
files and the same documents wherever it runs.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from custody import formats
from custody.crypto.bind import bind
from custody.crypto.keyslots import approval_info, commitment, slot_info
from custody.crypto.parts import cek_commitment
from custody.crypto.quorum import Person, Threshold, split, tree_digest
from custody.crypto.tpmpolicy import Conditions, host_policy
from custody.crypto.tpmretained import authorised_message
from custody.encoding import Digest, key_id, sha256
from custody.formats.approval import Approval, Denial
from custody.formats.authorisation import Authorisation
from custody.formats.burn import Burn
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import (
    Predicate,
    Signature,
    encode_statement,
    pae,
    payload_of,
    signing_bytes,
    statement_digest,
)
from custody.formats.evidence import (
    AK_TEMPLATE,
    HOST_PARENT_TEMPLATE,
    RH_ENDORSEMENT,
    RH_NULL,
    Alg,
    Attest,
    ClockInfo,
    Created,
    CreationData,
    Curve,
    EccPublic,
    EcdsaSignature,
    NvCertified,
    PcrBank,
    Quoted,
    counter_public,
    host_key_template,
    low_s,
    name,
    nv_name,
    pack_quote,
    qualified_name,
)
from custody.formats.evidence import spki as tpm_spki
from custody.formats.logged import Logged
from custody.formats.manifest import (
    Core,
    KeySlot,
    LeafCommitment,
    Manifest,
    SecretEnvelope,
    Wrap,
)
from custody.formats.model import Resource, encode_model_signature, model_payload
from custody.formats.receipt import Receipt
from custody.formats.request import Creation, Request, Terms
from tests.unit.formats import logged_example
from tests.unit.formats.examples import lay_out
from tests.unit.formats.fixed import key, octets, seal, sign, spki, wrap

SPECS = Path(formats.__file__).parent
VECTORS = Path(__file__).parents[2] / "vectors"

TREE = Threshold(k=2, of=(Person(principal="alice"), Person(principal="bob")))
OFFICERS = {"0": "alice", "1": "bob"}
NOW = datetime(2027, 1, 5, 12, 0, 0, tzinfo=UTC)
PCRS = (0, 2, 4, 7)
#: As in parts.md and contents.md.
CEK, PAYLOAD_ID = bytes(range(32)), bytes(range(32, 64))
PARTS_ROOT = "38b2afe6a564d0e539e1de475c3f978a17956ea9754b3476c4b78f8003f1e5f4"
FILES = (
    ("config.json", "50d0c480e8df2d834ca22bff6d4416afcad85438911bcf356f682d6cbc892454"),
    ("weights", "77007cd74a06dc54e5114d01a41d2721679d5668a0c20022fe102c87ad4d65b8"),
)
FIRMWARE = 0x2019102300163636


def digest_of(words: str) -> Digest:
    """Stand for the digest of a document that is not part of the example."""
    return octets(words).hex()


@cache
def manifest() -> Manifest:
    """The manifest of the model of parts.md, for production."""
    core = Core(
        payload_id=PAYLOAD_ID.hex(),
        environment=digest_of("policy 1"),
        policy_version=1,
        tree=tree_digest(TREE),
        publisher=key_id(spki("pub")),
        part_size_bytes=1 << 16,
        part_count=2,
        part_digest="blake3",
        parts_root=PARTS_ROOT,
        cek_commitment=cek_commitment(CEK, PAYLOAD_ID).hex(),
        contents=digest_of("contents.sealed"),
        contents_size_bytes=65672,
        site=None,
        recovery=None,
        sealed_at=NOW - timedelta(days=1),
        not_after=NOW + timedelta(days=29),
        replaces=None,
    )
    return Manifest(core=core, envelope=_envelope(core))


def _envelope(core: Core) -> SecretEnvelope:
    binding, release, contents_key = core.binding(), octets("R"), octets("CK")
    slots, commitments = [], []
    for share in split(TREE, release, lambda size: octets("polynomial", size)):
        who, salt = OFFICERS[share.path], octets(f"salt {share.path}")
        recipient = spki(f"{who} share")
        commitments.append(
            LeafCommitment(
                leaf=share.path,
                commitment=commitment(binding, share.path, share.x, share.value, salt).hex(),
            )
        )
        for purpose, leaf, secret in (
            ("contents", "", contents_key),
            ("share", share.path, bytes(share.value) + salt),
        ):
            info = slot_info(binding, purpose, leaf, key_id(recipient))  # type: ignore[arg-type]
            slots.append(
                KeySlot(
                    purpose=purpose,  # type: ignore[arg-type]
                    leaf=leaf,
                    recipient=key_id(recipient),
                    suite="P256",
                    sealed=seal(recipient, secret, info=info, ephemeral=f"{purpose} {who}"),
                )
            )
    return SecretEnvelope(
        slots=tuple(sorted(slots, key=lambda s: (s.purpose, s.leaf, s.recipient))),
        commitments=tuple(commitments),
        wraps=(
            _wrapped("cek", release, CEK, binding),
            _wrapped("contents", CEK, contents_key, binding),
        ),
    )


def _wrapped(purpose: str, ikm: bytes, secret: bytes, binding: bytes) -> Wrap:
    salt = octets(f"wrap {purpose}")
    info = bind("wrap", binding, purpose.encode())
    return Wrap(
        purpose=purpose,  # type: ignore[arg-type]
        salt=salt,
        sealed=wrap(ikm, secret, salt=salt, info=info),
    )


# ── the host's TPM, in software ──────────────────────────────────────────────────────────────────


def _public(template: EccPublic, words: str) -> bytes:
    numbers = key(words).public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    return replace(template, x=x, y=y).pack()


AK = _public(AK_TEMPLATE, "ak")
PARENT = _public(HOST_PARENT_TEMPLATE, "parent")
NV = counter_public(0x01800C00).pack()
REGISTERS = {pcr: octets(f"register {pcr}") for pcr in PCRS}
#: As goldenset.md has it, and the TPM.
PCR_DIGEST = sha256(*REGISTERS.values())
BANKS = (PcrBank(Alg.SHA256, PCRS),)


def _attest(
    extra: bytes, clock_ms: int, body: Quoted | Created | NvCertified
) -> tuple[bytes, bytes]:
    attest = Attest(
        signer=qualified_name(RH_ENDORSEMENT, name(AK)),
        extra_data=extra,
        clock=ClockInfo(clock_ms=clock_ms, reset_count=3, restart_count=0, safe=True),
        firmware_version=FIRMWARE,
        body=body,
    ).pack()
    return attest, tpm_signature(attest).pack()


def tpm_signature(attest: bytes) -> EcdsaSignature:
    """Sign an attestation with the AK."""
    der = sign("ak", attest)
    r, s = (part.lstrip(b"\0").rjust(32, b"\0") for part in _integers(der))
    return low_s(r, s, hash_alg=Alg.SHA256, curve=key("ak").curve)


def _integers(der: bytes) -> tuple[bytes, bytes]:
    size = der[3]
    return der[4 : 4 + size], der[6 + size :]


def quote(tag: str, predicate: Predicate, clock_ms: int) -> bytes:
    """Sign a statement as a host does: a quote whose qualifyingData names it."""
    extra = bind(tag, bytes.fromhex(statement_digest(predicate)))
    body = Quoted(banks=BANKS, pcr_digest=PCR_DIGEST)
    return pack_quote(*_attest(extra, clock_ms, body))


def certificate(predicate: Predicate, clock_ms: int, *, value: int) -> bytes:
    """Sign a burn receipt as a host does: the AK certifies the counter."""
    extra = bind("burn", bytes.fromhex(statement_digest(predicate)))
    body = NvCertified(index_name=nv_name(NV), offset=0, contents=value.to_bytes(8, "big"))
    return pack_quote(*_attest(extra, clock_ms, body))


#: Two enrollers vouch for the host; not printed, and not what the request names.
ENROLMENT = EnrolmentRecord(
    environment=digest_of("policy 1"),
    host="gpu-1",
    epoch=1,
    ek_spki=digest_of("ek"),
    ek_certificate=b"-",
    ak_public=AK,
    ak_name=name(AK).hex(),
    trust_class="virtual",
    firmware=f"{FIRMWARE:016x}",
    enrolled_at=NOW - timedelta(days=2),
)


@cache
def terms() -> Terms:
    """What gpu-1 asks for."""
    return Terms(
        manifest=statement_digest(manifest()),
        policy=digest_of("policy 1"),
        mode="once",
        ek_spki=digest_of("ek"),
        ak_name=name(AK).hex(),
        nv_name=nv_name(NV).hex(),
        counter=7,
        reset_count=3,
        restart_count=0,
        deadline_ms=86_400_000,
        pcr_digest=PCR_DIGEST.hex(),
        checkpoint=None,
    )


@cache
def request() -> Request:
    """The request of gpu-1: every check of its evidence holds."""
    asked = terms()
    conditions = Conditions(
        pcrs=PCRS,
        pcr_digest=bytes.fromhex(asked.pcr_digest),
        nv_name=nv_name(NV),
        counter=asked.counter,
        deadline_ms=asked.deadline_ms,
        reset_count=asked.reset_count,
        restart_count=asked.restart_count,
    )
    officers = {path: spki(f"{who} sign") for path, who in OFFICERS.items()}
    policy = host_policy(TREE, officers, terms=asked.digest(), conditions=conditions)
    host_key = _public(host_key_template(Curve.P256, policy), "h")
    creation_data = CreationData(
        banks=BANKS,
        pcr_digest=PCR_DIGEST,
        locality=1,
        parent_name_alg=Alg.SHA256,
        parent_name=name(PARENT),
        parent_qualified_name=qualified_name(RH_NULL, name(PARENT)),
        outside_info=b"",
    ).pack()
    created = Created(object_name=name(host_key), creation_hash=sha256(creation_data))
    attest, signature = _attest(asked.digest(), 71_000_000, created)
    return Request(
        terms=asked,
        environment=digest_of("policy 1"),
        host="gpu-1",
        enrolment=digest_of("enrolment of gpu-1"),
        golden=digest_of("golden set lab-6.1"),
        suite="P256",
        key=Creation(
            public=host_key,
            parent_public=PARENT,
            creation_data=creation_data,
            attest=attest,
            signature=signature,
        ),
        mlkem=None,
        ak_public=AK,
        nv_public=NV,
        event_log=b"",
        requested_at=NOW,
        checkpoint=None,
        further=(),
    )


# ── the answers, and what came of it ─────────────────────────────────────────────────────────────


@cache
def approval(leaf: str = "0") -> Approval:
    """An officer's approval: his share, opened and sealed again to H."""
    who, asked = OFFICERS[leaf], statement_digest(request())
    share = next(
        s for s in split(TREE, octets("R"), lambda n: octets("polynomial", n)) if s.path == leaf
    )
    info = approval_info(asked, leaf, key_id(spki(f"{who} sign")))
    return Approval(
        request=asked,
        manifest=terms().manifest,
        policy=terms().policy,
        terms=terms().digest().hex(),
        leaf=leaf,
        sealed_share=seal(
            tpm_spki(request().key.public),
            bytes(share.value) + octets(f"salt {leaf}"),
            info=info,
            ephemeral=f"approval {leaf}",
        ),
        terms_signature=sign(f"{who} sign", bytes(4) + terms().digest()),
        approved_at=NOW + timedelta(minutes=20),
        expires_at=NOW + timedelta(minutes=20, hours=8),
    )


@cache
def denial() -> Denial:
    """What bob could have said instead."""
    return Denial(
        author=key_id(spki("bob sign")),
        request=statement_digest(request()),
        manifest=terms().manifest,
        policy=terms().policy,
        terms=terms().digest().hex(),
        reason="evaluation of the base model is not finished",
        denied_at=NOW + timedelta(minutes=25),
    )


@cache
def logged() -> Logged:
    """What a log could say of the request and both approvals."""
    return logged_example.logged(
        terms().manifest,
        statement_digest(request()),
        [statement_digest(approval(leaf)) for leaf in OFFICERS],
        terms(),
        NOW + timedelta(minutes=30),
    )


@cache
def receipt() -> Receipt:
    """The host's account."""
    return Receipt(
        request=statement_digest(request()),
        manifest=terms().manifest,
        terms=terms().digest().hex(),
        outcome="opened",
        reason="",
        approvals=tuple(sorted(statement_digest(approval(leaf)) for leaf in OFFICERS)),
        bad_shares=(),
        counter=7,
        finished_at=NOW + timedelta(minutes=40),
    )


@cache
def burn() -> Burn:
    """The host's proof that H opens nothing more."""
    return Burn(
        request=statement_digest(request()),
        receipt=statement_digest(receipt()),
        counter=7,
        burned_at=NOW + timedelta(minutes=40),
    )


def authorised_state() -> bytes:
    """What an enroller signs, so that kept keys open in the boot state of the example."""
    return authorised_message(
        PCRS,
        PCR_DIGEST,
        environment=bytes.fromhex(digest_of("policy 1")),
        name="lab-6.1",
        epoch=1,
    )


@cache
def authorisation() -> Authorisation:
    """What erik tells TPMs of the golden set."""
    return Authorisation(
        environment=digest_of("policy 1"),
        golden=digest_of("golden set lab-6.1"),
        state_signature=sign("erik sign", authorised_state()),
        authorised_at=NOW - timedelta(days=2),
    )


RESOURCES = tuple(Resource(name=n, algorithm="sha256", digest=d) for n, d in FILES)


def model_statement() -> bytes:
    """The statement of the model signature of the model of parts.md."""
    return model_payload("two-layer", RESOURCES)


def model_signature() -> bytes:
    """That model's ``model.sig``, by pub's bare key."""
    payload = model_statement()
    signature = sign("pub", pae("application/vnd.in-toto+json", payload))
    return encode_model_signature(payload, signature, spki=spki("pub"))


def _signed(predicate: Predicate, who: str) -> bytes:
    signature = Signature(keyid=key_id(spki(who)), sig=sign(who, signing_bytes(predicate)))
    return encode_statement(predicate, [signature])


def _quoted(tag: str, predicate: Predicate, clock_ms: int) -> bytes:
    signature = Signature(keyid=key_id(spki("ak")), sig=quote(tag, predicate, clock_ms))
    return encode_statement(predicate, [signature])


def _certified(predicate: Predicate, clock_ms: int, *, value: int) -> bytes:
    sig = certificate(predicate, clock_ms, value=value)
    return encode_statement(predicate, [Signature(keyid=key_id(spki("ak")), sig=sig)])


#: Files, by their place under tests/vectors.
EXAMPLES: dict[str, bytes] = {
    "manifest/example.dsse": _signed(manifest(), "pub"),
    "request/example.dsse": _quoted("request", request(), 71_002_000),
    "approval/alice.dsse": _signed(approval("0"), "alice sign"),
    "approval/bob.dsse": _signed(approval("1"), "bob sign"),
    "approval/denial.dsse": _signed(denial(), "bob sign"),
    "logged/example.dsse": _signed(logged(), "log"),
    "receipt/example.dsse": _quoted("receipt", receipt(), 73_400_000),
    "burn/example.dsse": _certified(burn(), 73_400_500, value=8),
    "authorisation/example.dsse": _signed(authorisation(), "erik sign"),
    "model/example.sig": model_signature(),
}

#: What the documents print in blocks of JSON tagged ``release=NAME``.
PRINTED: dict[str, bytes] = {
    "manifest": payload_of(manifest()),
    "request": payload_of(request()),
    "approval": payload_of(approval("0")),
    "denial": payload_of(denial()),
    "logged": payload_of(logged()),
    "receipt": payload_of(receipt()),
    "burn": payload_of(burn()),
    "authorisation": payload_of(authorisation()),
    "model": model_statement(),
    "model.sig": model_signature(),
}

_BLOCK = re.compile(r"^(```json release=(\S+)\n)(.*?)^(```)$", re.MULTILINE | re.DOTALL)


def written(text: str) -> str:
    """Return a document with its examples written anew."""
    return _BLOCK.sub(lambda m: m[1] + lay_out(json.loads(PRINTED[m[2]])) + "\n" + m[4], text)


def printed(text: str) -> dict[str, bytes]:
    """Return the examples of a document in the one form that is signed, without white space."""
    return {
        found[2]: json.dumps(
            json.loads(found[3]), ensure_ascii=False, separators=(",", ":"), sort_keys=True
        ).encode()
        for found in _BLOCK.finditer(text)
    }


def main() -> None:
    """Write the files and the documents."""
    for place, data in EXAMPLES.items():
        (VECTORS / place).parent.mkdir(exist_ok=True)
        (VECTORS / place).write_bytes(data)
    for path in SPECS.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        if text != written(text):
            path.write_text(written(text), encoding="utf-8")


if __name__ == "__main__":
    main()
