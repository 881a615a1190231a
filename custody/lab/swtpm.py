"""Software TPMs for the lab: one swtpm process per host, each with its own state and vendor CA.

Works with swtpm 0.7 to 0.10.  A software TPM protects nothing from whoever can read its state
directory; its certificates are class ``software`` and no policy outside a lab accepts them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from custody.errors import Unavailable
from custody.formats.evidence import Alg, NvAttributes, NvPublic
from custody.lab import firmware

_START_SECONDS: Final = 10.0
_SOCKET_SECONDS: Final = 5.0
#: A UNIX socket's path is at most 107 bytes, and ours has ".ctrl" behind it.
_MAX_PATH_BYTES: Final = 100

#: ``struct flock`` of 64-bit Linux (fcntl(2)): type, whence, start, length, process.
_FLOCK: Final = "hhqqi4x"

#: Where a TPM keeps the certificates above its EK certificate (TCG EK Credential Profile 2.5).
_EK_CHAIN_INDEX: Final = 0x01C00100
_NV_CHUNK_BYTES: Final = 1024
#: A software TPM records its clock every 4 seconds.
_SAFE_SECONDS: Final = 15.0


class Startup(Enum):
    """How a TPM wakes (TPM2_Startup, part 3 section 9.3)."""

    CLEAR = "startup-clear"
    STATE = "startup-state"


@dataclass(frozen=True, slots=True)
class Swtpm:
    """One software TPM in ``directory``, made by the vendor CA in ``vendor``.

    Only files are remembered: several objects may name the same TPM.
    """

    directory: Path
    vendor: Path

    @property
    def socket_path(self) -> Path:
        """Where the TPM listens while it runs."""
        return self.directory / "tpm.sock"

    @property
    def tcti(self) -> str:
        """What tpm2-tss calls the way to this TPM."""
        return f"swtpm:path={self.socket_path}"

    @property
    def vendor_root(self) -> Path:
        """The PEM certificate of the lab's TPM vendor, to be pinned by policies."""
        return self.vendor / "swtpm-localca-rootca-cert.pem"

    def manufacture(self) -> None:
        """Make the TPM with EK certificates by the vendor, and its CA if there is none yet.

        Only the SHA-256 bank is allocated.  Does nothing if the TPM exists.
        """
        made = self.directory / "manufactured"
        if made.exists():
            return
        # What a manufacture that was killed has left is no TPM.
        shutil.rmtree(self._state, ignore_errors=True)
        for directory in (self.directory, self._state, self.vendor):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._set_up()
        self.start()
        self._store_issuer()
        self.stop()
        made.touch()

    def _set_up(self) -> None:
        log = self.directory / "setup.log"
        command = [_program("swtpm_setup"), "--tpm2", "--tpmstate", f"dir://{self._state}"]
        command += [
            "--create-ek-cert",
            "--rsa-keysize",
            "2048",
            "--pcr-banks",
            "sha256",
            "--lock-nvram",
        ]
        command += ["--config", str(self._write_config()), "--logfile", str(log)]
        if os.geteuid() == 0:
            # As root it would change to the distribution's tss user, who cannot reach our files.
            command += ["--runas", "root"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable("swtpm_setup could not make a TPM", where=str(log))

    def start(self, how: Startup = Startup.CLEAR) -> None:
        """Power the TPM on and wait until it answers.  Does nothing if it runs."""
        if self.pid() is not None:
            return
        path = str(self.socket_path)
        if len(os.fsencode(path)) > _MAX_PATH_BYTES:
            raise Unavailable("the path of the TPM's socket is too long", where=path)
        for stale in (path, f"{path}.ctrl"):
            Path(stale).unlink(missing_ok=True)
        command = [_program("swtpm"), "socket", "--tpm2", "--tpmstate", f"dir={self._state}"]
        command += ["--server", f"type=unixio,path={path},mode=0600"]
        command += ["--ctrl", f"type=unixio,path={path}.ctrl,mode=0600"]
        command += ["--flags", f"not-need-init,{how.value}", "--daemon"]
        command += [
            "--pid",
            f"file={self._pid_file}",
            "--log",
            f"file={self.directory / 'tpm.log'}",
        ]
        # It would keep the terminal it was started from for as long as it lives.
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Unavailable("swtpm does not start", where=str(self.directory / "tpm.log"))
        self._wait_until_ready()

    def stop(self) -> None:
        """Shut the TPM down in order (TPM2_Shutdown(CLEAR)) and power it off."""
        self._shut_down(Startup.CLEAR)
        self._power_off()

    def reboot(self) -> None:
        """TPM Reset: the machine shuts down and starts again.  PCRs and NULL seed are new."""
        self.stop()
        self.start()

    def wait_until_safe(self) -> None:
        """Wait until the clock has passed its last record: some seconds after a power cut.

        Until then nobody can tell whether it ran back, and nobody believes what it attests.
        """
        end = time.monotonic() + _SAFE_SECONDS
        while not firmware.clock_is_safe(self.transmit(firmware.read_clock())):
            if time.monotonic() > end:
                raise Unavailable("the software TPM's clock does not get safe", where=self.tcti)
            time.sleep(0.1)

    def power_cut(self) -> None:
        """TPM Reset without a shutdown: ``safe`` is NO until the clock passes its last record."""
        self._power_off()
        self.start()

    def suspend_resume(self) -> None:
        """TPM Resume: PCRs and NULL seed are kept, restartCount grows."""
        self._shut_down(Startup.STATE)
        self._power_off()
        self.start(Startup.STATE)

    def shutdown_restart(self) -> None:
        """TPM Restart: state is kept as over a suspend, but the PCRs begin again."""
        self._shut_down(Startup.STATE)
        self._power_off()
        self.start()

    def pid(self) -> int | None:
        """Return the process that is this TPM, or None if it is off."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        # The number may belong to somebody else by now: only a process with our state is ours.
        return pid if pid == self._state_holder() else None

    def transmit(self, command: bytes) -> bytes:
        """Send one raw command and return the raw response, as firmware does before any OS."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                channel.settimeout(_SOCKET_SECONDS)
                channel.connect(str(self.socket_path))
                channel.sendall(command)
                header = _receive(channel, 10)
                return header + _receive(channel, int.from_bytes(header[2:6], "big") - 10)
        except OSError as error:
            raise Unavailable("the software TPM does not answer", where=self.tcti) from error

    def _state_holder(self) -> int | None:
        """Return the process that has the TPM's state locked; a chroot may have no /proc to ask."""
        try:
            descriptor = os.open(self._state / ".lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
        finally:
            os.close(descriptor)
        return None if answer[0] == fcntl.F_UNLCK else int(answer[-1])

    @property
    def _state(self) -> Path:
        return self.directory / "state"

    @property
    def _pid_file(self) -> Path:
        return self.directory / "tpm.pid"

    def _write_config(self) -> Path:
        localca = self.directory / "swtpm-localca.conf"
        localca.write_text(
            f"statedir = {self.vendor}\n"
            f"signingkey = {self.vendor / 'signkey.pem'}\n"
            f"issuercert = {self.vendor / 'issuercert.pem'}\n"
            f"certserial = {self.vendor / 'certserial'}\n"
        )
        options = self.directory / "swtpm-localca.options"
        options.write_text(
            "--platform-manufacturer custody\n--platform-version 1\n--platform-model lab\n"
        )
        config = self.directory / "swtpm-setup.conf"
        config.write_text(
            f"create_certs_tool = {_program('swtpm_localca')}\n"
            f"create_certs_tool_config = {localca}\n"
            f"create_certs_tool_options = {options}\n"
            "active_pcr_banks = sha256\n"
        )
        return config

    def _store_issuer(self) -> None:
        # As vendors do, so that a host can show the whole chain: swtpm_setup stores the leaf alone.
        pem = (self.vendor / "issuercert.pem").read_text()
        der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE-----") :])
        public = NvPublic(
            index=_EK_CHAIN_INDEX,
            name_alg=Alg.SHA256,
            attributes=NvAttributes.OWNER_WRITE
            | NvAttributes.OWNER_READ
            | NvAttributes.AUTH_READ
            | NvAttributes.NO_DA,
            auth_policy=b"",
            data_bytes=len(der),
        )
        self._command(firmware.nv_define(public))
        for offset in range(0, len(der), _NV_CHUNK_BYTES):
            piece = der[offset : offset + _NV_CHUNK_BYTES]
            self._command(firmware.nv_write(_EK_CHAIN_INDEX, piece, offset=offset))

    def _command(self, command: bytes) -> None:
        code = firmware.response_code(self.transmit(command))
        if code:
            raise Unavailable(f"the software TPM refused a command (0x{code:x})", where=self.tcti)

    def _shut_down(self, to: Startup) -> None:
        if self.pid() is not None:
            self._command(firmware.shutdown(keep_state=to is Startup.STATE))

    def _power_off(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        self._wait_until_gone()

    def _wait_until_gone(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while self.pid() is not None:
            if time.monotonic() > end:
                raise Unavailable("swtpm does not stop", where=str(self.directory))
            time.sleep(0.005)

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.transmit(firmware.get_test_result())
            except Unavailable:
                if time.monotonic() > end:
                    raise
                time.sleep(0.005)
            else:
                return


def _receive(channel: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = channel.recv(count - len(data))
        if not piece:
            raise ConnectionError("closed in the middle of a response")
        data += piece
    return data


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"{name} is not installed", hint="install swtpm and swtpm-tools")
    return found


def available() -> bool:
    """Say whether this machine has what a software TPM needs."""
    return all(shutil.which(name) for name in ("swtpm", "swtpm_setup", "swtpm_localca"))
