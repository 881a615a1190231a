"""`custody token` on real tokens: what it measures, and that it leaves nothing behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute

from custody.errors import Refused, Unavailable
from custody.keys.api import KeyRole
from custody.keys.pkcs11 import Pkcs11Token, open_token
from custody.keys.pkcs11_audit import list_tokens
from custody.keys.pkcs11_probe import probe
from custody.keys.probe import MEASURES, ProbeReport
from custody.keys.profiles import profile_named
from custody.keys.uri import Pkcs11Uri
from tests.cli.transcript import run
from tests.device.conftest import USER_PIN, Bench

#: What our duties need, as SoftHSM's configuration names it.
RICH = (
    "CKM_EC_KEY_PAIR_GEN",
    "CKM_ECDSA",
    "CKM_ECDH1_DERIVE",
    "CKM_RSA_PKCS_KEY_PAIR_GEN",
    "CKM_RSA_PKCS_OAEP",
    "CKM_AES_KEY_GEN",
    "CKM_AES_KEY_WRAP",
    "CKM_AES_KEY_WRAP_PAD",
)


def narrow(bench: Bench, *taken: str) -> None:
    """Make the tokens of a store poor: they offer what is rich but for some mechanisms."""
    config = bench.store.config
    text = config.read_text()
    assert "slots.mechanisms = ALL" in text
    left = ",".join(name for name in RICH if name not in taken)
    config.write_text(text.replace("slots.mechanisms = ALL", f"slots.mechanisms = {left}"))


def answers(report: ProbeReport) -> dict[str, str]:
    """Return what was answered, by id."""
    return {item.id: item.answer for item in report.measured}


def verdicts(report: ProbeReport) -> dict[str, str]:
    """Return the verdict on each duty."""
    return {fit.duty: fit.verdict for fit in report.fitness}


def test_softhsm_is_as_its_profile_says(uri: Pkcs11Uri, token: Pkcs11Token) -> None:
    """Every measure is made, all that the profile claims is found, and the token stays empty."""
    report = probe(uri)
    assert list(MEASURES) == [item.id for item in report.measured]
    assert ("softhsm2", "software", ()) == (report.profile, report.token_class, report.differences)
    claimed = {claim.id: claim.answer for claim in profile_named("softhsm2").behaviour}
    assert claimed == {id_: answers(report)[id_] for id_ in claimed}
    assert len(claimed) > 30
    assert {"can"} == set(verdicts(report).values())
    with token._connection.login() as session:
        assert [] == list(session.get_objects({Attribute.TOKEN: True}))


@pytest.mark.parametrize(
    ("taken", "lost", "hit"),
    [
        ("CKM_ECDH1_DERIVE", ("ecdh.raw", "ecdh.der", "ecdh.p384"), set()),
        ("CKM_AES_KEY_WRAP_PAD", ("kwp", "kwp.length", "template.kek"), {"kek"}),
        ("CKM_ECDSA", ("ecdsa.digest",), {"officer", "publisher", "site", "ca"}),
        ("CKM_RSA_PKCS_OAEP", ("oaep.sha1",), set()),
    ],
)
def test_a_poor_token_is_told_what_it_lacks(
    bench: Bench, taken: str, lost: tuple[str, ...], hit: set[str]
) -> None:
    """With one mechanism taken away exactly the duties that need it are lost, and it is said."""
    narrow(bench, taken)
    report = probe(bench.token("poor"))
    assert len(RICH) - 1 == len(report.mechanisms)
    assert set(lost) <= {id_ for id_, answer in answers(report).items() if answer == "no"}
    assert hit == {duty for duty, verdict in verdicts(report).items() if verdict == "cannot"}
    different = {item.id for item in report.differences}
    expected = {claim.id for claim in profile_named("softhsm2").behaviour if claim.answer == "yes"}
    assert set(lost) & expected <= different
    offered = taken.removeprefix("CKM_")
    assert (f"mechanism.{offered}" in different) == (
        offered in profile_named("softhsm2").mechanisms
    )


def test_a_token_that_does_not_agree_is_an_officer_s_by_rsa(bench: Bench) -> None:
    """Without a curve to agree on the token decrypts, by the hash that it has."""
    narrow(bench, "CKM_ECDH1_DERIVE")
    report = probe(bench.token("rsa"))
    (officer,) = (fit for fit in report.fitness if fit.duty == "officer")
    assert ("can", MEASURES["kept.oaep-sha1"]) == (officer.verdict, officer.because[-1])
    assert "no" == answers(report)["kept.oaep-sha256"]


def test_a_token_that_neither_agrees_nor_decrypts_is_nobody_s(bench: Bench) -> None:
    """Who can open no share is no officer, and it is said what he lacks."""
    narrow(bench, "CKM_ECDH1_DERIVE", "CKM_RSA_PKCS_OAEP")
    found = verdicts(probe(bench.token("neither")))
    assert {"officer", "publisher", "site"} == {
        duty for duty, said in found.items() if said == "cannot"
    }


@pytest.mark.parametrize(
    ("taken", "role"),
    [("CKM_ECDH1_DERIVE", KeyRole.SHARE), ("CKM_ECDSA", KeyRole.SIGN), ("CKM_ECDSA", KeyRole.CA)],
)
def test_a_poor_token_gets_no_key_that_it_cannot_use(
    bench: Bench, taken: str, role: KeyRole
) -> None:
    """No key is made for what a token does not offer: an authority's could not be destroyed."""
    narrow(bench, taken)
    with open_token(bench.token("poor")) as token:
        with pytest.raises(Unavailable, match=f"does not offer {taken.removeprefix('CKM_')}"):
            token.make(role, "alice", ec.SECP256R1())
        assert () == token.keys()


def test_a_wrong_pin_is_tried_once(uri: Pkcs11Uri) -> None:
    """A probe with a wrong PIN ends at the first login; no child process tries it again."""
    asked: list[str] = []

    def reader(prompt: str, /) -> bytearray:
        asked.append(prompt)
        return bytearray(b"000000")

    bare = Pkcs11Uri(token=uri.token, serial=uri.serial, module_name=uri.module_name)
    with pytest.raises(Refused) as caught:
        probe(bare, pin=reader, begun=lambda: asked.append("begun"))
    assert ("token.pin", 1) == (caught.value.check, len(asked))


def test_keys_are_spoken_of_when_the_pin_was_taken(uri: Pkcs11Uri) -> None:
    """Nothing is said to be made in a token that is not there, or before it took the PIN."""
    heard: list[str] = []
    bare = Pkcs11Uri(token=uri.token, serial=uri.serial, module_name=uri.module_name)

    def reader(_: str, /) -> bytearray:
        heard.append("asked")
        return bytearray(USER_PIN)

    with pytest.raises(Unavailable):
        probe(replace(bare, token="nobody"), pin=reader, begun=lambda: heard.append("begun"))
    assert [] == heard
    probe(bare, pin=reader, begun=lambda: heard.append("begun"))
    assert ["asked", "begun"] == heard


def test_tokens_are_listed_without_a_pin(bench: Bench) -> None:
    """Each token is named by a URI that opens it; a URI narrows the list; a low count shows."""
    uris = [bench.token(label) for label in ("alice", "bob")]
    seen, silent = list_tokens(Pkcs11Uri(module_name="softhsm2"))
    assert ((), ["alice", "bob"]) == (silent, sorted(token.label for token in seen))
    assert {uri.serial for uri in uris} == {token.serial for token in seen}
    bare = Pkcs11Uri(token="bob", module_name="softhsm2")
    with (
        open_token(bare, pin=lambda _: bytearray(b"000000")) as token,
        pytest.raises(Refused),
    ):
        token.keys()
    (bob,), _ = list_tokens(bare)
    assert ("low", "softhsm2", "software", False) == (
        bob.pin,
        bob.profile,
        bob.token_class,
        bob.pinpad,
    )
    with pytest.raises(Unavailable, match="not installed"):
        list_tokens(Pkcs11Uri(module_name="luna"))


def test_the_command_writes_the_same_report_twice(
    uri: Pkcs11Uri,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`--out` and `--json` are the same bytes at every run, and a report is never overwritten."""
    out = tmp_path / "alice.json"
    words = ("token", "probe", str(uri))
    said = run(*words, "--out", str(out), capsys=capsys, monkeypatch=monkeypatch)
    assert (0, True) == (said.code, "this token can be an officer's, because it\n" in said.out)
    again = run(*words, "--json", capsys=capsys, monkeypatch=monkeypatch)
    assert (0, out.read_text()) == (again.code, again.out)
    assert "custody/token-probe/v1" == json.loads(again.out)["kind"]
    third = run(*words, "--out", str(out), capsys=capsys, monkeypatch=monkeypatch)
    assert (1, True) == (third.code, "never overwritten" in third.err)
