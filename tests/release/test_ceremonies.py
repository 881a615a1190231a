"""Ceremonies with several people and real tokens, one after another at one table."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from custody.crypto.certificates import issue_authority
from custody.encoding import utc_now
from custody.errors import Unavailable
from custody.formats.envelope import decode_statement
from custody.formats.policy import Policy
from custody.formats.recovery import RecoveryRecord
from custody.formats.transcript import Closed, Done, decode_transcript, encode_transcript
from custody.lab.softhsm import TokenStore, create_store, find_library, init_token, write_pin_file
from custody.rules.ceremony import progress_of
from tests.release.world import DRAFT, REPOSITORY

PIN = b"271828"
SO_PIN = b"31415926"
FOLDER = "table"
#: Runs a command that dies at a certain write, or where a certain function is called.
KILLED = """
import os, signal, sys
from custody.cli import main
from custody.ops import ceremony_place, home, landing, transcript

def die(*_args, **_more):
    os.kill(os.getpid(), signal.SIGKILL)

limit, name = int(sys.argv.pop(1)), sys.argv.pop(1)
written = 0
replace = landing.replace_file

def counting(*args, **more):
    global written
    written += 1
    if written == limit:
        die()
    replace(*args, **more)

transcript.replace_file = ceremony_place.replace_file = counting
if name:
    setattr(home.Home, name, die)
main()
"""


#: Runs a command whose clock is off by so many seconds.
OFF = """
import sys
from datetime import timedelta
from custody.cli import _table, main
from custody.encoding import utc_now

off = timedelta(seconds=int(sys.argv.pop(1)))
_table.TerminalTable.now = lambda _self: utc_now() + off
main()
"""


#: Runs a command whose table waits for ages before the policy is signed.
LATE = """
from datetime import timedelta
from custody.cli import _table, main
from custody.encoding import utc_now

gone, confirm = [timedelta()], _table.TerminalTable.confirm
_table.TerminalTable.now = lambda _self: utc_now() + gone[0]

def waited(self, question):
    confirm(self, question)
    if question == "sign it?":
        gone[0] = timedelta(days=800)

_table.TerminalTable.confirm = waited
main()
"""


@dataclass
class Desk:
    """A table: several tokens in one store, a script, and the command line."""

    folder: Path
    store: TokenStore
    uris: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    officers: tuple[str, ...] = ()
    """Whose tokens' security officers come, with their PIN."""
    more: dict[str, str] = field(default_factory=dict)
    """What other token libraries read from the environment."""

    @property
    def environment(self) -> dict[str, str]:
        """What a command of this table knows."""
        path = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
        return {**path, **self.store.environment, **self.more}

    def bring(self, name: str, role: str, *, label: str | None = None) -> None:
        """Have somebody bring an empty token."""
        uri = init_token(self.store, label or name, so_pin=SO_PIN, user_pin=PIN)
        write_pin_file(self.folder / f"{name}.pin", PIN)
        self.uris[name], self.roles[name] = str(uri), role

    def write(self, *steps: str, holds: str = "", others: str = "refused") -> None:
        """Write the script: people are those who brought tokens; steps are lines of TOML."""
        lines = [
            'kind = "custody/ceremony/v1"',
            'environment = "production"',
            'title = "The first keys of production"',
            f'others = "{others}"',
        ]
        for name, uri in self.uris.items():
            lines += ["[[people]]", f'name = "{name}"', f'role = "{self.roles[name]}"']
            lines += [f'token = "{uri}"', *([f"holds = [{holds}]"] if holds else [])]
        for step in steps:
            lines += ["[[steps]]", *step.split("; ")]
        (self.folder / "ceremony.toml").write_text("\n".join(lines) + "\n")

    def run(
        self, *words: str, code: int = 0, program: str = "", typed: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run one command."""
        start = program or "from custody.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", start, *words],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.folder,
            input=typed,
            timeout=120,
            check=False,
        )
        assert code == done.returncode, done.stderr
        return done

    def hold(self, code: int = 0, program: str = "", *before: str) -> str:
        """Hold the ceremony, or go on with it; return what was said."""
        pins = [word for name in self.uris for word in ("--pin", f"{name}={name}.pin")]
        words = ("custodian", "ceremony", "ceremony.toml", "--homes", "homes", "--out", FOLDER)
        officers = [word for name in self.officers for word in ("--so-pin", f"{name}=so.pin")]
        done = self.run(*before, *words, *pins, *officers, "--yes", code=code, program=program)
        return done.stdout + done.stderr

    def drafted(self, *, trust: str = '["software"]') -> None:
        """Lay a draft beside the script, which names the recovery key of the table."""
        draft = DRAFT.format(year=utc_now().year + 1).replace("start/", f"{FOLDER}/")
        draft = draft.replace('["software"]\nvendor', f"{trust}\nvendor")
        recovery = f'recovery = "{FOLDER}/recovery-1.dsse"\n[thresholds]'
        (self.folder / "draft.toml").write_text(draft.replace("[thresholds]", recovery))
        (self.folder / "vendor.pem").write_bytes(_vendor_root())

    def verify(self, *more: str, code: int = 0) -> str:
        """Judge the ceremony's folder, by the digest of its last record unless another is given."""
        last = decode_transcript(self.transcript.read_bytes())[-1].digest
        pin = () if "--digest" in more else ("--digest", last)
        return self.run("auditor", "verify-ceremony", FOLDER, *pin, *more, code=code).stdout

    @property
    def transcript(self) -> Path:
        return self.folder / FOLDER / "transcript.jsonl"

    def steps(self) -> list[Done]:
        """Return the steps that were done."""
        lines = decode_transcript(self.transcript.read_bytes())
        return [x.record.event for x in lines if isinstance(x.record.event, Done)]

    def objects(self, name: str) -> list[str]:
        """Name what lies in somebody's token."""
        uri = f"{self.uris[name]}&pin-source={self.folder / name}.pin"
        shown = json.loads(self.run("token", "audit", uri, "--json").stdout)
        return sorted(f"{item['kind']} {item['label']}" for item in shown["objects"])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Give a table with no tokens on it."""
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    return Desk(tmp_path, create_store(tmp_path / "store"))


SEALED = ("ida", "cas", "cyd")
RECOVERY = (
    'do = "recovery"; by = "ida"; among = "2 of (ida, cas, cyd)"; seal_to = ["ida", "cas", "cyd"]'
)
BACKUPS = (
    'do = "wrapping-key"; by = "ida"; opened = ["ida", "cas"]',
    'do = "trust-key"; who = "ida"',
    'do = "trust-key"; who = "leo"',
    'do = "backup"; who = "leo"; by = "ida"; kek = "production kek"; file = "kek.dsse"',
    'do = "backup"; who = "ida"; by = "cas"; file = "authority.dsse"',
)
STEPS = (
    'do = "invite"; by = "ida"',
    'do = "enrol"; who = "ida"',
    'do = "enrol"; who = "alice"; suite = "P256"',
    'do = "authority"; by = "ida"; name = "production authority"',
    'do = "admit"; by = "ida"; who = ["ida", "alice"]',
)


@pytest.fixture
def pair(desk: Desk) -> Desk:
    """Give a table with a custodian and an officer, and a short script."""
    desk.bring("ida", "custodian")
    desk.bring("alice", "officer")
    desk.write(*STEPS)
    return desk


def _vendor_root() -> bytes:
    key, now = ec.generate_private_key(ec.SECP256R1()), utc_now()
    der = issue_authority(key, name="vendor", not_before=now, not_after=now + timedelta(days=3000))
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def test_a_whole_environment_is_made_at_one_table(desk: Desk) -> None:
    """Root, authority, log, KEK and recovery keys, the policy and backups: one script."""
    cast = {
        **dict.fromkeys(("ida", "cas", "cyd"), "custodian"),
        **dict.fromkeys(("erik", "esme", "ewan"), "enroller"),
        **dict.fromkeys(("sec1", "sec2", "sec3"), "officer"),
        "pub": "publisher",
        "leo": "log",
        "mainframe": "host",
    }
    for name, role in cast.items():
        desk.bring(name, role)
    who = ", ".join(f'"{name}"' for name in cast if name != "leo")
    desk.write(
        'do = "invite"; by = "ida"',
        *(f'do = "enrol"; who = "{name}"; suite = "P256"' for name in SEALED),
        *(f'do = "enrol"; who = "{name}"' for name in cast if name not in SEALED),
        'do = "authority"; by = "ida"; name = "production authority"; recoverable = true',
        'do = "log-key"; by = "leo"; origin = "log.example.com/models"',
        'do = "kek"; by = "leo"; label = "production kek"',
        f'do = "admit"; by = "ida"; who = [{who}]',
        RECOVERY,
        'do = "policy"; draft = "draft.toml"; signers = ["ida", "cas"]',
        *BACKUPS,
    )
    desk.drafted(trust='["software", "hsm-key"]')
    desk.officers = ("ida", "leo")
    write_pin_file(desk.folder / "so.pin", SO_PIN)
    desk.hold()
    table = desk.folder / FOLDER
    policy = decode_statement(Policy, (table / "policy-1.dsse").read_bytes())
    assert sorted(set(cast) - {"leo"}) == sorted(p.id for p in policy.predicate.principals)
    assert 2 == len(policy.envelope.signatures)
    assert (table / "log" / "checkpoint").is_file()
    uses = [key.use for step in desk.steps() for key in step.keys]
    assert ["ca", "kek", "log", "wrapping"] == sorted(set(uses) - {"sign", "share"})
    assert "sound" in desk.verify("--digest", policy.digest).splitlines()
    page = (table / "ceremony.html").read_text()
    assert policy.digest[:8] in page
    assert "software, not attested" in page
    assert "begun more than once" not in page
    # Everybody goes home with a home that the other commands take.
    home = ("--home", "homes/sec1", "--env", FOLDER)
    desk.run("officer", "trust", policy.digest, *home)
    # A host without a TPM too: its keys were made at the table, and the policy lists them.
    (host,) = policy.predicate.hosts
    assert ("mainframe", 2) == (host.id, len(host.keys))
    desk.run("host", "trust", policy.digest, "--home", "homes/mainframe", "--env", FOLDER)
    _drilled(desk)


def _drilled(desk: Desk) -> None:
    """What was backed up at the table comes back, by two custodians' tokens."""
    shares = [
        word
        for name in ("cas", "cyd")
        for word in (
            *("--sealed", f"{FOLDER}/recovery-1.{name}.share.json"),
            *("--by", f"{desk.uris[name]}&pin-source={desk.folder}/{name}.pin"),
        )
    ]
    backups = ("--backup", f"{FOLDER}/kek.dsse", "--backup", f"{FOLDER}/authority.dsse")
    where = ("--home", "homes/ida", "--env", FOLDER)
    shown = desk.run("custodian", "drill", f"{FOLDER}/recovery-1.dsse", *backups, *shares, *where)
    assert "NO " not in shown.stdout
    assert 2 == shown.stdout.count("check value")
    # The script names no suite: what opens every bundle is hybrid.
    record = (desk.folder / FOLDER / "recovery-1.dsse").read_bytes()
    assert "MLKEM1024_P384" == decode_statement(RecoveryRecord, record).predicate.suite


def test_a_wrong_pin_of_a_security_officer_is_asked_once_and_nothing_is_trusted(desk: Desk) -> None:
    """Trust and backups go on where they were; what was made before is not made again."""
    for name in SEALED:
        desk.bring(name, "custodian")
    for name in ("sec1", "sec2", "sec3"):
        desk.bring(name, "officer")
    for name in ("erik", "esme", "ewan"):
        desk.bring(name, "enroller")
    desk.bring("pub", "publisher")
    who = ", ".join(f'"{name}"' for name in desk.uris)
    desk.write(
        'do = "invite"; by = "ida"',
        *(f'do = "enrol"; who = "{name}"; suite = "P256"' for name in SEALED),
        *(f'do = "enrol"; who = "{name}"' for name in desk.uris if name not in SEALED),
        'do = "authority"; by = "ida"; name = "production authority"; recoverable = true',
        f'do = "admit"; by = "ida"; who = [{who}]',
        RECOVERY,
        'do = "policy"; draft = "draft.toml"; signers = ["ida", "cas"]',
        *(BACKUPS[0], BACKUPS[1], BACKUPS[4]),
    )
    desk.drafted()
    desk.officers = ("ida",)
    write_pin_file(desk.folder / "so.pin", PIN)
    assert "PIN" in desk.hold(1)
    done = [step.do for step in desk.steps()]
    assert "wrapping-key" == done[-1]
    assert "public recovery" not in desk.objects("ida")
    (desk.folder / "so.pin").write_bytes(SO_PIN + b"\n")
    desk.hold()
    assert [*done, "trust-key", "backup"] == [step.do for step in desk.steps()]
    assert {"public recovery", "secret recovery carrier"} < set(desk.objects("ida"))
    assert "sound" in desk.verify().splitlines()


def test_a_policy_is_signed_by_what_follows_once_the_table_agreed(desk: Desk) -> None:
    """Where everybody's certificates ended at the question no token signs; the ceremony goes on."""
    for name in SEALED:
        desk.bring(name, "custodian")
    for name in ("sec1", "sec2", "sec3"):
        desk.bring(name, "officer")
    for name in ("erik", "esme", "ewan"):
        desk.bring(name, "enroller")
    desk.bring("pub", "publisher")
    who = ", ".join(f'"{name}"' for name in desk.uris)
    desk.write(
        'do = "invite"; by = "ida"',
        *(f'do = "enrol"; who = "{name}"; suite = "P256"' for name in SEALED),
        *(f'do = "enrol"; who = "{name}"' for name in desk.uris if name not in SEALED),
        'do = "authority"; by = "ida"; name = "production authority"',
        f'do = "admit"; by = "ida"; who = [{who}]',
        RECOVERY,
        'do = "policy"; draft = "draft.toml"; signers = ["ida", "cas"]',
    )
    desk.drafted()
    assert "certificate" in desk.hold(1, LATE)
    assert "recovery" == desk.steps()[-1].do
    assert not (desk.folder / FOLDER / "policy-1.dsse").exists()
    desk.hold()
    data = (desk.folder / FOLDER / "policy-1.dsse").read_bytes()
    assert 2 == len(decode_statement(Policy, data).envelope.signatures)


SIGNED = 'do = "policy"; draft = "draft.toml"; signers = ["ida", "ivan"]'


@pytest.fixture
def unsound(desk: Desk) -> Desk:
    """A table whose draft lets one officer release alone."""
    desk.bring("ida", "custodian")
    desk.bring("ivan", "custodian")
    desk.bring("alice", "officer")
    draft = DRAFT.format(year=utc_now().year + 1).replace("start/", f"{FOLDER}/")
    (desk.folder / "draft.toml").write_text(draft.replace("2 of (sec1, sec2, sec3)", "alice"))
    (desk.folder / "vendor.pem").write_bytes(_vendor_root())
    return desk


def test_an_unsound_policy_is_refused_before_any_key_is_made(unsound: Desk) -> None:
    """A draft by which one officer would suffice stops the review, and the ceremony at its door."""
    admit = 'do = "admit"; by = "ida"; who = ["ida", "ivan", "alice"]'
    unsound.write(*STEPS[:2], 'do = "enrol"; who = "ivan"', *STEPS[2:4], admit, SIGNED)
    assert "satisfies the tree" in unsound.hold(1)
    review = ("custodian", "ceremony", "ceremony.toml", "--review")
    assert "satisfies the tree" in unsound.run(*review, code=1).stderr
    assert not (unsound.folder / FOLDER).exists()
    assert [] == unsound.objects("ida")
    (unsound.folder / "draft.toml").unlink()
    assert "draft.toml, beside the script" in unsound.hold(4)
    assert "its policy is not tried out" in unsound.run(*review).stdout


def test_an_unsound_policy_is_not_signed_at_the_table(unsound: Desk) -> None:
    """Where admissions are brought, only the policy's step can judge it: no token signs it."""
    admit = 'do = "admit"; by = "ida"; who = ["ida", "ivan", "alice"]; files = ["bob.dsse"]'
    unsound.write(*STEPS[:2], 'do = "enrol"; who = "ivan"', *STEPS[2:4], admit, SIGNED)
    unsound.hold(4)
    _bring_bob(unsound)
    assert "satisfies the tree" in unsound.hold(1)
    assert 6 == len(unsound.steps())
    assert not (unsound.folder / FOLDER / "policy-1.dsse").exists()


def test_a_pin_that_everybody_can_read_makes_no_key(pair: Desk) -> None:
    """A PIN file that others can read is refused before the token hears of it."""
    (pair.folder / "alice.pin").chmod(0o644)
    assert "can be reached by other users" in pair.hold(1)
    assert ["invite", "enrol"] == [step.do for step in pair.steps()]


def test_the_security_officers_pin_makes_no_key(pair: Desk) -> None:
    """The security officer's PIN in place of the user's is tried once, and nothing is made."""
    (pair.folder / "alice.pin").write_bytes(SO_PIN + b"\n")
    assert "PIN" in pair.hold(1)
    (pair.folder / "alice.pin").write_bytes(PIN + b"\n")
    assert [] == pair.objects("alice")


def test_every_write_of_a_ceremony_may_be_the_last(pair: Desk) -> None:
    """Killed at its first write, then its second and so on, a ceremony ends as if it never was."""
    said, kills = "", 0
    for limit in range(1, 60):
        done = subprocess.run(
            [
                *(sys.executable, "-c", KILLED, str(limit), ""),
                *("custodian", "ceremony", "ceremony.toml", "--homes", "homes", "--yes"),
                *("--out", FOLDER, "--pin", "ida=ida.pin", "--pin", "alice=alice.pin"),
            ],
            capture_output=True,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(REPOSITORY),
                **pair.store.environment,
            },
            cwd=pair.folder,
            timeout=60,
            check=False,
        )
        if done.returncode == 0:
            said = done.stdout
            break
        assert -signal.SIGKILL == done.returncode, done.stderr
        kills += 1
    assert kills > 5
    assert "held, and signed by everybody" in said
    assert "sound" in pair.verify().splitlines()
    assert ["private production alice share", "private production alice sign"] == [
        name for name in pair.objects("alice") if name.startswith("private")
    ]


def test_a_key_that_a_kill_left_is_listed_and_let_lie(pair: Desk) -> None:
    """A ceremony killed before it wrote a new key down goes on, and names what it left."""
    pair.hold(-signal.SIGKILL, KILLED, "0", "save_identity")
    pair.hold()
    assert "sound" in pair.verify().splitlines()
    assert 2 == pair.objects("ida").count("private production ida sign")
    enrolled = pair.steps()[1]
    assert ["production ida sign"] * 2 == [item.label for item in enrolled.found]
    page = (pair.folder / FOLDER / "ceremony.html").read_text()
    assert "begun more than once" in page


def test_what_a_token_holds_beside_what_is_expected_is_refused(pair: Desk) -> None:
    """A wrapping key that somebody put into a token beforehand stops the ceremony, by its name."""
    uri = f"{pair.uris['alice']}&pin-source={pair.folder}/alice.pin"
    pair.run("token", "make-kek", uri, "--label", "innocent")
    said = pair.hold(1)
    assert "token alice: holds what the script does not expect: secret 'innocent'" in said
    assert ["invite", "enrol"] == [step.do for step in pair.steps()]
    assert ["secret innocent"] == pair.objects("alice")


def test_a_label_in_the_script_lets_an_object_lie(pair: Desk) -> None:
    """What the published script lists is expected, and is in the transcript."""
    uri = f"{pair.uris['alice']}&pin-source={pair.folder}/alice.pin"
    pair.run("token", "make-kek", uri, "--label", "innocent")
    pair.write(*STEPS, holds='"innocent"')
    pair.hold()
    assert ["innocent"] == [item.label for item in pair.steps()[2].found]


def test_one_token_for_two_people_is_refused(desk: Desk) -> None:
    """Who brings somebody else's token enrols nothing in it, and signs nothing twice."""
    desk.bring("ida", "custodian")
    desk.bring("alice", "officer")
    desk.uris["alice"] = desk.uris["ida"]
    desk.write(*STEPS)
    assert "bring one token, serial" in desk.hold(1)
    assert not (desk.folder / FOLDER).exists()
    # A script that names tokens by less is found out when they are there.
    desk.uris = dict.fromkeys(desk.uris, "pkcs11:token=ida?module-name=softhsm2")
    desk.write(*STEPS)
    assert "is ida's token" in desk.hold(1)
    assert ["invite", "enrol"] == [step.do for step in desk.steps()]


def test_two_tokens_with_one_label_are_told_apart_or_refused(desk: Desk) -> None:
    """A label that two tokens have names neither; with serial numbers both work."""
    desk.bring("ida", "custodian", label="same")
    desk.bring("alice", "officer", label="same")
    named = dict(desk.uris)
    desk.uris = dict.fromkeys(named, "pkcs11:token=same?module-name=softhsm2")
    desk.write(*STEPS)
    said = desk.hold(1)
    assert "2 tokens match the key URI" in said
    assert "add serial=" in said
    assert not (desk.folder / FOLDER).exists()
    desk.uris = named
    assert all("serial=" in uri for uri in named.values())
    desk.write(*STEPS)
    desk.hold()
    assert "sound" in desk.verify().splitlines()


@pytest.mark.skipif(not shutil.which("softhsm2-util"), reason="softhsm2-util is not installed")
def test_a_token_whose_label_is_not_utf_8_is_named_by_its_serial(pair: Desk) -> None:
    """Bytes that are no words are shown with replacements; the serial number names the token."""
    words: list[str | bytes] = ["softhsm2-util", "--init-token", "--free", "--label", b"\xff\xfea"]
    pins = ("--so-pin", SO_PIN.decode(), "--pin", PIN.decode())
    subprocess.run([*words, *pins], env=pair.environment, capture_output=True, check=True)
    shown = json.loads(pair.run("token", "list", "pkcs11:?module-name=softhsm2", "--json").stdout)
    (odd,) = (token for token in shown["tokens"] if token["label"] == "\ufffd\ufffda")
    pair.uris["alice"] = f"pkcs11:serial={odd['serial']}?module-name=softhsm2"
    pair.write(*STEPS)
    pair.hold()
    assert "\ufffd\ufffda" == pair.steps()[2].tokens[0].label
    assert "sound" in pair.verify().splitlines()


def _stopped(pair: Desk) -> None:
    """Stop a ceremony before its last step: an admission that is to be brought is not there."""
    pair.write(*STEPS[:4], 'do = "admit"; by = "ida"; who = ["ida"]; files = ["bob.dsse"]')
    said = pair.hold(4)
    assert "bob.dsse" in said
    assert 4 == len(pair.steps())


def _bring_bob(desk: Desk) -> None:
    """Have Bob make his keys at home, and his admission brought."""
    desk.bring("bob", "officer")
    uri = f"{desk.uris.pop('bob')}&pin-source={desk.folder}/bob.pin"
    words = ("--token", uri, "--invitation", f"{FOLDER}/invitation.json", "--home", "bob")
    desk.run("officer", "enroll", "bob", *words, "--out", f"{FOLDER}/bob.dsse")


def test_an_admission_may_be_brought_to_the_table(pair: Desk) -> None:
    """A ceremony waits for the admission of somebody who made his keys at home."""
    _stopped(pair)
    _bring_bob(pair)
    pair.hold()
    assert "sound" in pair.verify().splitlines()
    assert [*(pair.folder / FOLDER).glob("bob.sign-*.cer")]
    assert any("bob is admitted as officer" in line for line in pair.steps()[-1].said)


def test_a_transcript_that_was_edited_is_not_gone_on_with(pair: Desk) -> None:
    """One word changed in a transcript stops the ceremony, and the auditor."""
    _stopped(pair)
    whole = pair.transcript.read_bytes()
    pair.transcript.write_bytes(whole.replace(b"not attested by", b"attested by   "))
    assert "follows another one" in pair.hold(1)
    assert "NOT SOUND" in pair.verify(code=1)


def test_a_ceremony_is_not_called_sound_without_a_pin(pair: Desk) -> None:
    """What lies in a folder agrees with itself, whoever made it: a person's digest lacks."""
    pair.write(*STEPS)
    pair.hold()
    words = ("auditor", "verify-ceremony", FOLDER)
    done = pair.run(*words, code=4)
    assert "sound" not in done.stdout.lower().split()
    assert "custody: missing: the digest that people wrote down" in done.stderr
    assert json.loads(pair.run(*words, "--json", code=4).stdout)["sound"] is False
    pair.run(*words, "--out", "page.html", code=4)
    assert "Its files agree" in (pair.folder / "page.html").read_text()
    assert "sound" in pair.verify().splitlines()


def test_a_transcript_that_was_cut_starts_no_second_history(pair: Desk) -> None:
    """A step cut off is done again; then the key it made lies in the token, and is not expected."""
    _stopped(pair)
    lines = decode_transcript(pair.transcript.read_bytes())
    pair.transcript.write_bytes(encode_transcript(lines[:3]))
    said = pair.hold(1)
    assert "holds what the script does not expect: private 'production authority'" in said


def test_an_officer_whose_token_only_decrypts_is_enrolled_at_once(pair: Desk) -> None:
    """A share key of RSA answers its challenge at the table, and is in the transcript."""
    steps = [step.replace('"P256"', '"RSA2048_OAEP_SHA1"') for step in STEPS]
    pair.write(*steps)
    pair.hold()
    assert "sound" in pair.verify().splitlines()
    enrolled = pair.steps()[2]
    assert ["sign", "share"] == [key.use for key in enrolled.keys]
    assert "its share key only decrypts, and has answered a challenge" in enrolled.said
    assert "private production alice share" in pair.objects("alice")


def test_another_script_does_not_go_on_with_a_ceremony(pair: Desk) -> None:
    """A script that was changed after the ceremony began is refused."""
    _stopped(pair)
    script = pair.folder / "ceremony.toml"
    script.write_text(script.read_text() + "\n")
    assert "a record is of another script" in pair.hold(1)


@pytest.mark.parametrize(("first", "then"), [("0", "-3600"), ("3600", "0")])
def test_a_clock_that_went_back_does_not_go_on_with_a_ceremony(
    pair: Desk, first: str, then: str
) -> None:
    """Set back between two runs, or set right after a run in the future: no step is begun."""
    pair.write(*STEPS[:4], 'do = "admit"; by = "ida"; who = ["ida"]; files = ["bob.dsse"]')
    pair.hold(4, OFF, first)
    before = pair.transcript.read_bytes()
    said = pair.hold(1, OFF, then)
    assert "this machine's clock went back since the last record" in said
    assert "another ceremony" in said
    assert before == pair.transcript.read_bytes()


def test_a_transcript_cut_before_its_last_step_is_not_sound_beside_what_it_wrote(
    pair: Desk,
) -> None:
    """What a step published outlives the record of it in no auditor's eyes."""
    pair.hold()
    lines = decode_transcript(pair.transcript.read_bytes())
    pair.transcript.write_bytes(encode_transcript(lines[:7]))
    said = pair.verify(code=1)
    assert "NOT SOUND" in said
    assert "it was not closed" in said
    assert "the steps that write them are not on record: authority.cer, authority.crl" in said


def test_a_folder_that_is_no_ceremonys_is_told_what_one_holds(pair: Desk) -> None:
    """The environment's folder, or a home, is not what a ceremony leaves: what that is, is said."""
    said = pair.run("auditor", "verify-ceremony", ".", code=3).stderr
    assert "no ceremony's folder: transcript.jsonl not here" in said
    assert "what the steps wrote" in said


def test_a_file_that_was_changed_is_not_gone_on_with(pair: Desk) -> None:
    """An admission that was replaced between two runs is missed."""
    _stopped(pair)
    (pair.folder / FOLDER / "alice.admission.dsse").write_bytes(b"{}")
    assert "missing or changed: alice.admission.dsse" in pair.hold(1)


def test_a_token_that_was_replaced_is_refused(pair: Desk) -> None:
    """A token of the same label that comes back with another serial number is another one."""
    pair.uris["ida"] = "pkcs11:token=ida?module-name=softhsm2"
    _stopped(pair)
    for token in (pair.folder / "store" / "tokens").iterdir():
        shutil.rmtree(token)
    init_token(pair.store, "ida", so_pin=SO_PIN, user_pin=PIN)
    (pair.folder / FOLDER / "bob.dsse").write_bytes(
        (pair.folder / FOLDER / "alice.admission.dsse").read_bytes()
    )
    assert "is not the token that ida began with" in pair.hold(1)


def test_a_ceremony_that_is_over_is_not_held_again(pair: Desk) -> None:
    """A folder of a ceremony that everybody signed is never overwritten."""
    pair.hold()
    before = pair.transcript.read_bytes()
    assert "already there; it is never overwritten" in pair.hold(1)
    assert before == pair.transcript.read_bytes()


def test_a_page_that_is_missing_is_written_again(pair: Desk) -> None:
    """Killed after the last signature, nothing but the page is left to be made."""
    pair.hold()
    page = pair.folder / FOLDER / "ceremony.html"
    whole = page.read_bytes()
    page.unlink()
    pair.hold()
    assert whole == page.read_bytes()


def test_a_wrong_pin_is_asked_once_and_the_ceremony_goes_on(pair: Desk) -> None:
    """A PIN that is wrong stops the step; the same command goes on, with no key made twice."""
    write_pin_file(pair.folder / "wrong.pin", b"999999")
    (pair.folder / "alice.pin").rename(pair.folder / "right.pin")
    (pair.folder / "wrong.pin").rename(pair.folder / "alice.pin")
    assert "PIN" in pair.hold(1)
    assert ["invite", "enrol"] == [step.do for step in pair.steps()]
    (pair.folder / "alice.pin").unlink()
    (pair.folder / "right.pin").rename(pair.folder / "alice.pin")
    pair.hold()
    assert "sound" in pair.verify().splitlines()


def test_a_script_is_shown_before_it_is_held(pair: Desk) -> None:
    """--review says who comes and what is done, asks for no token and makes nothing."""
    before = sorted(pair.folder.rglob("*"))
    shown = pair.run("custodian", "ceremony", "ceremony.toml", "--review").stdout
    assert "alice, officer: pkcs11:token=alice" in shown
    assert "5 ida admits ida, alice" in shown
    assert before == sorted(pair.folder.rglob("*"))


def test_nobody_there_to_ask_holds_nothing(pair: Desk) -> None:
    """Without a terminal and without --yes nothing is begun."""
    words = ("--homes", "homes", "--out", FOLDER)
    said = pair.run("custodian", "ceremony", "ceremony.toml", *words, code=1).stderr
    assert "nobody is there to ask" in said
    assert not (pair.folder / FOLDER).exists()


def test_beginning_again_keeps_keys_and_name(desk: Desk) -> None:
    """A second invitation is a second ceremony, as sound; by another name it is refused."""
    desk.bring("ida", "custodian")
    uri = f"{desk.uris['ida']}&pin-source={desk.folder}/ida.pin"
    init = ("custodian", "init", "ida", "--environment", "production", "--token", uri)
    desk.run(*init, "--home", "home", "--display", "Ida of Inverness", "--out", "first")
    desk.run(*init, "--home", "home", "--out", FOLDER)
    assert "sound" in desk.verify().splitlines()
    named = ("--home", "home", "--display", "Somebody else", "--out", "third")
    assert "is called 'Ida of Inverness' by his home" in desk.run(*init, *named, code=1).stderr


def test_beginning_alone_is_a_ceremony_of_one(desk: Desk) -> None:
    """`init` writes the script, the transcript and the page that any ceremony has."""
    desk.bring("ida", "custodian")
    uri = f"{desk.uris['ida']}&pin-source={desk.folder}/ida.pin"
    words = ("--environment", "production", "--token", uri, "--home", "home")
    desk.run("custodian", "init", "ida", *words, "--authority", "--out", FOLDER)
    assert ["invite", "enrol", "authority"] == [step.do for step in desk.steps()]
    assert not any(step.asked for step in desk.steps())
    assert "sound" in desk.verify().splitlines()
    script = (desk.folder / FOLDER / "ceremony.toml").read_text()
    assert "pin-source" not in script + desk.transcript.read_text()
    lines = decode_transcript(desk.transcript.read_bytes())
    assert isinstance(lines[-1].record.event, Closed)
    assert ("ida",) == progress_of(lines).signers
