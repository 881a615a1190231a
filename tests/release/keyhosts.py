"""A host without a TPM beside the cast's: its keys, its requests, and the two rounds of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace as changed

from custody.formats.case import Documents, merge, sort_documents
from custody.formats.envelope import Statement, decode_statement
from custody.formats.keyrequest import KeyRequest
from custody.formats.policy import Policy
from custody.ops.approve import approve_requests
from custody.ops.bundle import Bundle
from custody.ops.consent import consent_to
from custody.ops.keyhost import KeyHost, OpenedByKey, open_by_key, request_by_key
from custody.ops.keyplace import KeyPlace
from tests.release.cast import NOW, Cast, PersonKeys
from tests.release.expect import QUORUM

HOST = "mainframe"


def add_host(cast: Cast, name: str = HOST, **host: object) -> None:
    """Put a policy in force that takes hosts without a TPM and lists this one."""
    fresh = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    cast.people[name] = PersonKeys(name, ("host",), fresh[:1], fresh[1:])
    cast.certify(cast.people[name])
    people = sorted((p.principal() for p in cast.people.values()), key=lambda p: p.id)
    old = decode_statement(Policy, cast.policies[-1]).predicate.host
    host.setdefault("trust_classes", ("software", "hsm-key"))
    cast.next_policy(principals=tuple(people), host=changed(old, **host))


def key_host(cast: Cast, name: str = HOST, *, now: datetime = NOW) -> KeyHost:
    """Return the host's keys and what it keeps of its requests; its clock stands still."""
    keys = cast.people[name]
    return KeyHost(keys.signer, keys.opener, key_place(cast, name), lambda: now)


def key_place(cast: Cast, name: str = HOST) -> KeyPlace:
    """Return what a host keeps of its requests."""
    home = cast.home(name)
    return KeyPlace(home.folder("keyrequests"), home.folder("receipts"))


def ask(
    cast: Cast, bundle: Bundle, *, now: datetime = NOW, name: str = HOST
) -> Statement[KeyRequest]:
    """Ask for a bundle by a key in an HSM."""
    situation = cast.situation(name, now=now)
    return request_by_key(
        bundle.statement, situation=situation, host=key_host(cast, name)
    ).statement


def consent(
    cast: Cast,
    bundle: Bundle,
    request: Statement[KeyRequest],
    who: str,
    *,
    now: datetime = NOW,
    lifetime: timedelta | None = None,
) -> bytes:
    """Consent as one officer."""
    return consent_to(
        bundle.statement,
        [request],
        situation=cast.situation(who, now=now),
        home=cast.home(who),
        signer=cast.people[who].signer,
        lifetime=lifetime,
    )[0].data


def approve(
    cast: Cast,
    bundle: Bundle,
    request: Statement[KeyRequest],
    who: str,
    shown: Sequence[bytes],
    *,
    now: datetime = NOW,
) -> bytes:
    """Approve as one officer who is shown these consents and denials."""
    return approve_requests(
        bundle,
        [request],
        situation=cast.situation(who, *shown, now=now),
        home=cast.home(who),
        signer=cast.people[who].signer,
        opener=cast.people[who].opener,
    )[0].data


def both_rounds(
    cast: Cast, bundle: Bundle, request: Statement[KeyRequest], who: Sequence[str] = QUORUM
) -> list[bytes]:
    """Have these officers consent, and then approve."""
    consents = [consent(cast, bundle, request, name) for name in who]
    return [*consents, *(approve(cast, bundle, request, name, consents) for name in who)]


def open_it(
    cast: Cast,
    bundle: Bundle,
    request: Statement[KeyRequest],
    answers: Sequence[bytes],
    target: Path,
    *,
    now: datetime = NOW,
    name: str = HOST,
) -> OpenedByKey:
    """Open as the host."""
    situation = cast.situation(name, *answers, now=now)
    host = key_host(cast, name, now=now)
    return open_by_key(bundle, request, target, situation=situation, host=host)


def case_of(
    cast: Cast, bundle: Bundle, request: Statement[KeyRequest], answers: Sequence[bytes]
) -> Documents:
    """Return what an auditor is given."""
    files = [(f"answer-{n}.dsse", data) for n, data in enumerate(answers)]
    files.append(("manifest.dsse", (bundle.path / "manifest.dsse").read_bytes()))
    heap = merge(cast.documents, sort_documents(files))
    return replace(heap, key_requests=(request,))
