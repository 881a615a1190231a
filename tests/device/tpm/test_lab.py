"""The lab's software TPMs and recorded boots."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from custody.errors import Malformed, Unavailable
from custody.keys.hostapi import HostTpm
from custody.keys.tpm_host import TpmHost
from custody.lab import bootlog
from custody.lab.bootlog import BootState
from custody.lab.swtpm import Swtpm


def test_manufacture_and_start_are_idempotent(machine: Swtpm, host: HostTpm) -> None:
    """A TPM that exists is not made again, and one that runs is not started again."""
    ak, pid = host.ak_public(), machine.pid()
    machine.manufacture()
    machine.start()
    assert (ak, pid) == (host.ak_public(), machine.pid())


def test_a_manufacture_that_was_killed_is_done_again(manufactured: Swtpm, tmp_path: Path) -> None:
    """State without its mark of completion is thrown away."""
    half = Swtpm(tmp_path / "half", manufactured.vendor)
    (half.directory / "state").mkdir(parents=True)
    (half.directory / "state" / "tpm2-00.permall").write_bytes(b"half")
    half.manufacture()
    half.start()
    try:
        assert TpmHost(half.tcti).ek_certificate()
    finally:
        half.stop()


def test_power_events_count_as_they_should(machine: Swtpm, host: HostTpm) -> None:
    """Reset counts up resetCount; suspend and restart count up restartCount; the AK stays."""
    ak = host.ak_public()
    start = host.clock().reset_count
    seen = []
    for event in (machine.suspend_resume, machine.shutdown_restart, machine.reboot):
        event()
        clock = host.clock()
        seen.append((clock.reset_count - start, clock.restart_count))
    assert seen == [(0, 1), (0, 2), (1, 0)]
    assert ak == host.ak_public()


def test_registers_survive_a_suspend_and_nothing_else(machine: Swtpm, host: HostTpm) -> None:
    """A resume keeps the registers, a restart or reset begins them again."""
    booted = host.pcr_values((4,))
    machine.suspend_resume()
    assert booted == host.pcr_values((4,))
    machine.shutdown_restart()
    assert (bytes(32),) == host.pcr_values((4,))


def test_somebody_elses_process_is_not_our_tpm(machine: Swtpm) -> None:
    """A pid file that names a stranger is not believed, and the stranger is not stopped."""
    directory = machine.directory
    pid = machine.pid()
    (directory / "tpm.pid").write_text(str(os.getpid()))
    assert machine.pid() is None
    (directory / "tpm.pid").write_text(str(pid))
    assert pid == machine.pid()


def test_a_socket_path_too_long_is_said(tmp_path: Path) -> None:
    """A path no UNIX socket can have is refused with words."""
    with pytest.raises(Unavailable, match="too long"):
        Swtpm(tmp_path / ("x" * 120), tmp_path).start()


def test_a_tpm_that_is_off_does_not_answer(tmp_path: Path) -> None:
    """Talking to a TPM that is off is `Unavailable`; stopping it is nothing."""
    off = Swtpm(tmp_path, tmp_path)
    off.stop()
    with pytest.raises(Unavailable):
        off.transmit(b"")


def as_nobody(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a user who is nobody."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        user="nobody",
        group="nogroup",
        extra_groups=[],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_it_works_without_root() -> None:
    """A user who is not root makes, boots and uses a TPM."""
    try:
        reached = as_nobody("import custody.lab.swtpm").returncode == 0
    except PermissionError:
        reached = False
    if not reached:
        pytest.skip("this checkout or its interpreter is out of reach of other users")
    with tempfile.TemporaryDirectory(prefix="custody-tpm-") as directory:
        shutil.chown(directory, "nobody")
        program = (
            "import sys; from pathlib import Path; from custody.lab.swtpm import Swtpm;"
            "from custody.lab import bootlog;"
            "tpm = Swtpm(Path(sys.argv[1]) / 'tpm', Path(sys.argv[1]) / 'vendor');"
            "tpm.manufacture(); tpm.start();"
            "bootlog.extend(tpm, bootlog.record(bootlog.BootState())); tpm.stop()"
        )
        done = as_nobody(program, directory)
        assert (0, "") == (done.returncode, done.stderr)


def test_a_boot_is_what_the_tpm_holds(machine: Swtpm, host: HostTpm) -> None:
    """Replaying the log gives the registers the TPM was extended to."""
    log = bootlog.record(BootState())
    assert bootlog.pcrs(log) == host.pcr_values(tuple(range(24)))


def test_a_boot_is_deterministic_and_names_its_parts() -> None:
    """The same state gives the same log, and every part of it changes some register."""
    plain = bootlog.record(BootState())
    assert plain == bootlog.record(BootState())
    for part in fields(BootState):
        value = getattr(BootState(), part.name)
        other: Any = "other" if isinstance(value, str) else False
        changed = replace(BootState(), **{part.name: other})
        assert bootlog.pcrs(plain) != bootlog.pcrs(bootlog.record(changed)), part.name


def test_a_log_cut_short_is_malformed() -> None:
    """No prefix of a log replays, except where an event ends."""
    log = bootlog.record(BootState())
    whole = 0
    for end in range(len(log)):
        try:
            bootlog.pcrs(log[:end])
        except Malformed:
            continue
        whole += 1
    assert 20 == whole


def test_a_clock_is_safe_again_some_seconds_after_a_power_cut(
    machine: Swtpm, host: HostTpm
) -> None:
    """A TPM whose power was cut attests nothing that counts, until it has been waited for."""
    assert host.clock().safe
    machine.power_cut()
    assert not host.clock().safe
    machine.wait_until_safe()
    assert host.clock().safe
