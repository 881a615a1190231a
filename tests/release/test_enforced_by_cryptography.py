"""With every check of ours deleted, the TPM and arithmetic still hold the quorum."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from custody.crypto.keyslots import open as open_slot
from custody.crypto.keyslots import slot_info, unwrap
from custody.crypto.quorum import Node, Threshold, leaves, maximal_unsatisfying, minimal_sets
from custody.encoding import Digest
from custody.errors import CustodyError, Refused
from custody.formats.case import merge, sort_documents
from custody.formats.envelope import Statement
from custody.formats.request import Request
from custody.ops.bundle import Bundle
from custody.ops.open import open_release
from tests.release.cast import TREE, Cast
from tests.release.conftest import ready, running
from tests.release.unruly import (
    TRICKS,
    Trick,
    flat,
    force,
    force_combine,
    reason,
    refused_by_tpm,
    take_everything,
)

#: The protocol's example; a flat 3-of-5 with ten subsets; one with a node of ten subsets inside.
TREES: dict[str, Node] = {
    "example": TREE,
    "three-of-five": flat(3, "a1", "a2", "a3", "a4", "a5"),
    "nested": Threshold(
        k=2,
        of=(
            flat(2, "ops1", "ops2", "ops3", "ops4", "ops5"),
            flat(1, "lead1", "lead2"),
            flat(2, "board1", "board2"),
        ),
    ),
}


@dataclass
class Granted:
    """One bundle, and two requests for it that every officer has approved."""

    cast: Cast
    bundle: Bundle
    requests: tuple[Statement[Request], Statement[Request]]
    approvals: dict[tuple[Digest, str], bytes]
    out: Iterator[Path]

    @property
    def tree(self) -> Node:
        return self.cast.tree

    def by(self, paths: frozenset[str], *, of: int = 0) -> list[bytes]:
        """Return the approvals of the officers at these leaves, of one request."""
        digest = self.requests[of].digest
        return [self.approvals[digest, path] for path in sorted(paths)]

    def open(self, answers: list[bytes], *, of: int = 0) -> Path:
        """Open with exactly these approvals."""
        target = next(self.out)
        heap = sort_documents([(f"{n}.dsse", data) for n, data in enumerate(answers)])
        situation = self.cast.situation("host", documents=merge(self.cast.documents, heap))
        open_release(
            self.bundle,
            self.requests[of],
            target,
            situation=situation,
            tpm=self.cast.tpm,
            place=self.cast.place,
        )
        return target


@pytest.fixture(scope="module", params=TREES)
def granted(
    request: pytest.FixtureRequest,
    manufactured: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Granted]:
    """Grant two requests for one bundle, under each tree."""
    folder = tmp_path_factory.mktemp(request.param)
    with running(manufactured) as machine:
        cast = ready(folder, machine, TREES[request.param])
        bundle = cast.seal()
        asked = (cast.request(bundle), cast.request(bundle))
        approvals = {
            (one.digest, leaf.path): cast.approve(bundle, one, leaf.principal)
            for one in asked
            for leaf in leaves(cast.tree)
        }
        out = (folder / f"out-{n}" for n in itertools.count())
        yield Granted(cast, bundle, asked, approvals, out)


def check_refused(granted: Granted, answers: list[bytes], *, of: int = 0) -> None:
    """Open and expect the TPM itself to say no, and nothing to be left behind."""
    with pytest.raises(CustodyError) as caught:
        granted.open(answers, of=of)
    assert refused_by_tpm(caught.value), reason(caught.value)
    assert [] == left_behind(granted.cast.folder)


def left_behind(folder: Path) -> list[str]:
    """List what an open has left: an output, or a staging directory."""
    return sorted(p.name for p in folder.iterdir() if p.name.startswith((".out-", "out-")))


@pytest.fixture
def lawless(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Delete the rules."""
    take_everything(monkeypatch)
    return monkeypatch


def clean(target: Path, granted: Granted) -> None:
    """Compare a model with its source, and take it away."""
    for file in (granted.cast.folder / "model").rglob("*"):
        if file.is_file():
            copy = target / file.relative_to(granted.cast.folder / "model")
            assert file.read_bytes() == copy.read_bytes()
            copy.unlink()
    for rest in sorted(target.rglob("*"), reverse=True):
        rest.rmdir()
    target.rmdir()


def test_every_minimal_set_opens(granted: Granted, lawless: pytest.MonkeyPatch) -> None:
    """Every minimal set of approvals opens the bundle."""
    for some in minimal_sets(granted.tree):
        clean(granted.open(granted.by(some)), granted)


def test_the_forced_steps_are_no_worse_than_ours(
    granted: Granted, lawless: pytest.MonkeyPatch
) -> None:
    """The driver that skips our checks does open with a quorum, so its failures mean something."""
    for trick in TRICKS:
        if trick == "or-only":
            continue
        with pytest.MonkeyPatch.context() as patch:
            force(patch, trick)
            for some in random.Random(trick).sample(minimal_sets(granted.tree), 2):
                clean(granted.open(granted.by(some)), granted)


@pytest.mark.parametrize("trick", TRICKS)
def test_no_maximal_unsatisfying_set_opens(
    granted: Granted, lawless: pytest.MonkeyPatch, trick: Trick
) -> None:
    """One approval short of the tree opens nothing: the TPM refuses, whatever the host runs."""
    force(lawless, trick)
    for some in maximal_unsatisfying(granted.tree):
        check_refused(granted, granted.by(some))


@pytest.mark.parametrize("trick", ["omit", "no-or"])
def test_approvals_of_two_requests_do_not_add_up(
    granted: Granted, lawless: pytest.MonkeyPatch, trick: Trick
) -> None:
    """A quorum gathered over two requests opens neither: the TPM refuses the foreign signature."""
    force(lawless, trick)
    for some in minimal_sets(granted.tree):
        here = frozenset(sorted(some)[1:])
        answers = granted.by(here) + granted.by(some - here, of=1)
        for of in (0, 1):
            check_refused(granted, answers, of=of)


def test_a_foreign_signature_is_refused_as_such(
    granted: Granted, lawless: pytest.MonkeyPatch
) -> None:
    """The refusal of two requests' approvals is TPM2_PolicySigned's: the terms are not the same."""
    some = min(minimal_sets(granted.tree), key=sorted)
    here = frozenset(sorted(some)[1:])
    with pytest.raises(Refused) as caught:
        granted.open(granted.by(here) + granted.by(some - here, of=1))
    assert "tpm.quorum" == caught.value.check
    assert refused_by_tpm(caught.value)


def shares_of(granted: Granted) -> dict[str, bytes]:
    """Open every officer's share as he would: what a host would know if H had no policy."""
    manifest = granted.bundle.statement.predicate
    binding = manifest.core.binding()
    shares = {}
    for leaf in leaves(granted.tree):
        opener = granted.cast.people[leaf.principal].opener
        (slot,) = (s for s in manifest.slots_for(opener.recipient) if s.purpose == "share")
        info = slot_info(binding, "share", leaf.path, slot.recipient)
        shares[leaf.path] = open_slot(slot.suite, opener.key, None, slot.sealed, info=info)[:32]
    return shares


def unwraps(granted: Granted, secret: bytearray) -> bool:
    """Try a release secret on the manifest's wrapped content key."""
    wrap = granted.bundle.statement.predicate.wrap("cek")
    try:
        unwrap(secret, wrap.salt, wrap.sealed, C=granted.bundle.core.binding(), purpose="cek")
    except Refused as error:
        if error.check != "wrap.open":
            raise
        return False
    return True


def test_shares_alone_hold_the_quorum_too(granted: Granted) -> None:
    """With H's policy gone as well, the shares of an unsatisfying set do not give the key."""
    shares = shares_of(granted)
    for some in maximal_unsatisfying(granted.tree):
        secret = force_combine(granted.tree, {path: shares[path] for path in some})
        assert not unwraps(granted, secret)


def test_shares_of_every_minimal_set_give_the_key(granted: Granted) -> None:
    """The same arithmetic gives the key to every minimal set, so its failures mean something."""
    shares = shares_of(granted)
    for some in minimal_sets(granted.tree):
        secret = force_combine(granted.tree, {path: shares[path] for path in some})
        assert unwraps(granted, secret)
