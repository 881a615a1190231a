"""``custody lab``: a whole cast comes up, stays as it is, and goes without a trace."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from custody.errors import Refused, Unavailable
from custody.lab import swtpm
from custody.lab.cast import CAST, Lab, copy
from custody.lab.softhsm import find_library


def custody(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one command."""
    return subprocess.run(
        [sys.executable, "-m", "custody", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab that is up."""
    if not swtpm.available():
        pytest.skip("swtpm is not installed")
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    # Not under pytest's own folder: the path of a UNIX socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="custody-") as folder:
        up = Lab(Path(folder) / "lab")
        done = custody("lab", "up", "--lab", up.directory)
        assert 0 == done.returncode, done.stderr
        try:
            yield up
        finally:
            if up.exists:
                up.remove()


def status(lab: Lab) -> dict[str, dict[str, object]]:
    """What ``lab status`` says of everybody."""
    shown = json.loads(custody("lab", "status", "--lab", lab.directory, "--json").stdout)
    return {actor["name"]: actor for actor in shown["actors"]}


def processes_of(lab: Lab) -> list[bytes]:
    """The command lines that name this lab's TPMs; one that waits to be reaped has none."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(path.read_bytes())
    return [line for line in lines if os.fsencode(lab.directory) + b"/host" in line]


def test_everybody_is_alive_and_trusts_the_policy(lab: Lab) -> None:
    """Every actor has his device, and who judges anything stands on policy version 1."""
    found = status(lab)
    assert {name for name, _ in CAST} == set(found)
    assert all(actor["alive"] for actor in found.values())
    judging = {name for name, role in CAST if role not in ("custodian", "auditor")}
    assert judging == {name for name, actor in found.items() if actor["policyVersion"] == 1}


def test_each_actor_is_told_of_his_own_things_only(lab: Lab) -> None:
    """Nothing in an actor's environment or profile names another actor's directory."""
    for actor in lab.actors():
        others = [other.directory for other in lab.actors() if other != actor]
        said = actor.profile.read_text() + json.dumps(dict(actor.variables()))
        assert not [other for other in others if f"{other}/" in said]


def test_private_things_are_private(lab: Lab) -> None:
    """Directories are for this user alone, PIN files too, and no PIN is in the transcript."""
    transcript = lab.transcript.path.read_text()
    for actor in lab.people():
        for private in (actor.directory, actor.home, actor.directory / "tokens"):
            assert 0o700 == stat.S_IMODE(private.stat().st_mode)
        assert 0o600 == stat.S_IMODE(actor.pin_file.stat().st_mode)
        assert actor.pin_file.read_text().strip() not in transcript


def test_a_pin_opens_its_own_token_only(lab: Lab) -> None:
    """Every PIN is another one."""
    pins = {actor.pin_file.read_text() for actor in lab.people()}
    assert len(lab.people()) == len(pins)


def test_up_again_changes_nothing(lab: Lab) -> None:
    """Keys, policy and running TPMs stay as they are."""
    before = (lab.mark(), status(lab), lab.transcript.path.read_text())
    assert 0 == custody("lab", "up", "--lab", lab.directory).returncode
    assert before == (lab.mark(), status(lab), lab.transcript.path.read_text())


def test_up_boots_a_host_that_was_off(lab: Lab) -> None:
    """A host whose TPM is off is shown as such, and booted into the same state by ``up``."""
    host = lab.actor("host2")
    measured = host.run("host", "measure", "--out", host.outbox / "before.json").output
    lab.tpm(host).stop()
    shown = custody("lab", "status", "--lab", lab.directory)
    assert 3 == shown.returncode
    assert "swtpm, off" in shown.stdout
    assert 0 == custody("lab", "up", "--lab", lab.directory).returncode
    assert status(lab)["host2"]["alive"]
    again = host.run("host", "measure", "--out", host.outbox / "after.json").output
    assert measured.replace("before.json", "after.json") == again


def test_a_tpm_is_known_by_the_lock_on_its_state(lab: Lab) -> None:
    """Neither a stale process number nor a machine without /proc confuses who is whose TPM."""
    one, two = (lab.tpm(host) for host in lab.actors("host"))
    assert {one.pid(), two.pid()} == {one._state_holder(), two._state_holder()}
    assert one.pid() != two.pid()
    right = one._pid_file.read_text()
    one._pid_file.write_text(str(os.getpid()))
    try:
        assert one.pid() is None
    finally:
        one._pid_file.write_text(right)


def test_another_command_waits_its_turn(lab: Lab) -> None:
    """Two commands cannot set one lab up at the same time."""
    with lab.using():
        done = custody("lab", "up", "--lab", lab.directory)
    assert 3 == done.returncode
    assert "another command uses this lab" in done.stderr


def test_another_exit_code_than_expected_is_an_error(lab: Lab) -> None:
    """What should have been refused and was not stops the story, in the command's own words."""
    actor = lab.actor("sec1")
    with pytest.raises(Refused, match="exit code 0 where 4 had to be") as caught:
        actor.run("--version", expect=4)
    assert "lab.expected" == caught.value.check


def test_down_removes_the_lab_and_stops_its_tpms(lab: Lab) -> None:
    """Afterwards no process and no file of the lab is left."""
    assert 2 == len(processes_of(lab))
    assert 0 == custody("lab", "down", "--lab", lab.directory).returncode
    assert not lab.directory.exists()
    assert not processes_of(lab)


def test_down_leaves_what_is_no_lab(tmp_path: Path) -> None:
    """A directory without the mark of a lab is not removed, whatever is in it."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    done = custody("lab", "down", "--lab", tmp_path)
    assert 1 == done.returncode
    assert "is no lab" in done.stderr
    assert "mine" == precious.read_text()


def test_who_stands_inside_a_lab_is_told_which(tmp_path: Path) -> None:
    """In the folder of one of its people nobody is sent to make another lab."""
    place = Lab(tmp_path / "lab")
    (place.directory / "sec1").mkdir(parents=True)
    with pytest.raises(Refused) as nowhere:
        Lab(place.directory / "sec1" / "lab").mark()
    assert "custody lab up makes one" == nowhere.value.hint
    (place.directory / ".custody-lab").write_bytes(b"{}")
    with pytest.raises(Refused) as inside:
        Lab(place.directory / "sec1" / "lab").mark()
    assert f"this folder is of a lab: --lab {place.directory}" == inside.value.hint


def test_up_leaves_what_is_no_lab(tmp_path: Path) -> None:
    """A directory that holds anything else does not become a lab."""
    (tmp_path / "precious").write_text("mine")
    done = custody("lab", "up", "--lab", tmp_path)
    assert 1 == done.returncode
    assert ["precious"] == [path.name for path in tmp_path.iterdir()]


def test_a_path_too_long_for_sockets_is_said_at_once(tmp_path: Path) -> None:
    """Before anything is made, and with what to do instead."""
    deep = tmp_path / ("d" * 100)
    done = custody("lab", "up", "--lab", deep)
    assert 3 == done.returncode
    assert "custody: hint: name a shorter one with --lab" in done.stderr
    assert not deep.exists()


def test_a_carried_file_can_be_carried_again(tmp_path: Path) -> None:
    """Carrying the same file twice leaves it once, and nothing beside it."""
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("words")
    copy(source, target)
    copy(source, target)
    assert "words" == target.read_text()
    assert {"a", "b"} == {path.name for path in tmp_path.iterdir()}
