"""The reference implementation of OpenSSF Model Signing, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.interop.models import Publisher, write_model

ROOT = Path(__file__).parents[2]

Reference = Callable[..., subprocess.CompletedProcess[str]]


def interop_python() -> Path:
    """Return the interpreter that has the reference's library."""
    environment = Path(os.environ.get("CUSTODY_INTEROP", ROOT / ".venv-interop"))
    return environment / "bin" / "python"


@pytest.fixture(scope="session")
def reference() -> Reference:
    """Run ``model_signing`` with arguments; skip where it is not installed.

    ``make setup`` installs it; ``CUSTODY_INTEROP`` names another environment that has it.
    """
    tool = interop_python().with_name("model_signing")
    if not tool.exists():
        pytest.skip(f"no reference implementation at {tool} (make setup, or CUSTODY_INTEROP)")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(tool), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with awkward names, not to be changed."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session", params=["P-256", "P-384"])
def publisher(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Publisher:
    """A publisher on each curve that tokens offer."""
    curve = ec.SECP256R1() if request.param == "P-256" else ec.SECP384R1()
    return Publisher.on(curve, tmp_path_factory.mktemp("publisher") / "files")
