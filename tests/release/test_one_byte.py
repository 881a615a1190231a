"""One changed byte of a signed file is refused, or leaves the statement what it was."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from custody.encoding import Digest, encode, sha256
from custody.errors import CustodyError
from custody.formats.case import Documents, merge, read_statement, sort_documents
from custody.ops.audit import audit_case
from tests.release.cast import Cast
from tests.release.conftest import ready, running
from tests.release.expect import QUORUM

#: Changes tried in `make test`; `make soak` tries every byte of every file.
SAMPLES = 2000


@dataclass(eq=False)
class Case:
    """A sound release as files, each of which it cannot do without."""

    pin: Digest
    files: dict[str, bytes]

    def with_file(self, name: str, data: bytes) -> Documents:
        """Put the case together with one file changed."""
        return merge(self.without(name), sort_documents([(name, data)]))

    @cache  # noqa: B019 (one case lives as long as its tests)
    def without(self, name: str) -> Documents:
        """Leave one file out."""
        return sort_documents((n, d) for n, d in self.files.items() if n != name)


@pytest.fixture(scope="module")
def case(
    manufactured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    """Run one release under version 2 of a policy, with a denial in it."""
    with running(manufactured) as machine:
        cast = ready(tmp_path_factory.mktemp("one-byte"), machine)
        cast.next_policy()
        yield Case(pin=cast.pin, files=dict(release(cast)))


def release(cast: Cast) -> Iterable[tuple[str, bytes]]:
    """Name every file of a release that its verdict rests on."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = {who: cast.approve(bundle, request, who) for who in QUORUM}
    yield "denial.dsse", cast.deny(bundle, request, "sec2")
    opened = cast.open(bundle, request, list(answers.values()), cast.folder / "out")
    yield "manifest.dsse", (bundle.path / "manifest.dsse").read_bytes()
    yield "request.dsse", encode(request.envelope)
    yield "receipt.dsse", opened.receipt_data
    yield "burn.dsse", opened.burn_data
    yield "policy-1.dsse", cast.policies[0]
    yield "policy-2.dsse", cast.policies[1]
    yield "enrolment.dsse", encode(cast.documents.enrolments[0].envelope)
    yield "golden.dsse", encode(cast.documents.golden_sets[0].envelope)
    yield "authority.crl", cast.crl
    for who, answer in answers.items():
        yield f"approval-{who}.dsse", answer
    needed = {cast.people[who].signer.spki for who in (*QUORUM, "pub")}
    for number, der in enumerate(cast.certificates):
        if any(spki in der for spki in needed):
            yield f"{number}.cer", der


def identity(name: str, data: bytes) -> str:
    """Name what a file says: its statement digest, or its bytes."""
    return read_statement(data).digest if name.endswith(".dsse") else sha256(data).hex()


def check_refused(case: Case, name: str, position: int, flip: int) -> None:
    """Change one byte, and expect no sound verdict or the same statement."""
    original = case.files[name]
    changed = bytearray(original)
    changed[position] ^= flip
    what = f"{name}, byte {position}, xor {flip:#x}"
    try:
        same = identity(name, original) == identity(name, bytes(changed))
    except CustodyError:
        # It does not parse; that no audit with such a file succeeds has a test of its own.
        assert sort_documents([(name, bytes(changed))]).unreadable, what
        return
    report = audit_case(case.with_file(name, bytes(changed)), pin=case.pin)
    if name == "denial.dsse":
        # A denial never decides; changed, it must not be shown as the officer's.
        assert same or not any(
            denial.officer and all(v.outcome != "fail" for v in denial.verdicts)
            for release in report.releases
            if release.tally is not None
            for denial in release.tally.denials
        ), what
    else:
        assert same or not report.sound, what


def test_the_unchanged_case_is_sound(case: Case) -> None:
    """The case that is changed below is sound as it is, and needs every one of its files."""
    assert audit_case(
        case.with_file("receipt.dsse", case.files["receipt.dsse"]), pin=case.pin
    ).sound
    for name in case.files.keys() - {"denial.dsse", "burn.dsse"}:
        assert not audit_case(case.without(name), pin=case.pin).sound, name


def test_a_changed_byte_is_refused(case: Case) -> None:
    """A byte changed anywhere in a signed file gives no sound verdict about another statement."""
    choice = random.Random(1)
    names = sorted(case.files)
    for turn in range(SAMPLES):
        name = names[turn % len(names)]
        position = choice.randrange(len(case.files[name]))
        check_refused(case, name, position, choice.randrange(1, 256))


@pytest.mark.soak
def test_every_changed_byte_is_refused(case: Case) -> None:
    """The same for every byte of every file: each bit flipped once somewhere, and case swapped."""
    flips = itertools.cycle((0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80))
    for name in sorted(case.files):
        for position in range(len(case.files[name])):
            check_refused(case, name, position, next(flips))
            check_refused(case, name, position, 0x20)
