"""What the build, the locks and the ignore list promise."""

from __future__ import annotations

import re
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import custody
from tests.wheel import GIT, ROOT, build_wheel

LOCKS = sorted(ROOT.glob("requirements*.txt"))


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """Read pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Build the wheel from a copy of what is, or will be, committed."""
    path = build_wheel(tmp_path_factory.mktemp("wheel"))
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_a_wheel_brings_every_module(wheel: zipfile.ZipFile) -> None:
    """Every Python file of the package is in the wheel, and no other."""
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "custody").rglob("*.py")}
    packed = {name for name in wheel.namelist() if name.endswith(".py")}
    packed -= {name for name in packed if name.startswith("custody/_data/")}
    assert modules == packed


@pytest.mark.parametrize(
    ("inside", "outside", "pattern"),
    [
        ("custody/formats", "custody/formats", "*.md"),
        ("custody/_data/hsm_profiles", "hsm_profiles", "*.toml"),
        ("custody/_data/softhsm", "softhsm", "*"),
        ("custody/report/templates", "custody/report/templates", "*"),
        ("custody", "custody", "py.typed"),
    ],
)
def test_a_wheel_brings_its_data(
    wheel: zipfile.ZipFile, inside: str, outside: str, pattern: str
) -> None:
    """Specs, device profiles and the lab's configuration are in the wheel, byte for byte."""
    files = [path for path in (ROOT / outside).rglob(pattern) if path.is_file()]
    expected = {
        f"{inside}/{path.relative_to(ROOT / outside).as_posix()}": path.read_bytes()
        for path in files
        if "__pycache__" not in path.parts
    }
    found = {name: wheel.read(name) for name in wheel.namelist() if name in expected}
    assert expected
    assert expected == found


def test_the_base_needs_no_device_library(project: dict[str, Any]) -> None:
    """Device libraries are extras: an auditor's machine has no compiler and no TPM stack."""
    named = {re.split(r"[<>=\[; ]", line)[0] for line in project["project"]["dependencies"]}
    assert not named & {"python-pkcs11", "tpm2-pytss"}
    assert {"pkcs11", "tpm"} <= project["project"]["optional-dependencies"].keys()
    locked = (ROOT / "requirements-base.txt").read_text()
    assert "cryptography==" in locked
    assert "pkcs11" not in locked
    assert "tpm2" not in locked


def test_a_host_can_open_what_is_compressed(project: dict[str, Any]) -> None:
    """What expands a compressed bundle comes with what a host needs in any case."""
    extras = project["project"]["optional-dependencies"]
    assert extras["compress"]
    assert set() == set(extras["compress"]) - set(extras["tpm"])


def test_the_version_has_one_source(wheel: zipfile.ZipFile) -> None:
    """The wheel's version is the package's own."""
    assert f"custody-{custody.__version__}-py3-none-any.whl" == Path(wheel.filename or "").name


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_every_package_by_hash_and_names_no_place(lock: Path) -> None:
    """A lock says what, never where from: no URL, index, local path or unhashed package."""
    text = lock.read_text()
    entries = [
        entry for entry in re.split(r"\n(?=\S)", text) if entry and not entry.startswith("#")
    ]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[A-Za-z0-9.+!]+( ; [^\\\n]+)? \\\n", entry), entry[:80]
        assert "--hash=sha256:" in entry
    for place in ("://", "--index", "--find-links", "--extra-index", "file:", " @ "):
        assert place not in text


def test_the_locks_agree() -> None:
    """One package has one version in all the locks that are installed together."""
    pins = [
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in (
            "requirements-dev.txt",
            "requirements-build.txt",
            "requirements-base.txt",
            "requirements.txt",
        )
    ]
    dev = pins[0]
    assert len(dev) > len(pins[3]) > len(pins[2])
    for other in pins[1:]:
        common = dev.keys() & other.keys()
        assert {name: dev[name] for name in common} == {name: other[name] for name in common}


def test_the_run_time_lock_is_part_of_the_developers() -> None:
    """What is tested is what is shipped: every run-time package is in the developers' lock."""
    pinned = [
        set(re.findall(r"^([a-z0-9-]+==\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.txt", "requirements-dev.txt")
    ]
    assert set() == pinned[0] - pinned[1]


def test_lab_and_environments_are_never_committed() -> None:
    """Git ignores the lab's tokens, the environments and uv's lock, but not the lab package."""
    ignored = ["lab/tokens/x", ".venv/bin/python", ".venv-interop/x", "uv.lock", "build/x"]
    kept = ["custody/lab/__init__.py", "benchmarks/latest.json", "softhsm/softhsm2.conf"]
    found = subprocess.run(
        [*GIT, "check-ignore", "--no-index", *ignored, *kept],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ignored == found.stdout.split()


def test_every_device_adapter_is_protected(project: dict[str, Any]) -> None:
    """The contract that keeps devices behind the wiring names every adapter there is."""
    adapters = {
        f"custody.*.{path.stem}"
        for pattern in ("pkcs11*.py", "tpm*.py")
        for path in (ROOT / "custody" / "keys").glob(pattern)
    }
    (contract,) = (
        contract
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["name"] == "only the wiring and the lab choose devices"
    )
    assert adapters
    assert set() == adapters - set(contract["protected_modules"])
