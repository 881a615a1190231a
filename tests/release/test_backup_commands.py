"""Backups by the command line, with no word on paper: shares are sealed to custodians' tokens.

One machine holds the ceremony: the custodians' tokens and a site's are in one store.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from shamir_mnemonic.wordlist import WORDLIST

from custody.encoding import utc_now
from custody.errors import Unavailable
from custody.formats.envelope import decode_statement
from custody.formats.policy import Policy
from custody.keys.uri import Pkcs11Uri
from custody.lab import swtpm
from custody.lab.softhsm import TokenStore, create_store, find_library, init_token, write_pin_file
from custody.ops.bundle import Bundle
from tests.release.world import CUSTODIANS, DRAFT, PIN, Actor, World

SO_PIN = b"31415926"
#: All words of which shares are made.
KNOWN = frozenset(WORDLIST)


class Ceremony(World):
    """Custodians at one machine."""

    def hire(self, name: str, role: str, *, token: str | None = None) -> Actor:
        """Give a custodian a token in the machine's store, everybody else one of his own."""
        if role != "custodian":
            return super().hire(name, role, token=token)
        return Actor(name, role, self.folder, self.box, self.token(name))

    @property
    def box(self) -> TokenStore:
        """The machine's store."""
        return create_store(self.folder / "box")

    def token(self, label: str) -> Pkcs11Uri:
        """Initialise a token in it."""
        uri = init_token(self.box, label, so_pin=SO_PIN, user_pin=PIN)
        pin = write_pin_file(self.folder / f"{label}.pin", PIN)
        return replace(uri, pin_source=str(pin))

    def begin(self) -> None:
        """Make keys, a recovery key whose shares are sealed, and policy version 1."""
        ida = self["ida"]
        words = ("--environment", "production", "--token", str(ida.uri), "--share-key", "P256")
        init = ("custodian", "init", "ida", *words, "--authority", "--recoverable")
        ida.run(*init, "--out", "start")
        for actor in self.actors.values():
            if actor is not ida:
                actor.enroll(*(("--share-key", "P384") if actor.role == "custodian" else ()))
        (self.folder / "start/ida.admission.dsse").rename(self.folder / "admissions/ida.dsse")
        for name in ("authority.cer", "authority.crl"):
            (self.folder / "env" / name).write_bytes((self.folder / "start" / name).read_bytes())
        admissions = [f"admissions/{name}.dsse" for name in self.actors]
        ida.run("custodian", "admit", *admissions, "--out", "env", "--yes")
        sealed = [word for name in CUSTODIANS for word in ("--seal-to", f"admissions/{name}.dsse")]
        made = ("custodian", "recovery", "make", "production", "--among", "2 of (ida, cas, cyd)")
        ida.run(*made, *sealed, "--sealed-out", "shares", "--out", "recovery-1.dsse", "--yes")
        draft = DRAFT.format(year=utc_now().year + 1)
        (self.folder / "draft.toml").write_text(f'recovery = "recovery-1.dsse"\n{draft}')
        offered = [word for path in admissions for word in ("--admission", path)]
        policy = ("custodian", "policy")
        ida.run(*policy, "propose", "draft.toml", *offered, "--out", "policy-1.dsse")
        self["cas"].run(*policy, "sign", "policy-1.dsse", "--yes", "--out", "env/policy-1.dsse")
        digest = decode_statement(Policy, (self.folder / "env/policy-1.dsse").read_bytes()).digest
        ida.run("custodian", "trust", digest)

    def shares(self, *names: str) -> tuple[str, ...]:
        """Name sealed shares and the tokens that open them."""
        return tuple(
            word
            for name in names
            for word in ("--sealed", f"shares/{name}.share.json", "--by", str(self[name].uri))
        )

    def trust(self, uri: Pkcs11Uri) -> str:
        """Have a token's security officer trust the wrapping key."""
        reading, writing = os.pipe()
        os.write(writing, SO_PIN)
        os.close(writing)
        words = ("custodian", "recovery", "trust-key", "wrapping-1.dsse", "--token", str(uri))
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "CUSTODY_HOME": str(self["ida"].home),
            "CUSTODY_ENV": str(self.folder / "env"),
            "SOFTHSM2_CONF": str(self.folder / "box/softhsm2.conf"),
        }
        done = subprocess.run(
            [sys.executable, "-m", "custody", *words, "--so-pin-fd", str(reading), "--yes"],
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.folder,
            pass_fds=(reading,),
            timeout=60,
            check=False,
        )
        os.close(reading)
        assert 0 == done.returncode, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def ceremony(tmp_path_factory: pytest.TempPathFactory) -> Ceremony:
    """An environment with a recovery key on no paper."""
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    if not swtpm.available():
        pytest.skip("swtpm is not installed")
    folder = tmp_path_factory.mktemp("ceremony")
    machine = swtpm.Swtpm(folder / "tpm", vendor=folder / "vendor")
    machine.manufacture()
    (folder / "vendor.pem").write_bytes(machine.vendor_root.read_bytes())
    made = Ceremony(folder)
    made.begin()
    words = made.shares("ida", "cas")
    made["ida"].run(
        *("custodian", "recovery", "wrapping-key", "recovery-1.dsse", *words),
        *("--out", "wrapping-1.dsse"),
    )
    return made


def test_a_holder_checks_his_sealed_share(ceremony: Ceremony) -> None:
    """A sealed share is said to be good by its holder's token, and opens by no other."""
    check = ("custodian", "check-share", "recovery-1.dsse")
    said = ceremony["cyd"].run(*check, *ceremony.shares("cyd"))
    assert "good: group 1, share 3, handed to cyd\n" == said.stdout
    wrong = ("--sealed", "shares/cyd.share.json", "--by", str(ceremony["ida"].uri))
    assert "another public key" in ceremony["ida"].run(*check, *wrong, code=1).stderr
    assert "one --by for each" in ceremony["ida"].run(*check, *wrong[:2], code=2).stderr


def test_the_glass_is_broken_by_sealed_shares(ceremony: Ceremony) -> None:
    """Two custodians' tokens and a reason, no word typed: the bundle is sealed anew and signed."""
    cas, pub, folder = ceremony["cas"], ceremony["pub"], ceremony.folder
    digest = ceremony.pin
    for actor in (cas, pub):
        actor.run(actor.role, "trust", digest)
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_bytes(b"weights" * 1000)
    seal = ("publisher", "seal", "model", "--name", "tiny", "--release", "1", "--out", "bundle")
    pub.run(*seal)
    broken = (
        *("custodian", "break-glass", "bundle", "--record", "recovery-1.dsse", "--yes"),
        *("--reason", "the office burnt"),
    )
    # A share of nobody's making, and one token for another's share, open nothing.
    bent = json.loads((folder / "shares/cyd.share.json").read_bytes())
    bent["member"] = 0
    (folder / "bent.share.json").write_text(json.dumps(bent, sort_keys=True, separators=(",", ":")))
    by = ("--by", str(ceremony["cyd"].uri))
    swapped = ("--sealed", "bent.share.json", *by, *ceremony.shares("cas"))
    refused = cas.run(*broken, *swapped, "--out", "rewrapped", code=1)
    assert "the slot does not open with this key" in refused.stderr
    stranger = ("--sealed", "shares/ida.share.json", *by, *ceremony.shares("cas"))
    refused = cas.run(*broken, *stranger, "--out", "rewrapped", code=1)
    assert "another public key" in refused.stderr
    assert not (folder / "rewrapped").exists()
    said = cas.run(*broken, *ceremony.shares("cas", "cyd"), "--out", "rewrapped", "--json")
    shares = json.loads(said.stdout)["shares"]
    assert ["group 1, share 2 (cas)", "group 1, share 3 (cyd)"] == shares
    pub.run("publisher", "rewrap", "bundle", "rewrapped", "--out", "again", "--yes")
    old, new = (Bundle.at(folder / name).statement for name in ("bundle", "again"))
    assert old.digest == new.predicate.core.replaces
    # To officers in force and to the recovery key, by new envelopes of the same key.
    recipients = [{slot.recipient for slot in m.predicate.envelope.slots} for m in (old, new)]
    assert recipients[0] == recipients[1]
    # Nobody named a suite: what opens every bundle is no weaker than the officers' keys.
    suites = {slot.purpose: slot.suite for slot in new.predicate.envelope.slots}
    assert "MLKEM1024_P384" == suites["share"] == suites["recovery"]
    assert old.predicate.envelope != new.predicate.envelope


def test_no_word_was_written_anywhere(ceremony: Ceremony) -> None:
    """Nothing in the folder of the ceremony, homes and tokens with it, holds words of a share."""
    files = [path for path in ceremony.folder.rglob("*") if path.is_file()]
    assert {f"{name}.share.json" for name in CUSTODIANS} == {
        path.name for path in (ceremony.folder / "shares").iterdir()
    }
    for path in files:
        words = path.read_bytes().decode("latin1").lower().split()
        runs = groupby(words, key=KNOWN.__contains__)
        # A share is 33 in a row; prose has some of them, each by itself.
        assert max((len([*run]) for known, run in runs if known), default=0) < 6, path


def test_a_sites_kek_comes_back_by_commands(ceremony: Ceremony) -> None:
    """Made, backed up, drilled, lost with its token and restored; a second time it is refused."""
    ida, site = ceremony["ida"], ceremony.token("site")
    made = ida.run("token", "make-kek", str(site), "--label", "site", "--recoverable", "--json")
    check = json.loads(made.stdout)["check"]
    backup = ("custodian", "backup", "wrapping-1.dsse", "--kek", check, "--token", str(site))
    refused = ida.run(*backup, "--out", "kek.dsse", code=1)
    assert "security officer has not trusted" in refused.stderr
    assert f"trusted by {site}\n" == ceremony.trust(site)
    ida.run(*backup, "--out", "kek.dsse")
    drill = ("custodian", "drill", "recovery-1.dsse", "--backup", "kek.dsse")
    said = ida.run(*drill, *ceremony.shares("cas", "cyd"))
    assert "comes back into another token" in said.stdout
    for folder in (ceremony.folder / "box/tokens").iterdir():
        if site.serial and site.serial.encode() in (folder / "token.object").read_bytes():
            shutil.rmtree(folder)
    assert "no token matches" in ida.run("token", "audit", str(site), code=3).stderr
    new = ceremony.token("new")
    restore = ("custodian", "restore", "kek.dsse", "--record", "recovery-1.dsse", "--yes")
    words = ("--token", str(new), *ceremony.shares("ida", "cyd"))
    view = json.loads(ida.run(*restore, *words, "--json").stdout)
    assert (check, "kek", "ida") == (view["check"], view["role"], view["signedBy"])
    assert "in the token already" in ida.run(*restore, *words, code=1).stderr
    assert "kek" in ida.run("token", "audit", str(new)).stdout


def test_an_authority_is_backed_up_and_drilled_by_commands(ceremony: Ceremony) -> None:
    """The authority's key of a custodian's own token, by one login; one kind of key at a time."""
    ida = ceremony["ida"]
    ceremony.trust(ida.uri)
    ida.run("custodian", "backup", "wrapping-1.dsse", "--authority", "--out", "ca.dsse")
    drill = ("custodian", "drill", "recovery-1.dsse", "--backup", "ca.dsse", "--json")
    said = json.loads(ida.run(*drill, *ceremony.shares("ida", "cas")).stdout)
    assert "pass" == {verdict["check"]: verdict["outcome"] for verdict in said}["drill.backup"]
    none = ida.run("custodian", "backup", "wrapping-1.dsse", "--out", "no.dsse", code=2)
    assert "one of --authority and --kek" in none.stderr


def test_a_colleague_goes_on_with_a_restored_authority(ceremony: Ceremony) -> None:
    """With the key in his token and its certificate and list in his home, another issues lists."""
    ida, cas = ceremony["ida"], ceremony["cas"]
    ceremony.trust(ida.uri)
    ida.run("custodian", "backup", "wrapping-1.dsse", "--authority", "--out", "moved.dsse")
    cas.run("custodian", "trust", ceremony.pin)
    restore = ("custodian", "restore", "moved.dsse", "--record", "recovery-1.dsse", "--yes")
    cas.run(*restore, "--token", str(cas.uri), *ceremony.shares("ida", "cyd"))
    for name in ("authority.cer", "authority.crl"):
        shutil.copy(ceremony.folder / "env" / name, cas.home / name)
    cas.run("custodian", "renew-crl", "--out", "env/authority-2.crl")
    assert (ceremony.folder / "env/authority-2.crl").exists()
