"""A vendor's attestation at a ceremony's table: real tokens, certificates of a YubiKey's shape."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from custody.crypto.signature import load_ec_public
from custody.encoding import sha256
from custody.errors import Unavailable
from custody.formats.envelope import decode_statement
from custody.formats.policy import Policy
from custody.formats.transcript import decode_transcript
from custody.lab.softhsm import create_store, find_library
from custody.ops.home import Home
from tests.device.test_probe import RICH
from tests.docs.terminal import Paper, enter, environment, write_program
from tests.release.test_ceremonies import FOLDER, PIN, STEPS, Desk
from tests.unit.yubikey import YubiKey

YUBIKEY = YubiKey()
ROOT = sha256(YUBIKEY.root).hex()
ATTESTED = f'roots = ["{ROOT}"]'
REQUIRED, ACCEPTED = (f'attestation = "{word}"; {ATTESTED}' for word in ("required", "accepted"))
#: Who gets what in which slot of an attesting token.
SLOTS = ("9c", "9d")
FILE = "alice.attestation.pem"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Give a table with a custodian's and an officer's token."""
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    made = Desk(tmp_path, create_store(tmp_path / "store"))
    made.bring("ida", "custodian")
    made.bring("alice", "officer")
    return made


def script(desk: Desk, attestation: str) -> None:
    """Write a script that says of alice's keys what a vendor has to attest."""
    desk.write(*STEPS[:2], f"{STEPS[2]}; {attestation}", *STEPS[3:])


def certificates(home: Path, *slots: str, yubikey: YubiKey = YUBIKEY) -> list[bytes]:
    """Have a YubiKey attest the keys of a home, in these slots, and bring what is above it."""
    identity = Home(home).identity()
    spkis = (identity.signing_spki, *(share.spki for share in identity.shares))
    leaves = [
        yubikey.attest(load_ec_public(spki), slot) for spki, slot in zip(spkis, slots, strict=False)
    ]
    return [*leaves, yubikey.f9, yubikey.root]


def lay(path: Path, ders: Sequence[bytes]) -> None:
    """Write certificates one after the other, as other programs do."""
    pems = (x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders)
    path.write_bytes(b"".join(pems))


def test_a_required_attestation_is_waited_for_and_judged_again(desk: Desk) -> None:
    """Lacking, forged or of one key it stops the step; whole it is on record and on the page."""
    script(desk, REQUIRED)
    shown = desk.run("custodian", "ceremony", "ceremony.toml", "--review").stdout
    assert f"; a vendor has to attest these keys, by the root {ROOT}" in shown
    table, home = desk.folder / FOLDER, desk.folder / "homes" / "alice"
    said = desk.hold(4)
    assert f"{FILE}: is not here yet, and the script requires that a vendor attests" in said
    assert "  share  " in said
    made = desk.objects("alice")
    assert ["invite", "enrol"] == [step.do for step in desk.steps()]
    for wrong, why in (
        (certificates(home, *SLOTS, yubikey=YubiKey()), "brings none of the roots"),
        ([*certificates(home, *SLOTS, yubikey=YubiKey()), YUBIKEY.root], "no path leads to a root"),
        (certificates(home, "9c"), "requires that a vendor attests every key"),
        (certificates(desk.folder / "homes" / "ida", "9c"), "attests a key that is not offered"),
        ([YUBIKEY.root], "no attestation of a key"),
    ):
        lay(table / FILE, wrong)
        refused = desk.hold(1)
        assert why in refused
        assert f"mend {FILE}" in refused
    (table / FILE).write_bytes(b"-----BEGIN CERTIFICATE-----\nx\n")
    assert "not PEM certificates" in desk.hold(1)
    assert (made, 2) == (desk.objects("alice"), len(desk.steps()))
    lay(table / FILE, certificates(home, *SLOTS))
    said = desk.hold()
    words = "YubiKey 13078782, firmware 5.2.6, PIN always, touch cached"
    assert f"is in slot 9c of {words}, by its vendor" in said
    assert f"is in slot 9d of {words}, by its vendor" in said
    assert made == desk.objects("alice")
    enrolled, admitted = desk.steps()[2], desk.steps()[4]
    assert [("9c", ROOT), ("9d", ROOT)] == sorted((x.slot, x.root) for x in enrolled.attested)
    assert enrolled.attested == admitted.attested
    assert {key.key_id for key in enrolled.keys} == {key.key for key in enrolled.attested}
    judged = desk.verify()
    assert "sound" in judged.splitlines()
    assert 4 == judged.count(f"of {words}")
    page = (table / "ceremony.html").read_text()
    assert "2 keys attested by the vendor" in page
    assert "<code>13078782</code>" in page
    # What was brought is in the admission: nothing else is needed to judge it again.
    (table / FILE).unlink()
    assert "sound" in desk.verify().splitlines()


def test_an_attestation_that_may_be_lacking_is_on_record_as_lacking(desk: Desk) -> None:
    """Nobody waits for it; the record, the page and the auditor say that there is none."""
    script(desk, ACCEPTED)
    said = desk.hold()
    assert 2 == said.count("is not attested by its vendor")
    assert () == desk.steps()[2].attested
    judged = desk.verify()
    assert "sound" in judged.splitlines()
    assert "no vendor attests these keys, and none has to" in judged
    assert "attested by the vendor" not in (desk.folder / FOLDER / "ceremony.html").read_text()


class Bringing(Paper):
    """Somebody at the table who brings certificates when his keys are there."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def agree(self, text: str) -> None:
        """Lay them into the folder before the question is answered."""
        if text.endswith("go on? [y/N]: "):
            found = certificates(self._desk.folder / "homes" / "alice", "9c")
            lay(self._desk.folder / FOLDER / FILE, found)


@pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid is not installed")
def test_people_at_the_table_are_asked_for_it(desk: Desk) -> None:
    """Keys are shown, and the step waits; of one attested key the other is told."""
    script(desk, ACCEPTED)
    write_program(desk.folder / "bin")
    command = f"custody custodian ceremony ceremony.toml --homes homes --out {FOLDER}"
    env = environment(desk.folder, desk.folder / "bin", {"TERM": "xterm", **desk.store.environment})
    shown = enter(command, directory=desk.folder, env=env, pin=PIN.decode(), paper=Bringing(desk))
    assert 0 == shown.code, shown.text
    assert f"{FOLDER}/{FILE}" in shown.text
    assert ["9c"] == [key.slot for key in desk.steps()[2].attested]
    assert 1 == shown.text.count("is not attested by its vendor")
    assert "sound" in desk.verify().splitlines()


def test_an_attestation_is_brought_with_an_admission(desk: Desk) -> None:
    """Who enrols at home brings it in his admission, and the step that admits him judges it."""
    admit = f'do = "admit"; by = "ida"; who = ["ida", "alice"]; files = ["bob.dsse"]; {REQUIRED}'
    desk.write(*STEPS[:4], admit)
    desk.hold(4)
    desk.bring("bob", "officer")
    uri = f"{desk.uris.pop('bob')}&pin-source={desk.folder}/bob.pin"
    words = ("--token", uri, "--invitation", f"{FOLDER}/invitation.json", "--home", "bob")
    enroll = ("officer", "enroll", "bob", *words, "--suite", "P256", "--out")
    desk.run(*enroll, f"{FOLDER}/bob.dsse")
    assert "bob brings no vendor's attestation, and the script requires one" in desk.hold(1)
    lay(desk.folder / "bob.pem", certificates(desk.folder / "bob", *SLOTS))
    (desk.folder / FOLDER / "bob.dsse").unlink()
    desk.run(*enroll, f"{FOLDER}/bob.dsse", "--attestation", "bob.pem")
    said = desk.hold()
    assert "is in slot 9c of YubiKey 13078782" in said
    assert list(SLOTS) == sorted(key.slot for key in desk.steps()[-1].attested)
    assert "sound" in desk.verify().splitlines()


def test_the_policy_of_the_table_lists_attested_keys_as_such(desk: Desk) -> None:
    """Those that the script has attested, and no others; the auditor holds it to that."""
    cast = {
        **dict.fromkeys(("cas", "cyd"), "custodian"),
        **dict.fromkeys(("erik", "esme", "ewan"), "enroller"),
        **dict.fromkeys(("sec1", "sec2", "sec3"), "officer"),
        "pub": "publisher",
    }
    del desk.uris["alice"]
    for name, role in cast.items():
        desk.bring(name, role)
    who = ", ".join(f'"{name}"' for name in desk.uris)
    desk.write(
        *STEPS[:2],
        f'do = "enrol"; who = "sec1"; {REQUIRED}',
        *(f'do = "enrol"; who = "{name}"' for name in cast if name != "sec1"),
        STEPS[3],
        f'do = "admit"; by = "ida"; who = [{who}]',
        'do = "policy"; draft = "draft.toml"; signers = ["ida", "cas"]',
    )
    desk.drafted()
    draft = desk.folder / "draft.toml"
    text = draft.read_text().replace(f'recovery = "{FOLDER}/recovery-1.dsse"\n', "")
    draft.write_text(text)
    refused = desk.hold(1)
    assert "takes no key that a vendor attests (vendor-attested), as the script has it" in refused
    assert not (desk.folder / FOLDER).exists()
    both = 'token_classes = ["software", "vendor-attested"]'
    draft.write_text(text.replace('token_classes = ["software"]', both))
    desk.hold(4)
    lay(
        desk.folder / FOLDER / "sec1.attestation.pem",
        certificates(desk.folder / "homes" / "sec1", *SLOTS),
    )
    desk.hold()
    made = (desk.folder / FOLDER / "policy-1.dsse").read_bytes()
    policy = decode_statement(Policy, made).predicate
    classes = {person.id: {key.token_class for key in person.keys} for person in policy.principals}
    assert {"vendor-attested"} == classes.pop("sec1")
    assert {"software"} == set().union(*classes.values())
    assert "sound" in desk.verify().splitlines()


def test_a_record_of_other_attestations_is_not_sound(desk: Desk) -> None:
    """A machine that writes another YubiKey into its record is found out by the admission."""
    script(desk, REQUIRED)
    desk.hold(4)
    lay(desk.folder / FOLDER / FILE, certificates(desk.folder / "homes" / "alice", *SLOTS))
    desk.hold()
    whole = desk.transcript.read_bytes()
    assert 4 == whole.count(b'"serial":13078782')
    desk.transcript.write_bytes(whole.replace(b'"serial":13078782', b'"serial":13078783'))
    assert decode_transcript(desk.transcript.read_bytes())
    judged = desk.verify(code=1)
    assert "says otherwise what a vendor attests" in judged
    assert "NOT SOUND" in judged


def test_a_host_whose_token_agrees_on_no_curve_is_refused_before_he_has_keys(desk: Desk) -> None:
    """No policy takes its RSA key: said where he enrols, with nothing left in his token."""
    del desk.uris["alice"]
    desk.bring("mainframe", "host")
    config = desk.store.config
    left = ",".join(name for name in RICH if name != "CKM_ECDH1_DERIVE")
    config.write_text(f"{config.read_text()}\nslots.mechanisms = {left}\n")
    desk.write(*STEPS[:2], 'do = "enrol"; who = "mainframe"')
    said = desk.hold(3)
    assert "a host opens by a key that agrees on a curve, not by RSA" in said
    assert ["invite", "enrol"] == [step.do for step in desk.steps()]
    assert [] == desk.objects("mainframe")
