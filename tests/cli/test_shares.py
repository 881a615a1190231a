"""Words at a terminal: handed out, typed again, and checked by one person alone."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from custody.formats.policy_text import parse_quorum
from custody.ops.recovery import MadeRecovery, RecoveryOrder, make_recovery
from tests.docs.terminal import Paper, Shown, enter, environment, write_program
from tests.unit.people import NOW, signer

pytestmark = pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid is not installed")

_HAND_OUT = """
import json, sys
from custody.cli._mnemonics import hand_out
from custody.formats.recovery import RecoveryShare
from custody.ops.recovery import HandedShare
words = json.load(open(sys.argv[1]))
share = RecoveryShare(group=0, member=0, holder="ida", salt=bytes(32), digest="ab" * 32)
hand_out([HandedShare(share=share, words=text) for text in words])
print("handed out")
"""


def _made() -> MadeRecovery:
    order = RecoveryOrder(
        environment="production", epoch=1, suite="P256", among=parse_quorum("2 of (cas, cyd, ida)")
    )
    return make_recovery(order, signer=signer("ida"), token_random=None, now=NOW)


@pytest.fixture(scope="module")
def made() -> MadeRecovery:
    """Make one set of shares."""
    return _made()


@pytest.fixture
def place(tmp_path: Path, made: MadeRecovery) -> Path:
    """Give a folder with the record in it, and a program."""
    write_program(tmp_path / "bin")
    (tmp_path / "record.dsse").write_bytes(made.statement)
    return tmp_path


def _typed(place: Path, command: str, *shares: list[str], term: str = "xterm") -> Shown:
    env = environment(place, place / "bin", {"TERM": term})
    return enter(command, directory=place, env=env, paper=Paper(list(shares)))


def test_a_holder_checks_his_words_alone(place: Path, made: MadeRecovery) -> None:
    """Typed at a terminal, good words are said to be good, and none stays on the screen."""
    words = made.shares[1].words.split()
    shown = _typed(place, "custody custodian check-share record.dsse", words)
    assert Shown("good: group 1, share 2, handed to cyd\n", 0) == shown


@pytest.mark.parametrize("position", [1, 2, 7, 33])
def test_a_mistyped_word_is_named_at_the_terminal(
    place: Path, made: MadeRecovery, position: int
) -> None:
    """A wrong word is named by its position, and neither it nor any other is repeated."""
    words = made.shares[0].words.split()
    words[position - 1] = "academic" if words[position - 1] != "academic" else "acid"
    shown = _typed(place, "custody custodian check-share record.dsse", words)
    assert 1 == shown.code
    assert f"the checksum fails: read word {position} again" in shown.text
    said = set(shown.text.replace(":", " ").split())
    # What the list and our sentences have in common.
    assert not said & (set(words) - {"again", "custody", "that"})


class _Lines(Paper):
    """Somebody who types what was given, line by line, whatever is asked."""

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self.lines = list(lines)

    def answer(self, text: str) -> str | None:
        """Type the next line at each question."""
        return self.lines.pop(0) if text.endswith(": ") else None


def _checked(place: Path, *lines: str) -> Shown:
    env = environment(place, place / "bin", {"TERM": "xterm"})
    paper = _Lines(*lines)
    shown = enter(
        "custody custodian check-share record.dsse", directory=place, env=env, paper=paper
    )
    assert [] == paper.lines
    return shown


def _wrong(words: list[str], *places: int) -> str:
    """Say words of which some, counted from 1, are others of the list."""
    changed = list(words)
    for at in places:
        changed[at - 1] = "academic" if words[at - 1] != "academic" else "acid"
    return " ".join(changed)


@pytest.mark.parametrize("slip", ["one", "two", "left out", "twice", "unknown", "run together"])
def test_a_slip_costs_a_word_and_not_all_of_them(
    place: Path, made: MadeRecovery, slip: str
) -> None:
    """What was typed is held against the paper, and one word mended, as often as it takes."""
    words = made.shares[0].words.split()
    lines = {
        "one": (_wrong(words, 12), "12", words[11]),
        "two": (_wrong(words, 5, 30), "x", "5", words[4], "30", words[29]),
        "left out": (" ".join(words[:7] + words[8:]), "", "8", words[7]),
        "twice": (" ".join((*words[:7], *words[6:])), "8", ""),
        # Those after it stay as well, and nothing but it is asked for.
        "unknown": (" ".join((*words[:3], "zebre", *words[4:])), words[3]),
        "run together": (
            " ".join((*words[:3], words[3] + words[4], *words[5:])),
            f"{words[3]} {words[4]}",
        ),
    }[slip]
    assert Shown("good: group 1, share 1, handed to cas\n", 0) == _checked(place, *lines)


def test_a_paper_that_is_wrong_is_named_however_often_it_is_read(
    place: Path, made: MadeRecovery
) -> None:
    """Who typed what is on his paper is told which word was written down wrong."""
    words = made.shares[0].words.split()
    shown = _checked(place, _wrong(words, 3), "3", _wrong(words, 3).split()[2], "")
    assert 1 == shown.code
    assert "the checksum fails: read word 3 again" in shown.text


def test_a_share_of_another_set_is_named(place: Path) -> None:
    """Good words of another recovery key are told from words that are wrong."""
    shown = _typed(
        place, "custody custodian check-share record.dsse", _made().shares[0].words.split()
    )
    assert 1 == shown.code
    assert "is a share of set" in shown.text


def test_good_words_that_were_never_handed_out_are_refused(place: Path) -> None:
    """A share that somebody made to fit the set's id is not the one that was recorded."""
    from shamir_mnemonic.shamir import EncryptedMasterSecret, split_ems

    from custody.crypto.slip39 import read_mnemonic

    handed = _made()
    (place / "record.dsse").write_bytes(handed.statement)
    set_id = read_mnemonic(handed.shares[0].words).set_id
    forged = split_ems(1, [(2, 3)], EncryptedMasterSecret(set_id, True, 1, bytes(32)))
    shown = _typed(
        place, "custody custodian check-share record.dsse", forged[0][0].mnemonic().split()
    )
    assert 1 == shown.code
    assert "is not what was handed out as that" in shown.text


def test_words_are_not_shown_where_they_cannot_be_cleared(place: Path) -> None:
    """On a terminal that keeps every line nobody is asked for words."""
    shown = _typed(place, "custody custodian check-share record.dsse", term="dumb")
    assert 3 == shown.code
    assert "a terminal that can be cleared" in shown.text


def test_one_share_comes_from_a_descriptor(place: Path, made: MadeRecovery) -> None:
    """Where there is no terminal a share is read from a descriptor, and only one is checked."""
    words = [handed.words for handed in made.shares]
    (place / "one").write_text(words[2] + "\n")
    (place / "two").write_text("\n".join(words[:2]))
    good = _typed(place, "custody custodian check-share record.dsse --words-fd 3 3< one")
    assert Shown("good: group 1, share 3, handed to ida\n", 0) == good
    bad = _typed(place, "custody custodian check-share record.dsse --words-fd 3 3< two")
    assert 1 == bad.code
    assert "2 shares were given, and one is checked at a time" in bad.text


def test_words_are_handed_out_until_they_were_written_down(place: Path, made: MadeRecovery) -> None:
    """Each person sees his words on a screen of his own, and types some of them again."""
    import json

    words = [handed.words for handed in made.shares]
    (place / "words.json").write_text(json.dumps(words))
    (place / "hand_out.py").write_text(_HAND_OUT)
    paper = Paper()
    env = environment(place, place / "bin", {"TERM": "xterm"})
    shown = enter(f"{sys.executable} hand_out.py words.json", directory=place, env=env, paper=paper)
    assert Shown("handed out\n", 0) == shown
    assert words == [" ".join(share) for share in paper.shares]


class _Forgetful(Paper):
    """Writes the first word down wrong the first time."""

    told = False

    def answer(self, text: str) -> str | None:
        typed = super().answer(text)
        self.told = self.told or "is not the one that belongs on the paper" in text
        if typed and len(self.shares) == 1:
            return "wrong"
        return typed


def test_who_wrote_a_word_down_wrong_sees_them_again(place: Path, made: MadeRecovery) -> None:
    """A person who cannot repeat his words is shown them again, until he can."""
    import json

    (place / "words.json").write_text(json.dumps([made.shares[0].words]))
    (place / "hand_out.py").write_text(_HAND_OUT)
    paper = _Forgetful()
    env = environment(place, place / "bin", {"TERM": "xterm"})
    shown = enter(f"{sys.executable} hand_out.py words.json", directory=place, env=env, paper=paper)
    assert Shown("handed out\n", 0) == shown
    assert [made.shares[0].words.split()] * 2 == paper.shares
    assert paper.told


def test_no_core_is_dumped_while_words_are_in_memory(place: Path, made: MadeRecovery) -> None:
    """Whatever limit the shell sets, a process that reads words leaves none in a core file."""
    script = """
ulimit -Sc unlimited || exit 77
mkfifo words
custody custodian check-share record.dsse --words-fd 3 3< words &
exec 4> words
for try in $(seq 300); do
    grep -q "^Max core file size *0 *0 " /proc/$!/limits && echo none is dumped && break
    sleep 0.1
done
exec 4>&-
wait
"""
    shown = _typed(place, script)
    if shown.code == 77:
        pytest.skip("no core file may be written here at all")
    assert "none is dumped" in shown.text
