"""Mnemonics against another implementation: the npm package ``slip39``, in JavaScript."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from custody.crypto.slip39 import combine_seed, read_mnemonic, split_seed

_PACKAGE = "slip39@0.1.9"
_RECOVER = """
const Slip39 = require('slip39');
const asked = JSON.parse(require('fs').readFileSync(0));
const secret = asked.map(a => Slip39.recoverSecret(a.mnemonics, a.passphrase));
process.stdout.write(JSON.stringify(secret.map(s => Buffer.from(s).toString('hex'))));
"""
_SPLIT = """
const Slip39 = require('slip39');
const asked = JSON.parse(require('fs').readFileSync(0));
const slip = Slip39.fromArray(Array.from(Buffer.from(asked.secret, 'hex')), {
  passphrase: asked.passphrase, threshold: asked.threshold, groups: asked.groups,
  iterationExponent: 1, extendableBackupFlag: 1 });
process.stdout.write(JSON.stringify(
  asked.groups.map((g, i) => slip.fromPath('r/' + i).mnemonics)));
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into a folder of its own; skipped where npm cannot."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private":true}')
    made = subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", _PACKAGE],
        cwd=folder,
        capture_output=True,
        timeout=120,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"npm cannot install {_PACKAGE} here")
    return folder


def _ask(node: Path, program: str, asked: object) -> object:
    done = subprocess.run(
        ["node", "-e", program],
        cwd=node,
        input=json.dumps(asked).encode(),
        capture_output=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("passphrase", ["", "correct horse"])
def test_javascript_recovers_our_seed(node: Path, passphrase: str) -> None:
    """From our mnemonics the other implementation recovers our seed, by every pair of groups."""
    seed = os.urandom(32)
    made = split_seed(
        seed, group_threshold=2, groups=((2, 3), (3, 5), (1, 1)), passphrase=passphrase.encode()
    )
    parts = [made[0][1:], made[1][::2], made[2]]
    asked = [
        {"mnemonics": [*one, *two], "passphrase": passphrase}
        for one, two in itertools.combinations(parts, 2)
    ]
    assert [seed.hex()] * 3 == _ask(node, _RECOVER, asked)


@pytest.mark.parametrize("passphrase", ["", "correct horse"])
def test_we_recover_javascripts_seed(node: Path, passphrase: str) -> None:
    """From the other implementation's mnemonics we recover the same seed."""
    seed = os.urandom(32)
    groups = [[2, 3, "custodians"], [3, 5, "board"], [1, 1, "safe"]]
    asked = {"secret": seed.hex(), "passphrase": passphrase, "threshold": 2, "groups": groups}
    made = _ask(node, _SPLIT, asked)
    assert isinstance(made, list)
    parts = [made[0][:2], made[1][1:4], made[2]]
    for one, two in itertools.combinations(parts, 2):
        shares = [read_mnemonic(words) for words in (*one, *two)]
        assert seed == combine_seed(shares, passphrase.encode())
