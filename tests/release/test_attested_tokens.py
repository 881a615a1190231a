"""A YubiKey's attestation, from the officer's certificates to the policy's text, as typed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from custody.crypto.certificates import read_csr
from custody.crypto.signature import load_ec_public
from custody.encoding import utc_now
from custody.formats.admission import Admission
from custody.formats.envelope import decode_statement
from custody.formats.policy import Policy
from tests.release.waiting import DAY, type_late
from tests.release.world import Actor, World, founded
from tests.unit.yubikey import YubiKey

YUBIKEY = YubiKey()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An environment."""
    with founded(tmp_path_factory.mktemp("attested")) as made:
        yield made


def pem(path: Path, *ders: bytes) -> str:
    """Write certificates as other programs do."""
    held = [x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders]
    path.write_bytes(b"".join(held))
    return str(path)


def offer(actor: Actor, out: str, *more: str) -> Admission:
    """Have an officer offer his keys."""
    words = ("--token", str(actor.uri), "--invitation", "start/invitation.json", "--out", out)
    actor.run("officer", "enroll", actor.name, *words, *more)
    return decode_statement(Admission, (actor.world / out).read_bytes()).predicate


def test_an_attested_key_is_listed_as_its_vendors(world: World) -> None:
    """Enrolled, attested, enrolled again with the certificates; admitted by a root; proposed."""
    actor, ida = world.hire("yara", "officer"), world["ida"]
    said = offer(actor, "yara.dsse")
    signing = YUBIKEY.attest(load_ec_public(read_csr(said.csr).spki), "9c")
    brought = [
        word
        for name, der in (("9c", signing), ("f9", YUBIKEY.f9))
        for word in ("--attestation", pem(world.folder / f"{name}.pem", der))
    ]
    offer(actor, "yara-attested.dsse", *brought)
    root = pem(world.folder / "root.pem", YUBIKEY.root)
    mallory = pem(world.folder / "mallory.pem", YubiKey().root)
    admit = ("custodian", "admit", "yara-attested.dsse", "--out", "env", "--yes")
    assert "not verified" in ida.run(*admit).stderr
    refused = ida.run(*admit, "--attestation-root", mallory, code=1).stderr
    assert "no path leads to a root that is pinned" in refused
    said_so = ida.run(*admit, "--attestation-root", root).stderr
    assert "in slot 9c of YubiKey 13078782, firmware 5.2.6, PIN always, touch cached" in said_so
    draft = world.folder / "draft.toml"
    both = draft.read_text().replace('["software"]', '["software", "vendor-attested"]', 1)
    (world.folder / "draft-2.toml").write_text(both)
    ida.run(
        *("custodian", "policy", "propose", "draft-2.toml", "--admission", "yara-attested.dsse"),
        *("--previous", "env/policy-1.dsse", "--out", "policy-2.dsse"),
    )
    policy = decode_statement(Policy, (world.folder / "policy-2.dsse").read_bytes()).predicate
    (yara,) = (person for person in policy.principals if person.id == "yara")
    assert ["vendor-attested", "software"] == [key.token_class for key in yara.keys]


def test_an_attestation_that_ended_at_the_question_admits_nobody(world: World) -> None:
    """The vendor's certificate was good when it was shown, and is not when ida says yes."""
    actor, ida = world.hire("yves", "officer"), world["ida"]
    said = offer(actor, "yves.dsse")
    signing = YUBIKEY.attest(load_ec_public(read_csr(said.csr).spki), "9c")
    ending = YUBIKEY.certified(
        "Yubico PIV Attestation", YUBIKEY._f9.public_key(), until=utc_now() + timedelta(days=1)
    )
    brought = ("--attestation", pem(world.folder / "yves.pem", signing, ending))
    offer(actor, "yves-attested.dsse", *brought)
    root = pem(world.folder / "yves-root.pem", YUBIKEY.root)
    admit = ("custodian", "admit", "yves-attested.dsse", "--attestation-root", root, "--out")
    done = type_late(ida, *admit, "admitted", waits=2 * DAY)
    assert "in slot 9c of YubiKey" in done.shown.partition("admit them? [y/N]: y")[0], done.shown
    assert "custody: error:" in done.after
    assert (1, []) == (done.code, list((world.folder / "admitted").glob("*")))
    soon = type_late(ida, *admit, "admitted", waits=1)
    assert 0 == soon.code, soon.shown
