from __future__ import annotations

from pathlib import Path

import pytest

from custody.encoding import encode
from custody.errors import Incomplete, Malformed, Refused, Unavailable
from custody.formats.state import Identity, Memory
from custody.ops.heads import seen_logs
from custody.ops.home import SEEN, Home, nothing_seen

IDENTITY = Identity(
    kind="custody/identity/v1",
    principal="alice",
    display="Alice",
    role="officer",
    token="pkcs11:token=alice",
    signing_spki=b"spki",
    shares=(),
)
MEMORY = Memory(
    kind="custody/memory/v1",
    pin="a" * 64,
    environment="a" * 64,
    policy="a" * 64,
    policy_version=1,
    crls=(),
    golden_sets=(),
    hosts=(),
    enrolments=(),
)


def test_a_home_is_made_private(tmp_path: Path) -> None:
    """A new home and everything in it can be reached by its user alone."""
    home = Home(tmp_path / "a" / "home")
    home.save_identity(IDENTITY)
    home.save_memory(MEMORY)
    modes = {path.name: path.stat().st_mode & 0o777 for path in home.path.iterdir()}
    files = ("identity.json", "memory.json", "seen.json")
    assert dict.fromkeys(files, 0o600) == modes
    assert 0o700 == home.path.stat().st_mode & 0o777
    assert 0o700 == home.folder("requests").stat().st_mode & 0o777


@pytest.mark.parametrize("mode", [0o710, 0o704, 0o777])
def test_a_home_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """Whoever can write to a home can move its pin, so one that is not private is not used."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(mode)
    with pytest.raises(Refused) as refused:
        Home(tmp_path / "home")
    assert "home.private" == refused.value.check


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    """Identity and memory come back as they were, in another process's eyes too."""
    home = Home(tmp_path / "home")
    home.save_identity(IDENTITY)
    home.save_memory(MEMORY)
    assert (IDENTITY, MEMORY) == (Home(home.path).identity(), Home(home.path).memory())


def test_a_home_keeps_its_first_user(tmp_path: Path) -> None:
    """A second identity does not take the place of the first."""
    home = Home(tmp_path / "home")
    home.save_identity(IDENTITY)
    with pytest.raises(Refused, match="already there"):
        home.save_identity(IDENTITY)


def test_an_empty_home_says_what_is_missing(tmp_path: Path) -> None:
    """With nobody enrolled and nothing pinned, the answer is what to do next."""
    home = Home(tmp_path / "home")
    with pytest.raises(Incomplete) as nobody:
        home.identity()
    with pytest.raises(Incomplete) as nothing:
        home.memory()
    assert "enroll" in (nobody.value.hint or "")
    assert "trust" in (nothing.value.hint or "")


def test_a_damaged_memory_is_named(tmp_path: Path) -> None:
    """Memory that does not parse stops the command and names the file, whatever is in it."""
    home = Home(tmp_path / "home")
    home.begin()
    (home.path / "memory.json").write_bytes(encode(MEMORY) + b"\n")
    with pytest.raises(Malformed) as malformed:
        home.memory()
    assert str(home.path / "memory.json") == malformed.value.where


def test_a_linked_memory_is_refused(tmp_path: Path) -> None:
    """Memory is a file of this home; a link to one elsewhere is not followed."""
    home = Home(tmp_path / "home")
    home.begin()
    (tmp_path / "elsewhere.json").write_bytes(encode(MEMORY))
    (home.path / "memory.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(Refused) as refused:
        home.memory()
    assert "file.regular" == refused.value.check


def test_a_home_says_from_its_beginning_that_it_has_seen_no_log(tmp_path: Path) -> None:
    """Where others' files lay before too; and what was lost later is not begun again."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    (folder / "notes.txt").write_text("not ours")
    home = Home(folder)
    assert nothing_seen() == seen_logs(home)
    with home.lock():
        (folder / SEEN).unlink()
    with pytest.raises(Refused, match="gone") as refused:
        seen_logs(Home(folder))
    assert "log.rewound" == refused.value.check


def test_a_home_is_made_at_the_first_write(tmp_path: Path) -> None:
    """Opening and asking leaves nothing behind, however often; the first write begins it, private
    on the way to it too, and with the memory of having seen no log.
    """
    home = Home(tmp_path / "a" / "b" / "home")
    assert (True, False, False) == (home.is_fresh(), home.has_identity(), home.has_memory())
    for ask in (home.identity, home.memory):
        with pytest.raises(Incomplete):
            ask()
    assert nothing_seen() == seen_logs(home)
    assert [] == list(tmp_path.iterdir())
    with home.lock():
        pass
    assert {"lock", SEEN} == {path.name for path in home.path.iterdir()}
    assert not home.is_fresh()
    made = [home.path, *home.path.parents[:2]]
    assert [0o700] * 3 == [path.stat().st_mode & 0o777 for path in made]


@pytest.mark.parametrize("left", ["identity.json", "memory.json", "lock", "evidence"])
def test_what_was_lost_is_no_first_contact(tmp_path: Path, left: str) -> None:
    """Whoever can delete a memory of logs gains nothing by it while anything else is there."""
    home = Home(tmp_path / "home")
    home.begin()
    (home.path / left).mkdir()
    (home.path / SEEN).unlink()
    for again in (home, Home(home.path)):
        again.begin()
        with pytest.raises(Refused) as refused:
            seen_logs(again)
        assert "log.rewound" == refused.value.check


def test_a_home_that_another_made_meanwhile_is_refused(tmp_path: Path) -> None:
    """Opened before it was there, a home is looked at again when it is first written to."""
    home = Home(tmp_path / "home")
    home.path.mkdir(mode=0o777)
    home.path.chmod(0o777)
    with pytest.raises(Refused) as refused, home.lock():
        pass
    assert "home.private" == refused.value.check
    assert [] == list(home.path.iterdir())


def test_a_file_is_no_home(tmp_path: Path) -> None:
    """A path that is no folder is said to be none, before anything is done."""
    (tmp_path / "home").write_text("x")
    with pytest.raises(Unavailable, match="not a directory"):
        Home(tmp_path / "home")
