"""Builds the wheel that the packaging tests look into."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Reads the checkout even where it belongs to another user (`sudo make test`).
GIT = ("git", "-c", f"safe.directory={ROOT}")


def build_wheel(directory: Path) -> Path:
    """Build custody's wheel into ``directory`` from a copy of what is, or will be, committed.

    A copy, because setuptools leaves build/ and *.egg-info where it works, and a module deleted
    since the last build would come back from there.
    """
    source = directory / "source"
    listed = subprocess.run(
        [*GIT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        # Listed and gone: deleted from the work tree, not yet from the index.
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", directory, source],
        check=True,
        timeout=120,
    )
    (wheel,) = directory.glob("*.whl")
    return wheel
