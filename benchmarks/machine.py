"""What the figures were taken on, and with which versions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

from benchmarks.bench import Bench

_INTEROP = Path(__file__).parent.parent / ".venv-interop" / "bin" / "python"
_PACKAGES = ("cryptography", "blake3", "msgspec", "python-pkcs11", "tpm2-pytss")


def describe(bench: Bench) -> dict[str, str]:
    """Return what a reader needs to compare figures with his own, by what it is."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    own = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    asked = "import importlib.metadata as m; print(m.version('model-signing'))"
    return {
        "taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "custody": version("custody"),
        "model": f"{bench.size_words()}, random bytes, in RAM"
        + (f" ({bench.room.note})" if bench.room.note else ""),
        "rounds": f"{bench.rounds}, alternating; medians",
        "load": f"load average {os.getloadavg()[0]:.1f} at the end, 1 minute",
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory / (1 << 30):.0f} GiB",
        "system": f"{_distribution()}, Linux {platform.release().partition('-')[0]}",
        "python": f"{platform.python_version()}; {own}",
        "openssl": f"{backend.openssl_version_text()} (in cryptography)",
        "age": _says("age", "--version"),
        "model_signing": _says(str(_INTEROP), "-c", asked),
        "swtpm": _says("swtpm", "--version").partition(",")[0],
        "softhsm": _says("softhsm2-util", "--version"),
    }


def _says(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not there"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or ["unknown"])[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _distribution() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
