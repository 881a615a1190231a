"""`custody token` on a TPM: seen without a PIN, and held to what keys of its handles must be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.formats.evidence import Attributes, EccPublic
from custody.keys import tpm, tpm_probe, tpm_token
from custody.keys.api import KeyRole
from custody.keys.uri import TpmUri
from custody.lab.swtpm import Swtpm
from tests.cli.transcript import Said
from tests.cli.transcript import run as run_command
from tests.device.conftest import USER_PIN

P256 = ec.SECP256R1()


@pytest.fixture
def uri(machine: Swtpm) -> TpmUri:
    """One TPM with nobody's keys."""
    return TpmUri(tcti=machine.tcti)


Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command here."""
    return lambda *words: run_command(*words, capsys=capsys, monkeypatch=monkeypatch)


def make(uri: TpmUri, *roles: KeyRole) -> None:
    """Make keys in it."""
    with tpm.open_token(uri, pin=lambda _prompt, /: bytearray(USER_PIN)) as token:
        for role in roles:
            token.make(role, "alice", P256)


def test_a_tpm_is_listed_by_its_uri(run: Run, uri: TpmUri) -> None:
    """It is seen as what it says it is, by a URI that names it again, and no PIN is asked."""
    said = run("token", "list", str(uri), "--json")
    assert 0 == said.code, said.err
    (seen,) = json.loads(said.out)["tokens"]
    assert (str(uri), "tpm2", "right") == (seen["uri"], seen["profile"], seen["pin"])
    assert "software" == seen["tokenClass"]


def test_what_a_tpm_holds_is_audited(run: Run, uri: TpmUri) -> None:
    """An empty TPM is said to be, and our keys have one use, were made here, and never leave."""
    assert "the token is empty\n" == run("token", "audit", str(uri)).out
    make(uri, KeyRole.SIGN, KeyRole.SHARE)
    said = run("token", "audit", str(uri), "--json")
    assert 0 == said.code, said.err
    report = json.loads(said.out)
    assert [] == report["findings"]
    assert [("sign", "SIGN"), ("share", "DERIVE")] == [
        (item["role"], flag)
        for item in report["objects"]
        for flag in item["flags"]
        if flag in ("SIGN", "DERIVE")
    ]


def test_a_key_of_a_tpm_that_may_do_more_is_refused(
    run: Run, uri: TpmUri, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key at a handle of ours that signs and agrees is named, and the audit fails."""
    right = tpm_token.key_template

    def both(role: KeyRole, curve: ec.EllipticCurve) -> EccPublic:
        made = right(role, curve)
        return EccPublic(
            name_alg=made.name_alg,
            attributes=made.attributes | Attributes.DECRYPT | Attributes.SIGN,
            signing_hash=None,
            curve=made.curve,
        )

    with monkeypatch.context() as patched:
        patched.setattr(tpm_token, "key_template", both)
        make(uri, KeyRole.SHARE)
    said = run("token", "audit", str(uri))
    assert 1 == said.code
    assert "not-its-role" in said.out + said.err


def test_a_tpm_is_measured_without_a_pin(run: Run, uri: TpmUri) -> None:
    """It does what a person's token must; nothing is left in it, and no PIN is counted wrong."""
    said = run("token", "probe", str(uri), "--json")
    assert 0 == said.code, said.err
    report = json.loads(said.out)
    answers = {item["id"]: item["answer"] for item in report["measured"]}
    assert {id_ for id_ in answers if answers[id_] == "yes"} == set(tpm_probe.MEASURERS)
    assert "no" not in answers.values()
    duties = {fit["duty"]: fit["verdict"] for fit in report["fitness"]}
    able = dict.fromkeys(("officer", "publisher", "site", "ca"), "can")
    assert {**able, "kek": "not-shown"} == duties
    assert "the token is empty\n" == run("token", "audit", str(uri)).out
    assert "right" == json.loads(run("token", "list", str(uri), "--json").out)["tokens"][0]["pin"]
    assert said.out == run("token", "probe", str(uri), "--json").out


def test_a_tpm_that_lets_keys_out_is_found(
    run: Run, uri: TpmUri, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measure can fail: where keys are made that may leave, no duty is allowed."""
    right, fixed = tpm_token.key_template, Attributes.FIXED_TPM | Attributes.FIXED_PARENT
    monkeypatch.setattr(
        tpm_probe,
        "key_template",
        lambda role, curve: replace(
            made := right(role, curve), attributes=made.attributes & ~fixed
        ),
    )
    report = json.loads(run("token", "probe", str(uri), "--json").out)
    answers = {item["id"]: item["answer"] for item in report["measured"]}
    assert "no" == answers["enforces.extractable"]
    assert {"cannot"} == {fit["verdict"] for fit in report["fitness"]}
