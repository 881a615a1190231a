"""The base wheel alone, in an empty environment: what an auditor's machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wheel import ROOT, build_wheel

#: Modules that import a library of one of the extras.
_OF_EXTRAS = (
    "cli._mnemonics",
    "crypto.slip39",
    "ops.backup",
    "ops.break_glass",
    "ops.ceremony_recovery",
    "ops.drill",
    "ops.filesystem",
    "ops.frame_codec",
    "ops.frame_plan",
    "ops.frame_seal",
    "ops.recovery",
    "ops.sealed_share",
    "ops.tensors",
    "transports.objects",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a virtual environment with the base wheel and its locked dependencies, uncompiled."""
    directory = tmp_path_factory.mktemp("auditor")
    wheel = build_wheel(directory)
    venv = directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=120)
    pip = [
        str(venv / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "-q",
    ]
    # No package may be compiled: only wheels are taken, and the compiler on offer fails.
    uncompiled = {**os.environ, "CC": "false", "CXX": "false"}
    steps: tuple[list[str | Path], ...] = (
        ["--require-hashes", "--only-binary", ":all:", "-r", ROOT / "requirements-base.txt"],
        ["--no-deps", "--no-index", wheel],
    )
    for what in steps:
        subprocess.run([*pip, *what], check=True, timeout=280, env=uncompiled)
    return venv


def _run(venv: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment where no checkout and no other program is in reach."""
    return subprocess.run(
        [venv / "bin" / command[0], *command[1:]],
        cwd=venv,
        env={"PATH": str(venv / "bin"), "HOME": str(venv), "LANG": "C.UTF-8"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_auditor_needs_no_device_library(environment: Path) -> None:
    """`custody auditor verify` starts with the base wheel alone."""
    run = _run(environment, "custody", "auditor", "verify", "--help")
    assert (0, "") == (run.returncode, run.stderr)
    assert "--policy-pin" in run.stdout


def test_an_auditor_gets_a_verdict(environment: Path, tmp_path: Path) -> None:
    """`custody auditor verify` runs to its answer: a case that is not there is no pass."""
    pin = "0" * 64
    run = _run(
        environment, "custody", "auditor", "verify", str(tmp_path / "case"), "--policy-pin", pin
    )
    assert run.returncode in {1, 3}
    assert "Traceback" not in run.stderr
    assert run.stderr.startswith("custody: error: ")


@pytest.mark.parametrize(
    "library", ["pkcs11", "tpm2_pytss", "numpy", "zstandard", "fsspec", "pytest", "mypy"]
)
def test_the_base_brings_no_device_or_developer_library(environment: Path, library: str) -> None:
    """The environment is the base and nothing more, so the tests above prove what they say."""
    run = _run(environment, "python", "-c", f"import {library}")
    assert 1 == run.returncode
    assert f"No module named '{library}'" in run.stderr


def test_every_module_but_the_adapters_loads(environment: Path) -> None:
    """Nothing outside the device rooms and the modules of extras needs more than the base."""
    code = """
import importlib, pkgutil, custody
for module in pkgutil.walk_packages(custody.__path__, "custody."):
    room, _, name = module.name.removeprefix("custody.").partition(".")
    extra = module.name.removeprefix("custody.") in EXTRAS
    device = room == "keys" and name.startswith(("pkcs11", "tpm"))
    if room != "lab" and not extra and not device:
        importlib.import_module(module.name)
        print(module.name)
""".replace("EXTRAS", repr(_OF_EXTRAS))
    run = _run(environment, "python", "-W", "error", "-c", code)
    assert "" == run.stderr
    assert {"custody.ops", "custody.rules", "custody.formats"} <= set(run.stdout.split())


def test_an_installed_custody_finds_its_data(environment: Path) -> None:
    """Device profiles and the lab's configuration are found where no checkout is."""
    code = """
from custody.keys.profiles import data_directory, load_profiles
print(len(load_profiles()), data_directory("softhsm"))
"""
    run = _run(environment, "python", "-c", code)
    profiles = len(list((ROOT / "hsm_profiles").glob("*.toml")))
    (site,) = (environment / "lib").glob("python3*/site-packages")
    assert f"{profiles} {site}/custody/_data/softhsm\n" == run.stdout
