"""The README does what it says: its session and its Python run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from custody.lab import swtpm
from tests.docs.terminal import (
    ROOT,
    Digests,
    agree,
    commands_of,
    enter,
    environment,
    fails,
    write_program,
)

README = (ROOT / "README.md").read_text()
_SESSION = re.compile(r"```console\n(.*?)```", re.DOTALL)
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
_FUNCTION = re.compile(r"\w+\(\) \{")


@pytest.mark.skipif(
    not (swtpm.available() and shutil.which("softhsm2-util") and shutil.which("setsid")),
    reason="swtpm or SoftHSM is not installed",
)
@pytest.mark.timeout(600)
def test_the_session_and_the_example_run_as_they_are_shown() -> None:
    """Typed into one shell, the session prints what is written; Python then judges its files."""
    (session,) = _SESSION.findall(README)
    (example,) = _PYTHON.findall(README)
    # Not under pytest's own folder: the path of a UNIX socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="custody-") as folder:
        here = Path(folder)
        _write_model(here / "MiniLM")
        write_program(here / "bin")
        env = environment(here, here / "bin", {})
        try:
            digests, functions = Digests(), list[str]()
            for command, expected in commands_of(session):
                if _FUNCTION.match(command):
                    functions.append(command)
                    continue
                if "lab down" in command:
                    _run_example(example, here, digests)
                line = "\n".join([*functions, digests.translate(command)])
                shown = enter(line, directory=here, env=env)
                assert agree(expected, shown.text), f"$ {command}\n{shown.text}"
                assert fails(expected) == bool(shown.code), command
                digests.learn(expected, shown.text)
            assert not (here / "lab").exists()
        finally:
            if (here / "lab").exists():
                enter("custody lab down", directory=here, env=env)


def _write_model(model: Path) -> None:
    model.mkdir()
    (model / "model.safetensors").write_bytes(bytes(range(256)) * 800)
    (model / "config.json").write_text('{"hidden_size":384}')
    (model / "tokenizer.json").write_text('{"version":"1.0"}')


def _run_example(example: str, here: Path, digests: Digests) -> None:
    """Run the README's Python where its session's files are its case."""
    case = here / "case"
    case.mkdir()
    for name in ("public", "answers"):
        shutil.copytree(here / "lab" / name, case / name)
    for name in ("bundle/manifest.dsse", "request.dsse", "receipt.dsse", "burn.dsse"):
        shutil.copy(here / "lab" / name, case)
    run = subprocess.run(
        [sys.executable, "-c", digests.translate(example)],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("", 0) == (run.stderr, run.returncode)
    assert "host1 opened-and-burned ['lead1', 'sec1', 'sec3']\n" == run.stdout
