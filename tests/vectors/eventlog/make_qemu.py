"""Record genuine event logs: ``python -m tests.vectors.eventlog.make_qemu VMLINUZ VMLINUZ``.

Every machine is real firmware (OVMF) in an emulator (QEMU) with a software TPM (swtpm), and boots a
real kernel into an initrd of one file that prints what firmware and kernel say of their boot: the
log as the kernel hands it out, and every register of every bank as the TPM holds it.  Nothing in
the logs is made here.

Debian packages: qemu-system-x86, ovmf, swtpm, swtpm-tools, busybox-static; the kernels
are ``boot/vmlinuz-*`` of two versions of linux-image-cloud-amd64 (``apt-get download`` and
``dpkg -x`` give them without installing them), the older one first.  Everything is emulated, so
that it runs in any virtual machine: twenty seconds a boot.  A new run gives the same digests as
long as the packages are the same; the addresses that logs mention may differ.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
OVMF = Path("/usr/share/OVMF")
BUSYBOX = Path("/bin/busybox")
BOOT_SECONDS = 300
PACKAGES = ("qemu-system-x86", "ovmf", "swtpm", "busybox-static")

INIT = b"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t sysfs sysfs /sys
$b mount -t securityfs securityfs /sys/kernel/security
echo
echo @@log
$b base64 /sys/kernel/security/tpm0/binary_bios_measurements
echo @@pcrs
cd /sys/class/tpm/tpm0
for file in pcr-*/*; do echo $file $($b cat $file); done
echo @@end
$b poweroff -f
"""


@dataclass(frozen=True)
class Machine:
    """One boot.  ``new`` takes the newer of the two kernels."""

    name: str
    about: str
    code: str = "OVMF_CODE_4M.fd"
    variables: str = "OVMF_VARS_4M.fd"
    banks: str = "sha256"
    command_line: str = "quiet"
    new: bool = False
    secure_boot: bool = False


MACHINES = (
    Machine("plain", "one bank, no Secure Boot keys"),
    Machine("kernel", "the same machine after a kernel update", new=True),
    Machine("cmdline", "the same machine with another command line", command_line="quiet debug"),
    Machine("banks", "four banks", banks="sha1,sha256,sha384,sha512"),
    Machine("sha1", "only a SHA-1 bank, which no policy accepts", banks="sha1"),
    Machine(
        "secureboot",
        "Secure Boot on, by test keys; QEMU starts the kernel they did not sign, unmeasured",
        code="OVMF_CODE_4M.secboot.fd",
        variables="OVMF_VARS_4M.snakeoil.fd",
        secure_boot=True,
    ),
)


def main() -> None:
    """Boot every machine and write ``qemu-NAME.bin`` and ``qemu-NAME.txt`` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", choices=[machine.name for machine in MACHINES])
    chosen = parser.parse_args()
    for machine in MACHINES:
        if chosen.only not in {None, machine.name}:
            continue
        kernel = chosen.new if machine.new else chosen.old
        with tempfile.TemporaryDirectory(prefix="boot") as folder:
            printed = boot(machine, kernel, Path(folder))
        log, registers = read(printed)
        (HERE / f"qemu-{machine.name}.bin").write_bytes(log)
        head = [f"# {machine.about}", f"# {banner(kernel)}", f"# {versions()}"]
        (HERE / f"qemu-{machine.name}.txt").write_text("\n".join([*head, *registers, ""]), "ascii")
        print(f"{machine.name}: {len(log)} bytes")  # noqa: T201


def boot(machine: Machine, kernel: Path, folder: Path) -> str:
    """Boot once; return what the machine printed."""
    (folder / "initrd").write_bytes(gzip.compress(initrd(), mtime=0))
    shutil.copy(OVMF / machine.variables, folder / "variables")
    with software_tpm(folder, machine.banks) as socket:
        done = subprocess.run(
            [
                "qemu-system-x86_64",
                *("-machine", f"q35,smm={'on' if machine.secure_boot else 'off'},accel=tcg"),
                *("-m", "512", "-display", "none", "-no-reboot", "-nodefaults", "-serial", "stdio"),
                *("-global", "driver=cfi.pflash01,property=secure,value=on") * machine.secure_boot,
                *("-drive", f"if=pflash,format=raw,readonly=on,file={OVMF / machine.code}"),
                *("-drive", f"if=pflash,format=raw,file={folder / 'variables'}"),
                *("-chardev", f"socket,id=tpm,path={socket}"),
                *("-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"),
                *("-kernel", str(kernel), "-initrd", str(folder / "initrd")),
                *("-append", f"console=ttyS0 {machine.command_line}"),
            ],
            capture_output=True,
            timeout=BOOT_SECONDS,
            check=True,
        )
    return done.stdout.decode("utf-8", "replace")


@contextmanager
def software_tpm(folder: Path, banks: str) -> Iterator[Path]:
    """Run a fresh TPM; yield the socket by which QEMU takes it."""
    state = folder / "tpm"
    state.mkdir()
    subprocess.run(
        [
            *("swtpm_setup", "--tpm2", "--tpmstate", f"dir://{state}", "--pcr-banks", banks),
            *("--runas", "root"),
        ],
        capture_output=True,
        check=True,
    )
    socket = folder / "tpm.sock"
    running = subprocess.Popen(
        [
            *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}"),
            *("--ctrl", f"type=unixio,path={socket}", "--terminate"),
        ]
    )
    try:
        yield socket
    finally:
        running.terminate()
        running.wait()


def initrd() -> bytes:
    """Write a cpio archive (newc) of busybox and `INIT`."""
    entries = [(name, 0o040755, b"") for name in ("bin", "sys", "dev")]
    entries += [("bin/busybox", 0o100755, BUSYBOX.read_bytes()), ("init", 0o100755, INIT)]
    entries.append(("TRAILER!!!", 0, b""))
    archive = b""
    for number, (name, mode, data) in enumerate(entries, 1):
        links = 2 if mode & 0o040000 else 1
        fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields)
        archive += padded(head + name.encode() + b"\0") + padded(data)
    return archive


def padded(data: bytes) -> bytes:
    """Fill up to four bytes."""
    return data + bytes(-len(data) % 4)


def read(printed: str) -> tuple[bytes, list[str]]:
    """Take the log and the registers out of what a machine printed."""
    lines = [line.strip() for line in printed.splitlines()]
    log, pcrs, end = (lines.index(mark) for mark in ("@@log", "@@pcrs", "@@end"))
    rows = [
        (match[1], int(match[2]), match[3].lower())
        for line in lines[pcrs + 1 : end]
        if (match := re.fullmatch(r"pcr-(sha\d+)/(\d+) ([0-9A-F]+)", line))
    ]
    if not rows:
        raise SystemExit(f"no registers in: {lines[pcrs:end]}")
    return base64.b64decode("".join(lines[log + 1 : pcrs]), validate=True), [
        f"{bank} {number} {value}" for bank, number, value in sorted(rows)
    ]


def banner(kernel: Path) -> str:
    """Return the version a kernel image says it is (Linux boot protocol, kernel_version)."""
    image = kernel.read_bytes()
    start = 0x200 + int.from_bytes(image[0x20E:0x210], "little")
    return image[start : image.index(b"\0", start)].decode("ascii")


def versions() -> str:
    """Return the versions of the packages that made the log."""
    words = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}, ", *PACKAGES]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.rstrip(", ")


if __name__ == "__main__":
    main()
