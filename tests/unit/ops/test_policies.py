from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from custody.crypto.signature import public_bytes
from custody.errors import Malformed, Refused
from custody.formats.envelope import Statement, decode_statement
from custody.formats.policy import (
    HostRequirements,
    Limits,
    Policy,
    Principal,
    RecoveryKey,
    Thresholds,
)
from custody.formats.policy_draft import Draft, HostDraft, LeavingDraft
from custody.formats.policy_text import parse_quorum
from custody.ops import policies as ops
from custody.ops.policy_words import describe, describe_changes
from tests.unit.people import (
    NOW,
    PEOPLE,
    authority,
    following,
    key,
    policy,
    principal,
    signed_policy,
    signer,
)
from tests.unit.rules.test_logged_policies import log_key

ONE = signed_policy(policy())
DRAFT = Draft(
    environment="production",
    expires=date(2027, 10, 1),
    quorum="2 of (sec1, sec2, sec3)",
    authorities=("authority.cer",),
    token_classes=("software",),
    host=HostDraft(pcrs=(0, 7), trust_classes=("hardware",), vendor_roots=("vendor.pem",)),
    thresholds=Thresholds(root=2, enrolment=2, golden=2),
)
EVERYBODY = [principal(name, role) for name, role in PEOPLE.items()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files a draft names: one DER, one PEM."""
    (tmp_path / "authority.cer").write_bytes(authority())
    pem = x509.load_der_x509_certificate(authority()).public_bytes(Encoding.PEM)
    (tmp_path / "vendor.pem").write_bytes(pem)
    return tmp_path


def build(
    folder: Path, draft: Draft = DRAFT, *, previous: Statement[Policy] | None = None
) -> Policy:
    """Build a policy, of everybody if it is the first."""
    people = [] if previous else EVERYBODY
    return ops.build_policy(draft, folder=folder, people=people, previous=previous, now=NOW)


def test_a_draft_becomes_version_one(folder: Path) -> None:
    """A draft and its people make a sound policy, PEM and DER alike, people in order."""
    made = build(folder)
    assert (1, None, (authority(),)) == (made.version, made.genesis, made.host.vendor_roots)
    assert sorted(PEOPLE) == [person.id for person in made.principals]
    assert (86400, 35 * 86400) == (
        made.limits.approval_seconds,
        made.limits.crl_max_age_seconds,
    )


def test_the_next_version_keeps_its_people(folder: Path) -> None:
    """Version 2 names version 1 as its genesis and carries over everybody who does not leave."""
    draft = replace(DRAFT, leaving=LeavingDraft(principals=("pub",)))
    made = build(folder, draft, previous=ONE)
    assert (2, ONE.digest) == (made.version, made.genesis)
    assert sorted(set(PEOPLE) - {"pub"}) == [person.id for person in made.principals]


def test_a_lost_token_leaves_without_its_owner(folder: Path) -> None:
    """Keys may leave while their principal stays with another token."""
    spare = replace(principal("spare", "officer"), id="sec1")
    old = principal("sec1", "officer")
    gone = tuple(key.key_id for key in old.keys)
    draft = replace(DRAFT, leaving=LeavingDraft(keys=gone))
    made = ops.build_policy(draft, folder=folder, people=[spare], previous=ONE, now=NOW)
    person = made.principal("sec1")
    assert person is not None
    assert {key.key_id for key in spare.keys} == {key.key_id for key in person.keys}


def test_one_person_in_two_roles_is_one_principal(folder: Path) -> None:
    """Admissions under one name join: all their keys and roles belong to one principal."""
    both = [*EVERYBODY, replace(principal("more", "enroller"), id="ida")]
    made = ops.build_policy(DRAFT, folder=folder, people=both, previous=None, now=NOW)
    person = made.principal("ida")
    assert person is not None
    assert (("custodian", "enroller"), 2) == (person.roles, len(person.keys))


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"quorum": "1 of (sec1, sec2)"}, "policy.quorum"),
        ({"quorum": "all(sec1, 1 of (sec1, sec2))"}, "policy.quorum"),
        ({"quorum": "all(sec1, nobody)"}, "policy.officers"),
        ({"quorum": "all(sec1, pub)"}, "policy.officers"),
        ({"expires": date(2029, 1, 1)}, "policy.life"),
        ({"expires": date(2026, 1, 1)}, "policy.life"),
        ({"weakest_suite": "P384"}, "policy.officers"),
        ({"thresholds": Thresholds(root=3, enrolment=2, golden=2)}, "policy.root-threshold"),
        ({"thresholds": Thresholds(root=2, enrolment=3, golden=2)}, "policy.enrolment-threshold"),
        (
            {
                "host": HostDraft(
                    pcrs=(16,), trust_classes=("hardware",), vendor_roots=("vendor.pem",)
                )
            },
            "policy.pcrs",
        ),
    ],
)
def test_an_unsound_draft_is_refused(folder: Path, change: dict[str, object], check: str) -> None:
    """What nobody should sign is not even offered to be signed."""
    with pytest.raises(Refused) as refused:
        build(folder, replace(DRAFT, **change))
    assert check == refused.value.check


def test_a_register_that_no_tpm_has_is_malformed(folder: Path) -> None:
    """What a draft says is held to the policy's own format before anybody signs it."""
    host = replace(DRAFT.host, pcrs=(24,))
    with pytest.raises(Malformed):
        build(folder, replace(DRAFT, host=host))


def test_signatures_add_up() -> None:
    """A second custodian's signature completes what the first proposed, under the same digest."""
    proposed = decode_statement(Policy, ops.propose(policy(), signer=signer("ida"), previous=None))
    assert not ops.view(proposed, previous=None).complete
    both = decode_statement(
        Policy, ops.add_signature(proposed, signer=signer("cas"), previous=None, now=NOW)
    )
    shown = ops.view(both, previous=None)
    assert shown.complete
    assert (("version 1", ("cas", "ida")),) == tuple((at, s.signers) for at, s in shown.signed)
    assert proposed.digest == both.digest


@pytest.mark.parametrize(
    ("who", "check"), [("ida", "policy.signed"), ("sec1", "policy.signer"), ("me", "policy.signer")]
)
def test_who_may_not_sign(who: str, check: str) -> None:
    """The same custodian twice, an officer and a stranger add nothing."""
    proposed = decode_statement(Policy, ops.propose(policy(), signer=signer("ida"), previous=None))
    with pytest.raises(Refused) as refused:
        ops.add_signature(proposed, signer=signer(who), previous=None, now=NOW)
    assert check == refused.value.check


def test_an_unsound_policy_is_not_signed() -> None:
    """A policy made elsewhere is judged again before a signature is added."""
    quorum = parse_quorum("1 of (sec1, sec2)")
    bad = signed_policy(policy(quorum=quorum), "ida")
    with pytest.raises(Refused) as refused:
        ops.add_signature(bad, signer=signer("cas"), previous=None, now=NOW)
    assert "policy.quorum" == refused.value.check


def test_an_expired_policy_is_not_signed() -> None:
    """A signature on a policy that has expired helps nobody but who backdates."""
    with pytest.raises(Refused) as refused:
        ops.add_signature(
            signed_policy(policy(), "ida"),
            signer=signer("cas"),
            previous=None,
            now=NOW + timedelta(days=301),
        )
    assert "policy.expired" == refused.value.check


@pytest.mark.parametrize("change", ["genesis", "environment", "version"])
def test_a_policy_that_does_not_follow_is_not_signed(change: str) -> None:
    """Version 2 is signed only beside the version 1 it continues."""
    values = {"genesis": "0" * 64, "environment": "staging", "version": 3}
    two = signed_policy(replace(following(ONE), **{change: values[change]}), "ida")
    with pytest.raises(Refused) as refused:
        ops.add_signature(two, signer=signer("cas"), previous=ONE, now=NOW)
    assert "policy.previous" == refused.value.check


def test_version_two_needs_its_previous() -> None:
    """Without the version before it nobody can tell what a policy changes, so it is not signed."""
    two = signed_policy(following(ONE), "ida")
    with pytest.raises(Refused) as refused:
        ops.add_signature(two, signer=signer("cas"), previous=None, now=NOW)
    assert "policy.previous" == refused.value.check


def test_a_new_version_shows_both_thresholds() -> None:
    """For version 2 the custodians of version 1 and of version 2 are both counted."""
    two = signed_policy(following(ONE, self_approval=True), "ida")
    shown = ops.view(two, previous=ONE)
    assert [("version 1", 1), ("version 2", 1)] == [(at, s.missing) for at, s in shown.signed]
    assert (
        "- environment production, version 1",
        "- a publisher may not approve his own models",
        "+ environment production, version 2",
        "+ a publisher may approve his own models",
    ) == shown.changes


CHANGES: dict[str, object] = {
    "environment": "staging",
    "version": 7,
    "issued_at": NOW - timedelta(days=1, seconds=1),
    "expires_at": NOW + timedelta(days=300, seconds=1),
    "principals": (*policy().principals[:-1], principal("sec3", "publisher")),
    "token_classes": ("software", "self-asserted"),
    "authorities": (authority() + b"x",),
    "quorum": parse_quorum("2 of (sec1, sec3, sec2)"),
    "thresholds": Thresholds(root=2, enrolment=2, golden=3),
    "host": HostRequirements(
        bank="sha256",
        pcrs=(0, 2, 4),
        trust_classes=("software",),
        vendor_roots=(authority(),),
        event_log="optional",
        vendor_crls=(),
        further=(),
    ),
    "limits": Limits(
        request_window_seconds=6 * 3600,
        approval_seconds=24 * 3600 + 1,
        crl_max_age_seconds=8 * 86400,
    ),
    "modes": ("once", "sealed"),
    "part_digest": "sha256",
    "weakest_suite": "P384",
    "self_approval": True,
    "withdrawn": ("ab" * 32,),
    "logged": ("log log.example.com+00000000+AA==", "quorum none"),
    "recovery": RecoveryKey(
        epoch=1,
        suite="P256",
        spki=public_bytes(key("recovery").public_key()),
        mlkem=None,
        set_id=4711,
        among=parse_quorum("2 of (cas, ida, jon)"),
        record="cd" * 32,
    ),
}


@pytest.mark.parametrize("field", sorted(set(Policy.__struct_fields__) - {"genesis"}))
def test_nothing_changes_unseen(field: str) -> None:
    """A change of any field of a policy is a change of the words its signers read."""
    changed = replace(policy(), **{field: CHANGES[field]})
    assert describe(policy()) != describe(changed)
    assert describe_changes(policy(), changed)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 2},
        {"suite": "P384"},
        {"spki": public_bytes(key("another").public_key())},
        {"mlkem": bytes(1568)},
        {"set_id": 4712},
        {"among": parse_quorum("2 of (cas, jon, ida)")},
        {"record": "ce" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_nothing_of_a_recovery_key_changes_unseen(change: dict[str, Any]) -> None:
    """Another recovery key, set, holder or record is read by whoever signs the policy."""
    key_before = CHANGES["recovery"]
    assert isinstance(key_before, RecoveryKey)
    before = replace(policy(), recovery=key_before)
    after = replace(policy(), recovery=replace(key_before, **change))
    assert describe_changes(before, after)


def test_second_tokens_do_not_make_a_tree_unusable(folder: Path) -> None:
    """A tree that is small enough by people must also be small enough by their tokens."""
    officers = [principal(f"off{n}", "officer") for n in range(10)]
    spares = [replace(principal(f"more{n}", "officer"), id=f"off{n}") for n in range(10)]
    draft = replace(DRAFT, quorum=f"3 of ({', '.join(officer.id for officer in officers)})")

    def made(people: Sequence[Principal]) -> Policy:
        return ops.build_policy(
            draft, folder=folder, people=[*EVERYBODY, *people], previous=None, now=NOW
        )

    # 120 sets of people; of tokens 120, with half the officers' second ones 390, with all 960.
    assert made(officers)
    assert made([*officers, *spares[:5]])
    with pytest.raises(Refused) as refused:
        made([*officers, *spares])
    assert "policy.tokens" == refused.value.check


def test_a_draft_names_its_log_by_a_file(folder: Path) -> None:
    """The lines of a tlog-policy come into the policy without comments and spare spaces."""
    vkey = log_key().vkey
    (folder / "logs.policy").write_text(f"# ours\n\nlog   {vkey}\nquorum\tnone\n")
    made = build(folder, replace(DRAFT, logged="logs.policy"))
    assert (f"log {vkey}", "quorum none") == made.logged
    assert build(folder).logged is None
    (folder / "logs.policy").write_text("log\n")
    with pytest.raises(Malformed) as malformed:
        build(folder, replace(DRAFT, logged="logs.policy"))
    assert "logs.policy" in str(malformed.value.where)
