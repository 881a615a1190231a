"""An officer whose token agrees on no curve joins by commands: SoftHSM, narrowed to RSA shares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from custody.encoding import key_id
from custody.formats.policy import ShareKey
from custody.ops import admit
from custody.ops.home import Home
from tests.cli.transcript import Said, run
from tests.device.conftest import Bench
from tests.device.test_probe import narrow


def test_an_rsa_officer_joins_by_a_second_round(
    bench: Bench,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """He is told his suite, refused until he answered a challenge, and admitted after it."""
    narrow(bench, "CKM_ECDH1_DERIVE")
    ida, alice = bench.token("ida"), bench.token("alice")

    def custody(*words: object, home: str = "ida") -> Said:
        arguments = (*map(str, words), "--home", str(tmp_path / home))
        return run(*arguments, capsys=capsys, monkeypatch=monkeypatch)

    start, admission = tmp_path / "start", tmp_path / "alice.dsse"
    said = custody(
        *("custodian", "init", "ida", "--environment", "production", "--authority"),
        *("--token", ida, "--out", start),
    )
    assert 0 == said.code, said.err
    said = custody(
        *("officer", "enroll", "alice", "--token", alice, "--out", admission),
        *("--invitation", start / "invitation.json"),
        home="alice",
    )
    assert (0, True) == (said.code, "sealed to you by RSA3072_OAEP_SHA1" in said.err), said.err
    admitting = ("custodian", "admit", admission, "--out", tmp_path / "production", "--yes")
    said = custody(*admitting)
    assert (4, True) == (said.code, "vouched for by the signing key, not proven" in said.err)
    assert f"custody custodian challenge {admission}" in said.err
    asked, answer = tmp_path / "challenge.json", tmp_path / "answer.json"
    assert 0 == custody("custodian", "challenge", admission, "--out", asked).code
    assert 0 == custody("officer", "prove", asked, "--out", answer, home="alice").code
    said = custody(*admitting, "--answer", answer)
    assert 0 == said.code, said.err
    assert 2 == len(list((tmp_path / "production").glob("alice.*.cer")))
    (key,) = (
        key
        for key in admit.check(Home(tmp_path / "ida"), admission).principal.keys
        if isinstance(key, ShareKey)
    )
    assert "RSA3072_OAEP_SHA1" == key.suite
    held = json.loads(
        run("token", "audit", str(alice), "--json", capsys=capsys, monkeypatch=monkeypatch).out
    )
    assert {"oaep", "sign"} == {i["role"] for i in held["objects"] if i["kind"] == "private"}
    assert key.key_id == key_id(key.spki)
