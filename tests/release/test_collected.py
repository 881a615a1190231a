"""One file for the auditor: whole, or refused by the name of what is wrong."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from custody.crypto.certificates import issue_certificate
from custody.encoding import encode, sha256
from custody.errors import CustodyError, Incomplete, Refused
from custody.formats.case import merge, read_statement, sort_documents
from custody.formats.casefile import MAGIC, encode_case_file
from custody.formats.envelope import Signature, decode_envelope, decode_statement
from custody.formats.policy import Policy
from custody.ops.collect import collect, open_case_file
from tests.cli.transcript import run
from tests.release.cast import NOW, Cast, person, spki
from tests.release.collected import (
    Collection,
    collected,
    faults,
    files_of,
    judged,
    logged_release,
    reason_of,
    release,
    without,
    written,
)
from tests.release.conftest import ready, running
from tests.release.expect import spoil
from tests.release.logged import Log, LoggedCast, witness

#: Changes tried in `make test`; `make soak` tries every byte.
SAMPLES = 2000


@pytest.fixture(scope="module")
def whole(
    manufactured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collection]:
    """Collect one release, once for all that only change the file."""
    with running(manufactured) as machine:
        yield collected(ready(tmp_path_factory.mktemp("collected"), machine))


@pytest.fixture(scope="module")
def logged(
    manufactured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collection]:
    """Collect one release that a log, a witness and a time-stamping authority speak of."""
    with running(manufactured) as machine:
        log = Log(witnesses=[witness()])
        yield logged_release(LoggedCast(tmp_path_factory.mktemp("logged"), machine, log))


def test_a_release_is_judged_from_one_file(whole: Collection) -> None:
    """The file alone, by a pin, tells everything: sound, opened and burned, with the denial."""
    report = judged(whole.data, whole.pin)
    assert set() == faults(whole.data, whole.pin)
    assert report.sound
    (found,) = report.releases
    assert "opened-and-burned" == found.outcome
    assert found.tally is not None
    assert (3, 1) == (len(found.tally.counted), len(found.tally.denials))


def test_a_file_holds_what_it_needs_and_no_more(whole: Collection) -> None:
    """Certificates of those who signed, two policies, one of everything else; no share keys'."""
    kinds = {kind: len(whole.named(kind)) for kind in ("policy", "approval", "certificate", "crl")}
    assert {"policy": 2, "approval": 3, "certificate": 5, "crl": 1} == kinds
    assert 18 == len(whole.members)


def test_the_same_release_gives_the_same_file(cast: Cast, tmp_path: Path) -> None:
    """Whatever the files are called, in whatever order, with copies, junk and strangers' files."""
    case = release(cast)
    once = collect(case, pin=cast.pin)
    files = files_of(case)
    random.Random(7).shuffle(files)
    cast.people["mallory"] = person("mallory", "officer")
    junk = [
        ("zz.dsse", b"{}"),
        *((f"s{n}.dsse", spoil(data, 2)) for n, (s, data) in enumerate(files) if s == ".dsse"),
    ]
    named = [(f"{n:03}{suffix}", data) for n, (suffix, data) in enumerate(files)]
    again = collect(sort_documents([*named, *named, *junk]), pin=cast.pin)
    assert once.data == again.data
    assert "zz.dsse" in " ".join(again.left_out)
    held = open_case_file("a.case", once.data).documents
    assert once.data == collect(held, pin=cast.pin).data
    assert () == collect(held, pin=cast.pin).left_out


def test_one_request_of_many_is_collected(cast: Cast) -> None:
    """Of two releases one can be collected, with what is about it and nothing of the other."""
    case = release(cast)
    (first,) = case.requests
    other = cast.seal("other")
    second = cast.request(other)
    more = merge(case, sort_documents([("m.dsse", (other.path / "manifest.dsse").read_bytes())]))
    both = merge(more, sort_documents([("a.dsse", cast.approve(other, second, "sec1"))]))
    asked = merge(both, type(case)(requests=(second,)))
    alone = collect(asked, pin=cast.pin, requests={first.digest})
    assert alone.data == collect(case, pin=cast.pin).data
    assert 3 == sum(
        name.split("-")[0] in {"manifest", "request", "approval"} for name in alone.left_out
    )
    assert set() == faults(collect(asked, pin=cast.pin).data, cast.pin) - {"certificate.found"}


def test_a_removed_statement_is_named_by_who_refers_to_it(whole: Collection) -> None:
    """Whatever a statement that is left names is missed by its digest."""
    for kind in ("policy", "manifest", "request", "approval", "enrolment", "goldenset", "receipt"):
        for name in whole.named(kind):
            digest = name.partition("-")[2].removesuffix(".dsse")
            data = without(whole, name)
            assert faults(data, whole.pin), name
            if digest != whole.pin:
                assert f"{kind} {digest}" in reason_of("case.missing", data, whole.pin)


def test_a_removed_certificate_or_list_is_missed(whole: Collection) -> None:
    """Without a certificate of somebody who signed, or the list, no verdict is sound."""
    for name in (*whole.named("certificate"), *whole.named("crl")):
        data = without(whole, name)
        report = judged(data, whole.pin)
        (found,) = report.releases
        assert found.tally is not None
        counted = {approval.officer for approval in found.tally.counted}
        heard = [d for d in found.tally.denials if all(v.outcome != "fail" for v in d.verdicts)]
        assert not report.sound or len(counted) < 3 or not heard, name


def test_what_nothing_refers_to_can_be_left_out(whole: Collection) -> None:
    """Without a log a burn receipt or a denial is not missed, and no more is claimed than is
    shown: casefile.md, "What is not authenticated".
    """
    (burn,), (denial,) = whole.named("burn"), whole.named("denial")
    data = without(whole, burn)
    assert "opened-not-burned" == judged(data, whole.pin).releases[0].outcome
    data = without(whole, denial)
    assert "case.foreign" in faults(data, whole.pin)  # his certificate has nobody to speak for


def test_an_added_foreign_member_is_named(whole: Collection, cast: Cast) -> None:
    """A stranger's statement, one of another environment, a certificate of somebody who signed
    nothing: each is named, although a folder would pass it over.
    """
    (approval,) = whole.named("approval")[:1]
    (policy,) = [n for n in whole.named("policy") if whole.pin in n]
    said = read_statement(whole.members[approval])
    cast.people["mallory"] = person("mallory", "officer")
    mine = decode_statement(Policy, whole.members[policy]).predicate
    fork = msgspec.structs.replace(mine, version=2, genesis=whole.pin)
    idle = issue_certificate(
        cast.ca,
        cast.authority,
        spki=spki(cast.people["mallory"].signing[0]),
        principal="mallory",
        display="mallory",
        use="sign",
        not_before=NOW,
        not_after=NOW.replace(year=2028),
    )
    for name, data in (
        ("x.dsse", cast.people["mallory"].signer.statement(said.predicate)),
        ("x.dsse", cast.sign_policy(fork)),
        ("x.dsse", cast.policies[0]),
        ("x.cer", idle),
        ("x.crl", cast.crl),
    ):
        found = written(*whole.members.items(), (name, data))
        assert "case.foreign" in faults(found, whole.pin)
        again = set(dict(open_case_file("x", found).members)) - whole.members.keys()
        if again:
            assert again.pop() in reason_of("case.foreign", found, whole.pin)


def test_an_edited_signature_list_is_named(whole: Collection) -> None:
    """A signature that is not good, beside enough that are, is no part of a collected file."""
    for kind in ("policy", "enrolment", "goldenset"):
        name = whole.named(kind)[0]
        envelope = decode_envelope(whole.members[name])
        junk = Signature(keyid="f" * 64, sig=envelope.signatures[0].sig)
        more = encode(msgspec.structs.replace(envelope, signatures=(*envelope.signatures, junk)))
        data = written(*{**whole.members, name: more}.items())
        assert "case.foreign" in faults(data, whole.pin)
        assert name in reason_of("case.foreign", data, whole.pin)


def test_members_cannot_be_reordered(whole: Collection) -> None:
    """There is one order of members, and another is refused before any of them is read."""
    size = int.from_bytes(whole.data[len(MAGIC) : len(MAGIC) + 8], "big")
    head, index = whole.data[: len(MAGIC) + 8], whole.data[len(MAGIC) + 8 :][:size]
    listed = msgspec.json.decode(index)
    listed["members"][0], listed["members"][1] = listed["members"][1], listed["members"][0]
    moved = msgspec.json.encode(listed, order="sorted")
    assert len(index) == len(moved)
    body = head + moved + whole.data[len(head) + size : -32]
    with pytest.raises(CustodyError, match="does not come after"):
        open_case_file("x", body + sha256(body))


def check_undetected(whole: Collection, position: int, flip: int) -> None:
    """Change one byte, make every digest around it right again, and expect no sound verdict."""
    size = int.from_bytes(whole.data[len(MAGIC) : len(MAGIC) + 8], "big")
    changed = bytearray(whole.data[:-32])
    changed[position] ^= flip
    what = f"byte {position}, xor {flip:#x}"
    at = len(MAGIC) + 8 + size
    if position < at:
        data = bytes(changed) + sha256(changed)
        assert faults(data, whole.pin, tsa_roots=whole.tsa_roots), what
        return
    files = []
    for name, data in whole.members.items():
        files.append((name, bytes(changed[at : at + len(data)])))
        at += len(data)
    try:
        data = written(*files)
    except CustodyError:
        # Nobody can name what does not parse; under its old name it is refused all the same.
        data = bytes(changed) + sha256(changed)
        assert faults(data, whole.pin, tsa_roots=whole.tsa_roots), what
        return
    assert not judged(data, whole.pin, tsa_roots=whole.tsa_roots).sound, what


def test_a_logged_release_is_judged_from_one_file(logged: Collection) -> None:
    """Log's word, proof, checkpoints and timestamps are in it, and tell the time."""
    report = judged(logged.data, logged.pin, tsa_roots=logged.tsa_roots)
    assert set() == faults(logged.data, logged.pin, tsa_roots=logged.tsa_roots)
    (found,) = report.releases
    assert "vouched" == found.time
    assert (1, 1, 2) == tuple(len(logged.named(k)) for k in ("logged", "proof", "timestamp"))


def test_a_changed_byte_is_found(logged: Collection) -> None:
    """A byte changed anywhere, with every digest made right after it, gives no sound verdict."""
    choice = random.Random(5)
    for _ in range(SAMPLES):
        check_undetected(logged, choice.randrange(len(logged.data) - 32), choice.randrange(1, 256))


@pytest.mark.soak
def test_every_changed_byte_is_found(logged: Collection) -> None:
    """The same for every byte of the file: each bit somewhere, and case swapped."""
    flips = itertools.cycle((0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80))
    for position in range(len(logged.data) - 32):
        check_undetected(logged, position, next(flips))
        check_undetected(logged, position, 0x20)


def test_collecting_needs_a_pin_and_a_request(cast: Cast) -> None:
    """Neither a pin of nobody's policy nor a request that is not there is collected."""
    case = release(cast)
    with pytest.raises(Refused) as refused:
        collect(case, pin="ab" * 32)
    assert "policy.pin" == refused.value.check
    with pytest.raises(Incomplete) as lacking:
        collect(case, pin=cast.pin, requests={"cd" * 32})
    assert ("cd" * 32,) == lacking.value.missing
    file = encode_case_file([(".dsse", cast.policies[0])])
    assert {"case.requests"} == faults(file, cast.pin)


def test_the_commands_take_one_file(
    whole: Collection,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`collect` writes what `verify` takes; a whole file collected again is itself."""
    folder, first, second = tmp_path / "case", tmp_path / "a.case", tmp_path / "b.case"
    folder.mkdir()
    for name, data in whole.members.items():
        (folder / name).write_bytes(data)
    words = ("--policy-pin", whole.pin)

    def typed(*more: str) -> tuple[int, str]:
        said = run("auditor", *more, *words, capsys=capsys, monkeypatch=monkeypatch)
        return said.code, said.out + said.err

    code, text = typed("collect", str(folder), "--out", str(first))
    assert (0, True) == (code, f"digest     {sha256(whole.data).hex()}" in text), text
    assert whole.data == first.read_bytes()
    assert 0 == typed("collect", str(first), "--out", str(second))[0]
    assert whole.data == second.read_bytes()
    code, text = typed("verify", str(first))
    assert (0, True) == (code, text.endswith("\nsound\n"))
    (folder / whole.named("manifest")[0]).unlink()
    third = tmp_path / "c.case"
    code, text = typed("collect", str(folder), "--out", str(third))
    assert (4, True, True) == (code, "missing    manifest " in text, third.exists())
    first.write_bytes(whole.data[:-1] + b"\0")
    code, text = typed("verify", str(first))
    assert (1, True) == (code, "changed, or cut short, since it was made" in text)
