"""What an archive tells beside its releases: who is believed, and what is said of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from custody.crypto.certificates import issue_authority, issue_certificate, issue_crl
from custody.encoding import encode, sha256
from custody.formats.case import Documents, EntryProof, merge, sort_documents
from custody.formats.envelope import decode_envelope, decode_statement
from custody.formats.keybackup import HeldIn, KeyAttribute, KeyBackup, SealedWrappingKey
from custody.formats.logentry import entry_of
from custody.formats.logproof import LogProof
from custody.formats.recovery import BreakGlass
from custody.lab.swtpm import Swtpm
from custody.log.tree import Tree
from custody.ops.archive import read_archive
from custody.ops.chronicle import Chronicle, chronicle_of
from custody.ops.deeds import Deed, Matter
from custody.ops.export import act_lines, intoto_bundle
from tests.release.archives import whole
from tests.release.cast import NOW, Cast, person, spki
from tests.release.logged import Log, LoggedCast, witness
from tests.release.test_recovery import broken, found, words

DAY = timedelta(days=1)


def tell(
    cast: Cast, *statements: bytes, documents: Documents | None = None, now: datetime = NOW + DAY
) -> Chronicle:
    """Tell of a cast's public files, and of further statements."""
    heap = sort_documents([(f"further-{n}.dsse", data) for n, data in enumerate(statements)])
    known = merge(cast.documents, heap, documents or Documents())
    return chronicle_of(known, pin=cast.pin, now=now)


def of(chronicle: Chronicle, matter: Matter) -> Sequence[Deed]:
    """Choose the deeds of one kind."""
    return [deed for deed in chronicle.deeds if deed.matter == matter]


def backup(cast: Cast, *, serial: str = "1", at: datetime = NOW) -> KeyBackup:
    """A statement that a KEK left a token."""
    return KeyBackup(
        environment="production",
        record=cast.pin,
        wrapping=SealedWrappingKey(spki=b"public", salt=bytes(32), sealed=bytes(32)),
        role="kek",
        label="site",
        id=b"1",
        check=sha256(b"kek").hex(),
        spki=None,
        attributes=(KeyAttribute(name="SENSITIVE", value="true"),),
        oaep_hash="sha1",
        wrapped=bytes(512),
        carrier=None,
        carried=None,
        held_in=HeldIn(label="vault", manufacturer="m", model="m", serial=serial),
        made_at=at,
    )


def test_without_a_policy_from_the_pin_nothing_is_told(cast: Cast) -> None:
    """Nobody's role is known then, and so nobody is believed."""
    assert Chronicle() == chronicle_of(cast.documents, pin="1" * 64, now=NOW)
    assert tell(cast).deeds


def test_who_signed_is_who_signed_well(cast: Cast) -> None:
    """Policy, host and boot state name those whose signatures count, and no other."""
    told = tell(cast)
    (policy,) = of(told, "policy")
    assert ("cus1", "cus2") == policy.who
    assert [("enr1", "enr2"), ("enr1", "enr3")] == sorted(deed.who for deed in of(told, "host"))
    # One signature taken away is one enroller too few.
    record = cast.documents.enrolments[0]
    half = msgspec.structs.replace(record.envelope, signatures=record.envelope.signatures[:1])
    cut = msgspec.structs.replace(record, envelope=half)
    told = chronicle_of(replace(cast.documents, enrolments=(cut,)), pin=cast.pin, now=NOW)
    (fault,) = [deed.fault for deed in of(told, "host") if deed.fault]
    assert "1 more enroller had to sign" == fault


def test_a_version_that_nobody_goes_on_to_is_told_as_such(cast: Cast) -> None:
    """A next policy that one custodian signed is not believed, and not kept quiet about."""
    cast.next_policy("cus1", weakest_suite="P384")
    stray, first = sorted(of(tell(cast), "policy"), key=lambda deed: deed.fault, reverse=True)
    assert ("", "policy version 1, until") == (first.fault, first.words[:23])
    assert "policy version 2, of no chain from the pinned one" == stray.words
    assert "does not follow" in stray.fault
    assert not of(tell(cast), "person")


def test_people_and_their_keys_are_told_by_name(cast: Cast) -> None:
    """Who joins, who leaves, whose keys change, and whose role: each is a line of its own."""
    people = {one.id: one for one in (p.principal() for p in cast.people.values())}
    del people["enr3"]
    people["enr4"] = person("enr4", "enroller").principal()
    people["new"] = person("new", "auditor").principal()
    more = person("sec1", "officer", tokens=2).principal()
    people["sec1"] = msgspec.structs.replace(more, keys=(*people["sec1"].keys, *more.keys))
    people["lead2"] = msgspec.structs.replace(people["lead2"], roles=("officer", "auditor"))
    cast.next_policy(principals=tuple(people[name] for name in sorted(people)))
    told = tell(cast)
    assert {
        "enr3 leaves; was enroller",
        "enr4 joins as enroller",
        "new joins as auditor",
        "lead2 is officer, auditor now, and was officer",
        "sec1 has further keys",
    } == {deed.words for deed in (*of(told, "person"), *of(told, "token"))}
    assert 2 == len(of(told, "policy"))
    assert ("who is listed, and nothing else",) == of(told, "policy")[1].details


def test_a_revoked_key_is_named_by_the_authoritys_certificate(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate by somebody else, of the same number and for another key, changes no name."""
    lost = spki(cast.people["sec1"].signing[0])
    cast.crl = cast.make_crl(number=2, revoked=[lost])
    held = [x509.load_der_x509_certificate(der) for der in cast.certificates]
    key = cast.people["sec1"].signing[0].public_key()
    revoked = next(certificate for certificate in held if certificate.public_key() == key)
    cast.refresh()
    stranger = person("stranger", "auditor").signing[0]
    root = issue_authority(
        stranger, name="lab authority", not_before=NOW - DAY, not_after=NOW + 300 * DAY
    )
    monkeypatch.setattr(x509, "random_serial_number", lambda: revoked.serial_number)
    forged = issue_certificate(
        stranger,
        root,
        spki=spki(cast.people["sec2"].signing[0]),
        principal="sec2",
        display="sec2",
        use="sign",
        not_before=NOW - DAY,
        not_after=NOW + DAY,
    )
    documents = replace(cast.documents, certificates=(forged, *cast.documents.certificates))
    (deed,) = of(chronicle_of(documents, pin=cast.pin, now=NOW + DAY), "token")
    assert deed.words.startswith("sec1: 1 certificate revoked")


def test_a_backup_by_nobody_known_is_told_as_not_believed(cast: Cast) -> None:
    """An officer's word on a backup counts for nothing; a custodian's does."""
    (good,) = of(tell(cast, cast.sign(backup(cast), "cus1")), "backup")
    assert (("cus1",), "") == (good.who, good.fault)
    (bad,) = of(tell(cast, cast.sign(backup(cast), "sec1")), "backup")
    assert () == bad.who
    assert "no custodian's" in bad.fault


def test_a_key_that_came_back_is_told(cast: Cast) -> None:
    """One check value out of a second token: it came back.  Whom nobody believes moves nothing."""
    first = cast.sign(backup(cast), "cus1")
    second = cast.sign(backup(cast, serial="2", at=NOW + timedelta(hours=1)), "cus2")
    lie = cast.sign(backup(cast, serial="3", at=NOW + timedelta(hours=2)), "sec1")
    told = of(tell(cast, first, second, lie), "backup")
    assert [False, True, False] == ["another token" in deed.words for deed in told]
    assert "serial 1, before: it came back" in told[1].details[0]


def test_after_a_key_was_revoked_it_vouches_for_nothing(cast: Cast) -> None:
    """A custodian's statement of after the revocation is told as that; one of before stands."""
    early = cast.sign(backup(cast, at=NOW - timedelta(hours=3)), "cus1")
    late = cast.sign(backup(cast, at=NOW + timedelta(hours=3)), "cus1")
    cast.crl = cast.make_crl(number=2, revoked=[spki(cast.people["cus1"].signing[0])])
    cast.refresh()
    one, two = of(tell(cast, early, late), "backup")
    assert "" == one.fault
    assert "a key that was revoked at" in two.fault


def test_the_breaking_of_the_glass_is_told(cast: Cast) -> None:
    """Who broke it, why, by whose shares; and which recovery key it was."""
    made = found(cast)
    bundle = cast.seal()
    done = broken(cast, bundle, made, words(made, "cus3", "enr1", "cus1", "enr3"))
    documents = Documents(
        recovery_records=(made.record,), broken=(decode_statement(BreakGlass, done.statement),)
    )
    record, glass = of(tell(cast, documents=documents), "recovery")
    assert "in force from policy version 2" in record.details
    assert (("cus2",), "lost", "") == (glass.who, glass.sign, glass.fault)
    assert glass.words.startswith(f"the glass was broken: bundle {bundle.statement.digest[:16]}…")
    assert "“every officer's token burnt with the office”" in glass.details


def test_a_bundle_by_nobody_known_is_told_as_not_believed(cast: Cast) -> None:
    """A manifest that another than a publisher signed; and a withdrawal by a policy."""
    bundle = cast.seal()
    forged = cast.sign(bundle.statement.predicate, "sec1")
    (deed,) = of(tell(cast, forged), "bundle")
    assert "no publisher's" in deed.fault
    cast.next_policy(withdrawn=(bundle.statement.digest,))
    good = Documents(manifests=(bundle.statement,))
    # The forged copy beside the good one hides nothing, and is no second bundle.
    told = {deed.sign: deed for deed in of(tell(cast, forged, documents=good), "bundle")}
    assert {"seal", "gone"} == told.keys()
    assert (("pub",), "") == (told["seal"].who, told["seal"].fault)
    assert ("cus1", "cus2") == told["gone"].who


def test_what_is_not_believed_is_told_in_lines_and_in_no_bundle(cast: Cast, tmp_path: Path) -> None:
    """An officer's word on a backup: `since` says that it is not believed, and why; what the
    bundle holds others would take for statements of this environment.
    """
    lie, true = (
        cast.sign(backup(cast, serial=n), who) for n, who in (("1", "sec1"), ("2", "cus1"))
    )
    (policy,) = cast.documents.policies
    for number, data in enumerate((lie, true, encode(policy.envelope))):
        (tmp_path / f"{number}.dsse").write_bytes(data)
    found = read_archive([tmp_path], shelves=[], pin=cast.pin)
    lines = list(act_lines(found, whole(found)))
    assert lines == sorted(lines, key=lambda line: line.at)
    assert [(False, "unknown"), (True, "cus1")] == sorted(
        (line.sound, line.who) for line in lines if line.act == "backup.made"
    )
    (fault,) = [line.note for line in lines if not line.sound]
    assert fault.startswith("signed by a key that is no custodian's in this policy; out of token")
    bundle = intoto_bundle(found, whole(found)).splitlines()
    assert true in bundle
    assert lie not in bundle


def test_only_the_log_of_a_policy_shows_something_to_be_logged(
    machine: Swtpm, cast: Cast, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A proof by the log that a policy names gives an entry; one by another log does not."""
    own, other = Log(witnesses=[witness()]), Log()
    logged = LoggedCast(tmp_path_factory.mktemp("logged"), machine, own)
    data = logged.sign(backup(logged), "cus1")
    entry = entry_of(decode_envelope(data))

    def proof(log: Log) -> Documents:
        done = log.writer().append([entry.encode()])
        head = done.signed.checkpoint
        hashes = Tree(log.store, size=head.size, head=head.root).inclusion(head.size - 1)
        made = LogProof(head.size - 1, hashes, done.signed, entry.encode())
        return Documents(proofs=(EntryProof(entry=entry, proof=made),))

    (deed,) = of(tell(logged, data, documents=proof(other)), "backup")
    assert deed.place is None
    (deed,) = of(tell(logged, data, documents=proof(own)), "backup")
    assert deed.place is not None
    assert (own.signer.name, 0) == (deed.place.log, deed.place.index)
    # Its witness cosigned the head, and so says by when the statement was there.
    assert (NOW, f"witnesses of {own.signer.name}") == (deed.there_by, deed.vouched)
    assert () == tell(cast).logs


def test_moments_that_no_list_covers_are_told(cast: Cast) -> None:
    """Between two lists of an authority there is a gap, if the second comes late."""
    assert () == tell(cast).gaps
    late = issue_crl(
        cast.ca,
        cast.authority,
        entries=[],
        number=2,
        this_update=NOW + 10 * DAY,
        next_update=NOW + 17 * DAY,
    )
    cast.refresh(("late.crl", late))
    (gap,) = tell(cast, now=NOW + 20 * DAY).gaps
    assert (NOW + 7 * DAY, NOW + 10 * DAY) == (gap.since, gap.until)
