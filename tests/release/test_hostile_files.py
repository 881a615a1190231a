"""What one file can cost an auditor: work is shared between its requests, counted and not timed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import msgspec
import pytest

from custody.crypto import merkle, signature
from custody.encoding import encode
from custody.errors import Refused
from custody.formats.case import read_statement
from custody.formats.casefile import encode_case_file, suffix_of
from custody.formats.envelope import Signature
from custody.ops.archive import read_archive
from custody.rules import times, trust
from tests.release.cast import NOW
from tests.release.collected import Collection, judged, logged_release
from tests.release.conftest import running
from tests.release.logged import Log, LoggedCast, witness
from tests.release.tsa import Authority

COPIES = 60
STAMPS = 200


@pytest.fixture(scope="module")
def logged(
    manufactured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collection]:
    """Collect one release that a log, a witness and a time-stamping authority speak of."""
    with running(manufactured) as machine:
        log = Log(witnesses=[witness()])
        yield logged_release(LoggedCast(tmp_path_factory.mktemp("hostile"), machine, log))


def spoilt(data: bytes, count: int) -> list[tuple[str, bytes]]:
    """Copy a statement, each copy with another signature that is none."""
    envelope = read_statement(data).envelope
    keyid = envelope.signatures[0].keyid
    return [
        (
            ".dsse",
            encode(
                msgspec.structs.replace(
                    envelope, signatures=(Signature(keyid=keyid, sig=n.to_bytes(8, "big")),)
                )
            ),
        )
        for n in range(1, count + 1)
    ]


def stuffed(whole: Collection) -> bytes:
    """Fill a file with what is no good and costs something to find so."""
    members = [(suffix_of(name), data) for name, data in whole.members.items()]
    more = []
    for kind, count in (("request", COPIES), ("policy", 30), ("logged", 15), ("receipt", 20)):
        more += spoilt(whole.members[whole.named(kind)[0]], count)
    stranger = Authority()
    more += [(".tsr", stranger.stamp(f"{n:064x}", NOW)) for n in range(STAMPS)]
    return encode_case_file([*members, *more])


def counting(job: Callable[[], Any]) -> tuple[Any, Counter[CodeType]]:
    """Do something, and count which functions are called how often."""
    found: Counter[CodeType] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            found[frame.f_code] += 1

    sys.setprofile(note)
    try:
        done = job()
    finally:
        sys.setprofile(None)
    return done, found


def test_a_file_full_of_junk_is_judged_once_and_not_once_for_each_request(
    logged: Collection,
) -> None:
    """Copies of a request, signatures, words, receipts and stamps that are no good: each is looked
    at a few times, however many others there are; the release is judged as it was.
    """
    data = stuffed(logged)

    def job() -> Any:
        return judged(data, logged.pin, tsa_roots=logged.tsa_roots)

    report, calls = counting(job)
    (release,) = report.releases
    assert release.sound
    assert {"case.foreign"} == {v.check for v in report.verdicts if v.outcome == "fail"}
    # Once to judge the case, once to judge what belongs into the file.
    assert STAMPS + 2 <= calls[times.verify_token.__code__] <= 2 * (STAMPS + 2)
    assert 1 == calls[times.trusted_times.__code__]
    assert calls[trust.judge_chain.__code__] <= 3
    signatures, words, entries = 30 + 16 + COPIES + 20, 16, 6
    assert calls[signature.verify.__code__] < 4 * signatures
    assert calls[merkle.verify_inclusion.__code__] < 3 * words * entries


def test_a_file_that_nobody_could_judge_keeps_no_other_from_an_archive(
    logged: Collection, tmp_path: Path
) -> None:
    """It is named with what is too much of it; the others are judged."""
    (request,) = logged.named("request")
    other = read_statement(logged.members[request])
    (tmp_path / "good.case").write_bytes(logged.data)
    stray = encode_case_file(
        [
            *[(".dsse", logged.members[name]) for name in logged.named("policy")],
            *spoilt(logged.members[logged.named("logged")[0]], 17),
        ]
    )
    (tmp_path / "bad.case").write_bytes(stray)
    found = read_archive([tmp_path], shelves=[], pin=logged.pin, tsa_roots=logged.tsa_roots)
    assert ["good.case"] == [held.name for held in found.held]
    assert [other.digest] == [release.request for _, release in found.releases()]
    (unopened,) = found.unopened
    assert "bad.case" == unopened.name
    assert "words of logs on one request: 17" in unopened.reason
    with pytest.raises(Refused) as error:
        judged(stray, logged.pin)
    assert "case.burden" == error.value.check


def test_a_file_that_ties_all_others_together_keeps_nobody_from_them(
    logged: Collection, tmp_path: Path
) -> None:
    """With a copy of a request a file can make itself part of what is judged.  Where that is more
    than is judged at once, each file is judged alone; and of two stories none is chosen.
    """
    (request,) = logged.named("request")
    words = spoilt(logged.members[logged.named("logged")[0]], 16)
    stray = encode_case_file([(".dsse", logged.members[request]), *words])
    (tmp_path / "good.case").write_bytes(logged.data)
    (tmp_path / "zz.case").write_bytes(stray)
    found = read_archive([tmp_path], shelves=[], pin=logged.pin, tsa_roots=logged.tsa_roots)
    sound = {held.name: held.holds(release) for held, release in found.releases()}
    assert {"good.case": True, "zz.case": False} == sound
    (unopened,) = found.unopened
    assert "good.case, zz.case" == unopened.name
    digest = read_statement(logged.members[request]).digest
    with pytest.raises(Refused, match=r"good\.case, zz\.case") as error:
        found.find(digest)
    assert "archive.several" == error.value.check
