"""Whether invitation, admissions, certificates and policy of a ceremony are of its keys."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from custody.crypto.certificates import certificate_signed_by, read_certificate, read_csr, spki_of
from custody.crypto.keyslots import check_recipient, is_oaep
from custody.encoding import key_id
from custody.formats.admission import Admission, Invitation
from custody.formats.ceremony import (
    INVITATION,
    POLICY,
    Admit,
    Enrol,
    Invite,
    admission_name,
    challenge_names,
)
from custody.formats.envelope import Statement
from custody.formats.policy import ATTESTED, Policy, Role
from custody.formats.possession import ShareAnswer, ShareChallenge
from custody.formats.transcript import Done, Line
from custody.rules.ceremony_seen import (
    Seen,
    common_name,
    differing,
    made_of,
    naming,
    telling,
)

CERTIFICATE_SUFFIX = ".cer"
_DAY = timedelta(days=1)


def invited(step: Invite, event: Done, seen: Seen) -> Iterator[str]:
    """Say what is wrong with an invitation."""
    said = seen.record(Invitation, INVITATION)
    seen.invitation = said.digest()
    yield from differing(
        INVITATION,
        ("environment", said.environment, seen.script.environment),
        ("custodian", said.custodian, step.by),
    )
    yield from telling(event, said.digest())


def enrolled(step: Enrol, event: Done, seen: Seen) -> Iterator[str]:
    """Say what is wrong with somebody's admission."""
    name, seat = admission_name(step.who), seen.script.seat(step.who)
    statement = seen.statement(Admission, name)
    seen.admissions[name] = statement
    said = statement.predicate
    (sign,) = made_of(event, "sign")
    made = {key.spki for key in event.keys if key.use == "share"}
    yield from _offered(statement, name, step.who, seen)
    yield from differing(
        name,
        ("display name", said.display, seat.display or seat.name),
        ("role", said.role, seat.role),
        ("token class", said.token_class, event.tokens[0].token_class if event.tokens else ""),
        ("signing key", read_csr(said.csr).spki, sign.spki),
        # A publisher's share key keeps what he has not finished sealing, and is offered to nobody.
        ("share key", {s.spki for s in said.shares}, set() if _keeps_own(said.role) else made),
    )
    if step.suite not in (None, "strongest") and said.shares:
        yield from differing(
            name, ("suite", step.suite in {share.suite for share in said.shares}, True)
        )
    yield from telling(event, statement.digest)
    yield from _challenged(step, event, statement, seen)


def _keeps_own(role: Role) -> bool:
    return role == "publisher"


def _offered(
    statement: Statement[Admission], name: str, person: str | None, seen: Seen
) -> Iterator[str]:
    """Judge an admission by itself: its proofs are for who invited, its signature is for all."""
    said = statement.predicate
    with naming(name):
        request = read_csr(said.csr)
        for share in said.shares:
            check_recipient(share.suite, share.spki, share.mlkem)
    who = said.principal if person is None else person
    yield from seen.signing(statement, name, who, spki=request.spki)
    yield from differing(
        name,
        ("invitation", said.invitation, seen.invitation),
        ("person", said.principal, who),
        ("person in its request", request.name, who),
    )


def _challenged(
    step: Enrol, event: Done, statement: Statement[Admission], seen: Seen
) -> Iterator[str]:
    """Hold the challenge to a share key that only decrypts, and its answer, to its admission."""
    wanted = {key_id(s.spki) for s in statement.predicate.shares if is_oaep(s.suite)}
    ask, told = challenge_names(step.who)
    named = {file.name for file in event.files} & {ask, told}
    if not wanted:
        if named:
            yield f"names {', '.join(sorted(named))}, and no share key only decrypts"
        return
    if named != {ask, told}:
        yield "a share key only decrypts, and no challenge and answer are named"
        return
    asked, given = seen.record(ShareChallenge, ask), seen.record(ShareAnswer, told)
    yield from differing(
        ask,
        ("admission", asked.admission, statement.digest),
        ("share key", {slot.recipient for slot in asked.slots}, wanted),
    )
    yield from differing(
        told,
        ("admission", given.admission, statement.digest),
        ("challenge", given.challenge, asked.digest()),
    )


def admitted(step: Admit, event: Done, line: Line, seen: Seen) -> Iterator[str]:
    """Say what is wrong with admissions and the certificates that were issued."""
    offered: dict[bytes, str] = {}
    for name in (*map(admission_name, step.who), *step.files):
        statement = seen.admissions.get(name) or seen.statement(Admission, name)
        person = next((who for who in step.who if admission_name(who) == name), None)
        yield from _offered(statement, name, person, seen)
        seen.admissions[name] = statement
        seen.admitted.append(statement)
        said = statement.predicate
        keys = (read_csr(said.csr).spki, *(share.spki for share in said.shares))
        offered |= dict.fromkeys(keys, said.principal)
    issued = []
    for file in event.files:
        if not file.name.endswith(CERTIFICATE_SUFFIX):
            continue
        with naming(file.name):
            certificate = read_certificate(seen.data(file.name))
        spki = spki_of(seen.data(file.name))
        issued.append(spki)
        if not certificate_signed_by(certificate, seen.authority):
            yield f"{file.name} is not of the authority that was made here"
        yield from differing(
            file.name, ("person", common_name(seen.data(file.name)), offered.get(spki))
        )
        if certificate.not_valid_after_utc > line.record.at + (step.days + 1) * _DAY:
            yield f"{file.name} holds longer than {step.days} days"
    if sorted(issued) != sorted(offered):
        yield "its certificates are not one for each key that was admitted"


def policy_made(event: Done, line: Line, seen: Seen) -> Iterator[str]:
    """Hold a policy to who was admitted: it lists them, their keys, and nobody else."""
    statement = seen.statement(Policy, POLICY)
    policy = statement.predicate
    yield from differing(
        POLICY,
        ("environment", policy.environment, seen.script.environment),
        ("version", policy.version, 1),
    )
    yield from seen.timely(POLICY, policy.issued_at, line)
    yield from telling(event, statement.digest)
    allowed: dict[str, set[bytes]] = {}
    for said in (admission.predicate for admission in seen.admitted):
        keys = {read_csr(said.csr).spki, *(share.spki for share in said.shares)}
        allowed.setdefault(said.principal, set()).update(keys)
        person = policy.principal(said.principal)
        if person is None or said.role not in person.roles:
            yield f"{POLICY} does not list {said.principal}, {said.role}"
        elif not keys <= {key.spki for key in person.keys}:
            yield f"{POLICY} does not list every key of {said.principal}"
    for person in policy.principals:
        if not {key.spki for key in person.keys} <= allowed.get(person.id, set()):
            yield f"{POLICY} lists {person.id} with a key that nobody admitted"
        for key in person.keys:
            if (key.token_class == ATTESTED) != (key_id(key.spki) in seen.attested):
                yield f"{POLICY} lists a key of {person.id} by another class than was shown here"
