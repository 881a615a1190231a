"""Whether every file of a ceremony is held to its record: each field, each signer, each swap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from custody.crypto.certificates import issue_authority, issue_certificate, issue_crl
from custody.encoding import encode, sha256
from custody.formats.ceremony import (
    AUTHORITY,
    CRL,
    INVITATION,
    POLICY,
    MakePolicy,
    admission_name,
    challenge_names,
    recovery_name,
    share_name,
    wrapping_name,
)
from custody.formats.keybackup import KeyAttribute
from custody.formats.policy_text import parse_quorum
from custody.formats.transcript import Done, NamedFile, Told
from custody.formats.vendor import KeyAttestation
from custody.rules.ceremony import TokenName
from custody.rules.ceremony_script import check_script
from custody.rules.ceremony_statements import judge_statements
from custody.rules.verdicts import Verdict, passed
from tests.unit import people
from tests.unit.rules import ceremony_whole as table
from tests.unit.rules.ceremony_whole import Otherwise, Whole, spki
from tests.unit.yubikey import YubiKey

OTHER = sha256(b"another").hex()
LATER = timedelta(minutes=5)
RECORD, WRAPPING = recovery_name(1), wrapping_name(1)
ANYBODY = TokenName(label=None, serial=None, manufacturer=None, model=None)


def judge(whole: Whole) -> tuple[Verdict, ...]:
    """Judge a ceremony's files."""
    return judge_statements(table.script(), whole.lines, whole.contents)


def failed(otherwise: Otherwise) -> list[tuple[str, str]]:
    """Return what fails: the check, and why."""
    verdicts = judge(table.whole(otherwise))
    return [(v.check, v.reason) for v in verdicts if v.outcome == "fail"]


def test_the_ceremony_holds() -> None:
    """Each kind of step, judged by its check; and the script can be held."""
    verdicts = judge(table.whole())
    assert passed(verdicts)
    assert {
        *("ceremony.invitation", "ceremony.admission", "ceremony.authority", "ceremony.log"),
        *("ceremony.kek", "ceremony.certificates", "ceremony.recovery", "ceremony.policy"),
        *("ceremony.wrapping", "ceremony.trust", "ceremony.backup", "ceremony.attestation"),
    } == {verdict.check for verdict in verdicts}
    told = [verdict.reason for verdict in verdicts if verdict.check == "ceremony.attestation"]
    assert len(table.STEPS) == len(verdicts) - len(told)
    # Both keys, where they were made and where they were admitted.
    assert ["9c", "9c", "9d", "9d"] == sorted(words.split("slot ")[1][:2] for words in told)
    assert passed(check_script(table.script(), dict.fromkeys(table.ROLES, ANYBODY)))


def _said(name: str, **changes: object) -> Otherwise:
    return Otherwise(said={name: lambda said: replace(said, **changes)})


def _by(name: str, change: Callable[[Any], Any]) -> Otherwise:
    return Otherwise(said={name: change})


def _attribute(name: str, value: str) -> Otherwise:
    def change(said: Any) -> Any:
        items = ((a.name, value if a.name == name else a.value) for a in said.attributes)
        return replace(said, attributes=tuple(KeyAttribute(name=n, value=v) for n, v in items))

    return _by(table.KEK_FILE, change)


def _held(**changes: str) -> Otherwise:
    return _by(table.KEK_FILE, lambda said: replace(said, held_in=replace(said.held_in, **changes)))


#: Every field of a file that a step wrote, one at a time: what is changed, and what is said of it.
FIELDS: Mapping[str, tuple[Otherwise, str, str]] = {
    "an invitation to elsewhere": (
        _said(INVITATION, environment="staging"),
        "ceremony.invitation",
        "environment",
    ),
    "an invitation of another custodian": (
        _said(INVITATION, custodian="cas"),
        "ceremony.invitation",
        "custodian",
    ),
    "an admission for another invitation": (
        _said(admission_name("cas"), invitation=OTHER),
        "ceremony.admission",
        "invitation",
    ),
    "an admission of another name": (
        _said(admission_name("cas"), principal="cyd"),
        "ceremony.admission",
        "person",
    ),
    "an admission that is shown by another name": (
        _said(admission_name("cas"), display="ida"),
        "ceremony.admission",
        "display name",
    ),
    "an admission in another role": (
        _said(admission_name("sec1"), role="custodian"),
        "ceremony.admission",
        "role",
    ),
    "an admission from another kind of token": (
        _said(admission_name("cas"), token_class="self-asserted"),
        "ceremony.admission",
        "token class",
    ),
    "an admission with a key that was not made": (
        _by(
            admission_name("cas"),
            lambda s: replace(s, shares=(replace(s.shares[0], spki=spki("eve share")),)),
        ),
        "ceremony.admission",
        "share key",
    ),
    "an admission without the key that was made": (
        _said(admission_name("sec1"), shares=()),
        "ceremony.admission",
        "share key",
    ),
    "a publisher who offers his own key": (
        _by(admission_name("pub"), lambda s: replace(s, shares=_claims("cas"))),
        "ceremony.admission",
        "share key",
    ),
    "a challenge to another admission": (
        _said(challenge_names("sec2")[0], admission=OTHER),
        "ceremony.admission",
        "admission",
    ),
    "an answer to another challenge": (
        _said(challenge_names("sec2")[1], challenge=OTHER),
        "ceremony.admission",
        "challenge",
    ),
    "a certificate of another authority": (
        _by("cas.0.cer", lambda _: _certificate("cas", ca="eve")),
        "ceremony.certificates",
        "cas.0.cer is not of the authority",
    ),
    "a certificate of another person": (
        _by("cas.0.cer", lambda _: _certificate("eve", of="cas")),
        "ceremony.certificates",
        "cas.0.cer is of another person",
    ),
    "a certificate for a key that nobody offered": (
        _by("cas.0.cer", lambda _: _certificate("cas", of="eve")),
        "ceremony.certificates",
        "not one for each key",
    ),
    "a certificate that holds for years": (
        _by("cas.0.cer", lambda _: _certificate("cas", days=900)),
        "ceremony.certificates",
        "cas.0.cer holds longer than 397 days",
    ),
    "an authority of another name": (
        _by(AUTHORITY, lambda _: _authority("ca", name="x")),
        "ceremony.authority",
        "name",
    ),
    "a list of another authority": (
        _by(CRL, lambda _: _crl("eve")),
        "ceremony.authority",
        "authority.crl is not of",
    ),
    "a recovery record of elsewhere": (
        _said(RECORD, environment="staging"),
        "ceremony.recovery",
        "environment",
    ),
    "a recovery record of another author": (
        _said(RECORD, author=OTHER),
        "ceremony.recovery",
        "author",
    ),
    "a recovery record of another epoch": (_said(RECORD, epoch=2), "ceremony.recovery", "epoch"),
    "a recovery record of another suite": (
        _said(RECORD, suite="P384"),
        "ceremony.recovery",
        "suite",
    ),
    "a recovery record with a passphrase": (
        _said(RECORD, passphrase=True),
        "ceremony.recovery",
        "passphrase",
    ),
    "a recovery record of other holders": (
        _by(
            RECORD,
            lambda s: replace(
                s,
                among=parse_quorum("2 of (ida, cas, eve)"),
                shares=(*s.shares[:2], replace(s.shares[2], holder="eve")),
            ),
        ),
        "ceremony.recovery",
        "set of holders",
    ),
    "a recovery record of another day": (
        _by(RECORD, lambda s: replace(s, made_at=s.made_at - timedelta(days=1))),
        "ceremony.recovery",
        "another time",
    ),
    "a share of another record": (
        _said(share_name(1, "cas"), record=OTHER),
        "ceremony.recovery",
        "record",
    ),
    "a share of another holder": (
        _said(share_name(1, "cas"), holder="cyd"),
        "ceremony.recovery",
        "holder",
    ),
    "a share of another place": (
        _said(share_name(1, "cas"), member=2),
        "ceremony.recovery",
        "place",
    ),
    "a share to another key": (
        _said(share_name(1, "cas"), recipient=OTHER),
        "ceremony.recovery",
        "recipient",
    ),
    "a share by another suite": (
        _said(share_name(1, "cas"), suite="P384"),
        "ceremony.recovery",
        "recipient",
    ),
    "a policy of elsewhere": (
        _said(POLICY, environment="staging"),
        "ceremony.policy",
        "environment",
    ),
    "a policy of another version": (_said(POLICY, version=2), "ceremony.policy", "version"),
    "a policy of another day": (
        _by(POLICY, lambda s: replace(s, issued_at=s.issued_at - timedelta(days=1))),
        "ceremony.policy",
        "another time",
    ),
    "a policy with somebody whom nobody admitted": (
        _by(
            POLICY,
            lambda s: replace(s, principals=(*s.principals, people.principal("eve", "officer"))),
        ),
        "ceremony.policy",
        "lists eve with a key that nobody admitted",
    ),
    "a policy with a second key of somebody": (
        _by(POLICY, lambda s: _with_key(s, "cas", "eve")),
        "ceremony.policy",
        "lists cas with a key that nobody admitted",
    ),
    "a policy without somebody who was admitted": (
        _by(
            POLICY,
            lambda s: replace(s, principals=tuple(p for p in s.principals if p.id != "cyd")),
        ),
        "ceremony.policy",
        "does not list cyd, custodian",
    ),
    "a policy that lacks a key": (
        _by(POLICY, lambda s: _without_share(s, "sec1")),
        "ceremony.policy",
        "does not list every key of sec1",
    ),
    "a wrapping key of elsewhere": (
        _said(WRAPPING, environment="staging"),
        "ceremony.wrapping",
        "environment",
    ),
    "a wrapping key of another record": (
        _said(WRAPPING, record=OTHER),
        "ceremony.wrapping",
        "recovery record",
    ),
    "a wrapping key without the shares": (
        _by(WRAPPING, lambda s: replace(s, key=replace(s.key, spki=_other_rsa(s.key.spki)))),
        "ceremony.wrapping",
        "not made with the shares",
    ),
    "a wrapping key with another proof": (
        _by(WRAPPING, lambda s: replace(s, proof=bytes([*s.proof[:-1], s.proof[-1] ^ 1]))),
        "ceremony.wrapping",
        "not made with the shares",
    ),
    "a wrapping key of another day": (
        _by(WRAPPING, lambda s: replace(s, made_at=s.made_at + LATER)),
        "ceremony.wrapping",
        "another time",
    ),
    "a backup of elsewhere": (
        _said(table.KEK_FILE, environment="staging"),
        "ceremony.backup",
        "environment",
    ),
    "a backup for another record": (
        _said(table.KEK_FILE, record=OTHER),
        "ceremony.backup",
        "recovery record",
    ),
    "a backup under another wrapping key": (
        _by(
            table.KEK_FILE,
            lambda s: replace(s, wrapping=replace(s.wrapping, spki=_other_rsa(s.wrapping.spki))),
        ),
        "ceremony.backup",
        "wrapping key",
    ),
    "a backup under a key sealed otherwise": (
        _by(table.KEK_FILE, lambda s: replace(s, wrapping=replace(s.wrapping, salt=bytes(32)))),
        "ceremony.backup",
        "wrapping key",
    ),
    "a backup of another label": (
        _said(table.KEK_FILE, label="x"),
        "ceremony.backup",
        "another label",
    ),
    "a backup of another id": (_said(table.KEK_FILE, id=b"kek-x"), "ceremony.backup", "another id"),
    "a backup of another check value": (
        _said(table.KEK_FILE, check=OTHER),
        "ceremony.backup",
        "check value",
    ),
    "a backup of another authority": (
        _said(table.CA_FILE, spki=spki("eve"), check=people.signer("eve").key_id),
        "ceremony.backup",
        "check value, public key",
    ),
    "a backup from another token": (_held(serial="0"), "ceremony.backup", "another token"),
    "a backup from a token of another label": (
        _held(label="x"),
        "ceremony.backup",
        "another token",
    ),
    "a backup from another model": (_held(model="x"), "ceremony.backup", "another token"),
    "a backup from another maker": (_held(manufacturer="x"), "ceremony.backup", "another token"),
    "a backup of another day": (
        _by(table.KEK_FILE, lambda s: replace(s, made_at=s.made_at + LATER)),
        "ceremony.backup",
        "another time",
    ),
    **{
        f"a backup that says {name} is {value}": (
            _attribute(name, value),
            "ceremony.backup",
            f"attributes of no such key: {name}",
        )
        for name, value in (
            ("SENSITIVE", "false"),
            ("WRAP_WITH_TRUSTED", "false"),
            ("EXTRACTABLE", "false"),
            ("DECRYPT", "true"),
            ("CLASS", "PRIVATE_KEY"),
            ("KEY_TYPE", "EC"),
            ("LABEL", "another"),
            ("ID", "00"),
        )
    },
}


def _claims(who: str) -> tuple[Any, ...]:
    from custody.formats.admission import Admission
    from custody.formats.envelope import decode_statement

    data = table.whole().contents[admission_name(who)]
    return decode_statement(Admission, data).predicate.shares


def _authority(ca: str, *, name: str = "production authority") -> bytes:
    return issue_authority(
        people.key(ca),
        name=name,
        not_before=table.NOW - timedelta(days=1),
        not_after=table.NOW + timedelta(days=3650),
    )


def _crl(ca: str) -> bytes:
    return issue_crl(
        people.key(ca),
        _authority(ca),
        entries=(),
        number=1,
        this_update=table.NOW,
        next_update=table.NOW + timedelta(days=30),
    )


def _certificate(principal: str, *, of: str = "cas", ca: str = "ca", days: int = 397) -> bytes:
    return issue_certificate(
        people.key(ca),
        _authority(ca),
        spki=spki(of),
        principal=principal,
        display="",
        use="sign",
        not_before=table.NOW,
        not_after=table.NOW + timedelta(days=days),
    )


def _other_rsa(public: bytes) -> bytes:
    at = 200
    return public[:at] + bytes([public[at] ^ 1]) + public[at + 1 :]


def _with_key(policy: Any, name: str, whose: str) -> Any:
    more = people.principal(whose, "custodian").keys
    found = tuple(
        replace(p, keys=(*p.keys, *more)) if p.id == name else p for p in policy.principals
    )
    return replace(policy, principals=found)


def _without_share(policy: Any, name: str) -> Any:
    found = tuple(replace(p, keys=p.keys[:1]) if p.id == name else p for p in policy.principals)
    return replace(policy, principals=found)


@pytest.mark.parametrize(("otherwise", "check", "why"), FIELDS.values(), ids=FIELDS)
def test_a_field_that_the_record_does_not_bear_out_is_named(
    otherwise: Otherwise, check: str, why: str
) -> None:
    """Every file signed anew, every digest told anew: the field itself gives it away."""
    assert any(check == found and why in reason for found, reason in failed(otherwise))


SIGNED: Mapping[str, tuple[str, str]] = {
    admission_name("cas"): ("cas", "ceremony.admission"),
    RECORD: ("ida", "ceremony.recovery"),
    WRAPPING: ("ida", "ceremony.wrapping"),
    table.KEK_FILE: ("ida", "ceremony.backup"),
    table.CA_FILE: ("cas", "ceremony.backup"),
}


@pytest.mark.parametrize("name", SIGNED)
def test_a_file_signed_by_another_person_is_named(name: str) -> None:
    """A custodian who signs in another's place is named, and so is a stranger."""
    whose, check = SIGNED[name]
    other = "cas" if whose == "ida" else "ida"
    for signer, called in ((other, other), ("eve", "a key that was not enrolled here")):
        words = f"{name} is signed by {called}, not by {whose}"
        found = failed(Otherwise(signer={name: signer}))
        assert any(check == each and words in why for each, why in found)


@pytest.mark.parametrize("name", SIGNED)
def test_a_signature_that_does_not_hold_is_named(name: str) -> None:
    """The key id of who should have signed does not stand for a signature."""
    whose, check = SIGNED[name]
    whole = table.whole()
    data = whole.contents[name]
    other = table.whole(Otherwise(said={name: _later})).contents[name]
    mine, theirs = data.index(b'"signatures"'), other.index(b'"signatures"')
    whole.contents[name] = data[:mine] + other[theirs:]
    reasons = [v.reason for v in judge(whole) if v.outcome == "fail" and v.check == check]
    assert any(f"{name}: the signature of {whose} does not hold" in why for why in reasons)


def _later(said: Any) -> Any:
    changed = {"made_at": said.made_at + LATER} if hasattr(said, "made_at") else {"display": "x"}
    return replace(said, **changed)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        (RECORD, WRAPPING),
        (WRAPPING, RECORD),
        (table.KEK_FILE, table.CA_FILE),
        (table.CA_FILE, table.KEK_FILE),
        (admission_name("cas"), admission_name("cyd")),
        (share_name(1, "ida"), share_name(1, "cas")),
        (AUTHORITY, CRL),
        (POLICY, RECORD),
        (INVITATION, AUTHORITY),
    ],
)
def test_a_swapped_file_is_named(name: str, instead: str) -> None:
    """A good file of this ceremony in another's place fails by the name it has there."""
    whole = table.whole()
    whole.contents[name] = whole.contents[instead]
    assert any(name in v.reason for v in judge(whole) if v.outcome == "fail")


@pytest.mark.parametrize("name", sorted(table.whole().contents))
def test_a_file_that_is_gone_is_named(name: str) -> None:
    """Every single file that a record names is read, and missed."""
    whole = table.whole()
    del whole.contents[name]
    assert any(f"{name} is not here" in v.reason for v in judge(whole) if v.outcome == "fail")


def _record(step: str, **changes: object) -> Otherwise:
    return Otherwise(done={step: lambda done: replace(done, **changes)})


def _key(step: str, **changes: object) -> Otherwise:
    def change(done: Done) -> Done:
        return replace(done, keys=(replace(done.keys[0], **changes), *done.keys[1:]))

    return Otherwise(done={step: change})


def _token(step: str, **changes: object) -> Otherwise:
    def change(done: Done) -> Done:
        return replace(done, tokens=tuple(replace(used, **changes) for used in done.tokens))

    return Otherwise(done={step: change})


def _without_slot(attestation: tuple[bytes, ...], slot: str) -> tuple[bytes, ...]:
    return tuple(der for der in attestation if f"Attestation {slot}".encode() not in der)


def _of_class(policy: Any, name: str, kind: str) -> Any:
    principals = (
        replace(p, keys=tuple(replace(key, token_class=kind) for key in p.keys))
        if p.id == name
        else p
        for p in policy.principals
    )
    return replace(policy, principals=tuple(principals))


ATTESTED = KeyAttestation(
    key=OTHER,
    slot="9c",
    serial=1,
    firmware="5.2.6",
    pin="always",
    touch="cached",
    root=table.ROOTS[0],
)
TOLD = (Told(what="it", digest=OTHER),)
STRAY = NamedFile(name="stray.dsse", sha256=OTHER)
RECORDS: Mapping[str, tuple[Otherwise, str, str]] = {
    **{
        f"another digest told in {step}": (_record(step, told=TOLD), check, "read aloud")
        for step, check in (
            ("invite", "ceremony.invitation"),
            ("enrol cas", "ceremony.admission"),
            ("authority", "ceremony.authority"),
            ("log-key", "ceremony.log"),
            ("kek", "ceremony.kek"),
            ("recovery", "ceremony.recovery"),
            ("policy", "ceremony.policy"),
            ("wrapping-key", "ceremony.wrapping"),
            ("trust-key leo", "ceremony.trust"),
            ("backup leo", "ceremony.backup"),
        )
    },
    "nothing told": (_record("wrapping-key", told=()), "ceremony.wrapping", "read aloud"),
    "another signing key enrolled": (
        _key("enrol cas", spki=spki("eve")),
        "ceremony.admission",
        "signing key",
    ),
    "another authority's key": (_key("authority", spki=spki("eve")), "ceremony.authority", "key"),
    "an authority's key of another label": (
        _key("authority", label="x"),
        "ceremony.authority",
        "label",
    ),
    "another log's key": (_key("log-key", spki=spki("eve")), "ceremony.log", "read aloud"),
    "a log's key of another label": (_key("log-key", label="x"), "ceremony.log", "label"),
    "a KEK of another label": (_key("kek", label="x"), "ceremony.kek", "label"),
    "a KEK of another check value": (_key("kek", check=OTHER), "ceremony.kek", "read aloud"),
    "a token that trusts another key": (
        _key("trust-key leo", spki=spki("eve")),
        "ceremony.trust",
        f"the token of leo trusts another key than that of {WRAPPING}",
    ),
    "a trusted key of another id": (_key("trust-key leo", id="00"), "ceremony.trust", "id"),
    "a trusted key of another label": (_key("trust-key leo", label="x"), "ceremony.trust", "label"),
    "a trusted key in another token": (
        _key("trust-key leo", person="ida"),
        "ceremony.trust",
        "person",
    ),
    "no trusted key": (_record("trust-key leo", keys=()), "ceremony.trust", "made 0 keys"),
    "a backup by another token": (
        _token("backup leo", serial="0"),
        "ceremony.backup",
        "another token",
    ),
    "an admission by another token": (
        _token("enrol cas", token_class="self-asserted"),
        "ceremony.admission",
        "token class",
    ),
    "no word of what a vendor attests": (
        _record("enrol sec1", attested=()),
        "ceremony.attestation",
        "says otherwise what a vendor attests",
    ),
    "no word of it where it is admitted": (
        _record("admit", attested=()),
        "ceremony.attestation",
        "says otherwise what a vendor attests",
    ),
    "another slot": (
        Otherwise(
            done={
                "enrol sec1": lambda done: replace(
                    done, attested=tuple(replace(key, slot="9a") for key in done.attested)
                )
            }
        ),
        "ceremony.attestation",
        "says otherwise what a vendor attests",
    ),
    "a vendor who attests what nobody asked for": (
        _record("enrol cas", attested=(ATTESTED,)),
        "ceremony.attestation",
        "says otherwise what a vendor attests",
    ),
    "a vendor who attests a key-encryption key": (
        _record("kek", attested=(ATTESTED,)),
        "ceremony.attestation",
        "no key is offered",
    ),
    "a required attestation that is lacking": (
        _said(admission_name("sec1"), attestation=()),
        "ceremony.attestation",
        "sec1 brings no vendor's attestation, and the script requires one",
    ),
    "an attestation by a root that the script does not name": (
        _said(admission_name("sec1"), attestation=table.attestation(YubiKey())),
        "ceremony.attestation",
        "sec1 brings none of the roots that the script names",
    ),
    "one key of two that is attested": (
        _by(
            admission_name("sec1"),
            lambda said: replace(said, attestation=_without_slot(said.attestation, "9d")),
        ),
        "ceremony.attestation",
        "requires that a vendor attests every key, and none attests",
    ),
    "a policy that lists an attested key as another": (
        _by(POLICY, lambda said: _of_class(said, "sec1", "software")),
        "ceremony.policy",
        "lists a key of sec1 by another class than was shown here",
    ),
    "a policy that calls a key attested that nobody attests": (
        _by(POLICY, lambda said: _of_class(said, "cas", "vendor-attested")),
        "ceremony.policy",
        "lists a key of cas by another class than was shown here",
    ),
    "a file that no such step writes": (
        Otherwise(done={"kek": lambda done: replace(done, files=(STRAY,))}),
        "ceremony.kek",
        "no part in: stray.dsse",
    ),
    "a statement that is not named": (
        _record("wrapping-key", files=()),
        "ceremony.wrapping",
        "does not name recovery-1.",
    ),
}


@pytest.mark.parametrize(("otherwise", "check", "why"), RECORDS.values(), ids=RECORDS)
def test_a_record_that_the_files_do_not_bear_out_is_named(
    otherwise: Otherwise, check: str, why: str
) -> None:
    """A trust-key record, a key, a token, a digest that was told: held to the signed files."""
    assert any(check == found and why in reason for found, reason in failed(otherwise))


def test_a_transcript_cut_before_its_policy_is_judged_as_far_as_it_goes() -> None:
    """What is on record still holds; that the rest is missing is for the order of records."""
    whole = table.whole()
    number = next(n for n, step in enumerate(table.STEPS) if isinstance(step, MakePolicy))
    verdicts = judge_statements(table.script(), whole.lines[: 1 + 2 * number], whole.contents)
    assert passed(verdicts)
    assert number == len({verdict.subject for verdict in verdicts})
    (skipped,) = judge_statements(table.script(), whole.lines[:1], whole.contents)
    assert "not-applicable" == skipped.outcome


def test_records_out_of_the_scripts_order_are_not_judged_as_other_steps() -> None:
    """A kind of step that does not come next ends the judging: nothing is read as another."""
    whole = table.whole()
    lines = (*whole.lines[:3], *whole.lines[17:])
    verdicts = judge_statements(table.script(), lines, whole.contents)
    assert ["ceremony.invitation"] == [verdict.check for verdict in verdicts]


def test_another_authority_in_the_place_of_the_one_that_was_made_is_named() -> None:
    """A stranger's certificate is of another key, and issued none of the others."""
    whole = table.whole()
    whole.contents[AUTHORITY] = _authority("eve")
    reasons = {v.check: v.reason for v in judge(whole) if v.outcome == "fail"}
    assert "authority.cer is of another key" in reasons["ceremony.authority"]
    assert "is not of the authority that was made here" in reasons["ceremony.certificates"]


def test_bytes_that_are_no_statement_are_named() -> None:
    """A file of rubbish fails by its name, and raises nothing."""
    for name in table.whole().contents:
        whole = table.whole()
        whole.contents[name] = encode({"a": 1}) if name.endswith(".json") else b"\x30\x00"
        assert any(name in v.reason for v in judge(whole) if v.outcome == "fail"), name
