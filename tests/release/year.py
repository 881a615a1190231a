"""A year in the life of one environment, as its people type it; `test_year` says what it shows.

Tokens are SoftHSM's, a TPM's behind tpm2-pkcs11 and a TPM's by the ``tpm:`` adapter; the host's TPM
is real as well.  Every command is told how many days of the year have gone by: that alone is set.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from custody.crypto.keyslots import recipient_id
from custody.encoding import key_id, utc_now
from custody.formats.envelope import decode_statement
from custody.formats.policy import Policy
from custody.formats.transcript import Done, decode_transcript
from custody.keys.profiles import library_paths, profile_named
from custody.keys.uri import KeyUri, Pkcs11Uri, TpmUri
from custody.lab import bootlog, swtpm
from custody.lab.softhsm import TokenStore, create_store, init_token, write_pin_file
from custody.ops.home import Home
from tests.docs.terminal import Paper, enter
from tests.release.conftest import fresh, running

ROOT = Path(__file__).parents[2]
PIN, SO_PIN = b"271828", b"31415926"
#: Who sits at the table; all others make their keys at home and bring an admission.
CUSTODIANS = ("ida", "cas", "cyd")
ENROLLERS = ("erik", "esme", "ewan")
ORIGIN = "log.example.com/models"
_CHIP = "tests.device.tpm.test_tpm2_pkcs11"
#: The commands, on a clock that is so many days ahead.
PROGRAM = """
import sys
from datetime import timedelta
from custody import encoding
days, now = timedelta(days=int(sys.argv.pop(1))), encoding.utc_now
encoding.utc_now = lambda: now() + days
from custody.cli import main
main()
"""
DRAFT = """
environment = "production"
expires = {expires}
quorum = "2 of (sec1, sec2, {third})"
authorities = ["table/authority.cer"]
token_classes = ["software", "self-asserted"]
weakest_suite = "RSA2048_OAEP_SHA1"
recovery = "table/recovery-1.dsse"
logged = "logs.policy"
withdrawn = [{withdrawn}]

[leaving]
principals = [{leaving}]

[thresholds]
root = 2
enrolment = 2
golden = 2

[limits]
approval_hours = {hours}

[host]
pcrs = [0, 2, 4, 7]
trust_classes = ["software"]
vendor_roots = ["vendor.pem"]
"""


@dataclass(frozen=True)
class Player:
    """Somebody with a token, or none, and what his processes are told."""

    name: str
    role: str
    uri: KeyUri | None
    told: dict[str, str]


@dataclass
class Year:
    """The environment, and the day of the year."""

    folder: Path
    vendor: Path
    tpm: str = ""
    day: int = 0
    version: int = 1
    third: str = "sec3"
    hours: int = 24
    withdrawn: str = ""
    chip: bool = False
    players: dict[str, Player] = field(default_factory=dict)
    paper: Paper = field(default_factory=Paper)
    manifests: dict[str, str] = field(default_factory=dict)
    lists: int = 1

    # ── who is who ──────────────────────────────────────────────────────────────────────────────

    def soft(self, name: str, role: str, *, store: str = "") -> Player:
        """Give somebody a SoftHSM token, in a store of his own."""
        place = create_store(self.folder / "stores" / (store or name))
        uri = init_token(place, name, so_pin=SO_PIN, user_pin=PIN)
        return self.enter(name, role, replace(uri, pin_source=self.pin(name)), place.environment)

    def enter(self, name: str, role: str, uri: KeyUri | None, told: object) -> Player:
        """Take somebody into the cast."""
        made = Player(name, role, uri, dict(told))  # type: ignore[call-overload]
        self.players[name] = made
        return made

    def pin(self, name: str) -> str:
        """Write a PIN down where only its owner reads it."""
        path = self.folder / f"{name}.pin"
        return str(path if path.exists() else write_pin_file(path, PIN))

    def told(self, player: Player, home: str = "") -> dict[str, str]:
        """Say what his processes are told."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "CUSTODY_HOME": f"homes/{home or player.name}",
            "CUSTODY_ENV": "env",
            "CUSTODY_LOG": "log",
            **player.told,
        }

    def run(self, who: str, *words: str, code: int = 0, so_pin: bytes = b"") -> str:
        """Type one command; return what was written, or said where it was refused."""
        player, pass_fds = self.players[who], []
        if so_pin:
            reading, writing = os.pipe()
            os.write(writing, so_pin)
            os.close(writing)
            words, pass_fds = (*words, "--so-pin-fd", str(reading)), [reading]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(self.day), *words],
            capture_output=True,
            text=True,
            env=self.told(player),
            cwd=self.folder,
            pass_fds=pass_fds,
            timeout=200,
            check=False,
        )
        for descriptor in pass_fds:
            os.close(descriptor)
        assert code == done.returncode, f"{who}: {' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stderr if code == 1 else done.stdout

    def typed(
        self, who: str, *words: str, code: int = 0, told: dict[str, str] | None = None
    ) -> str:
        """Type one command at a terminal: words come on paper, and go from it."""
        program = self.folder / "program.py"
        program.write_text(PROGRAM)
        shown = enter(
            " ".join([sys.executable, str(program), str(self.day), *words]),
            directory=self.folder,
            env={**(told or self.told(self.players[who])), "TERM": "xterm", "COLUMNS": "100"},
            pin=PIN.decode(),
            paper=self.paper,
        )
        assert code == shown.code, shown.text
        return shown.text

    def log(self, *files: str, proofs: str = "env") -> None:
        """Have the log take statements, and bring the proofs."""
        self.run("leo", "log", "append", "log", *files, "--proofs", proofs)

    # ── the ceremony ────────────────────────────────────────────────────────────────────────────

    def ceremony(self) -> None:
        """Begin the environment at one table, by a script, with a recovery key on paper."""
        table = create_store(self.folder / "stores" / "table")
        people = dict.fromkeys(CUSTODIANS, "custodian") | {"leo": "log", "vault": "site"}
        for name, role in people.items():
            self.soft(name, role, store="table")
        brought = [name for name in self.players if name not in (*people, "sec2")]
        seats = [*people, "sec2"]
        self._script(seats, brought)
        told = self.told(self.players["sec2"]) | dict(table.environment)
        pins = [word for name in seats for word in ("--pin", f"{name}={name}.pin")]
        words = ("custodian", "ceremony", "ceremony.toml", "--homes", "homes", "--out", "table")
        # It stops where the others' admissions are brought to the table, and the log's key is told.
        said = self.typed("ida", *words, *pins, code=4, told=told)
        assert "admission.dsse" in said, said
        assert 3 == len(self.paper.shares)
        self._log_policy()
        for name in brought:
            player = self.players[name]
            enroll = (player.role, "enroll", name, "--token", str(player.uri))
            out = f"table/{name}.admission.dsse"
            self.run(name, *enroll, "--invitation", "table/invitation.json", "--out", out)
        (self.folder / "draft-1.toml").write_text(self.draft())
        assert "held, and signed by everybody" in self.typed("ida", *words, *pins, told=told)
        shutil.copytree(self.folder / "table" / "log", self.folder / "log")
        for path in sorted((self.folder / "table").iterdir()):
            if path.suffix in (".cer", ".crl") or path.name in ("policy-1.dsse", "recovery-1.dsse"):
                shutil.copy(path, self.folder / "env" / path.name)
        for name in people:
            # The vault's token stands beside that of who keeps it.
            self._take_home(table, name, "ida" if name == "vault" else name)
        self.log("env/policy-1.dsse", "env/recovery-1.dsse")

    def _script(self, seats: Sequence[str], brought: Sequence[str]) -> None:
        lines = [
            'kind = "custody/ceremony/v1"',
            'environment = "production"',
            'title = "The first keys of production"',
        ]
        for name in seats:
            player = self.players[name]
            uri = replace(player.uri, pin_source=None) if player.uri else None
            lines += ["[[people]]", f'name = "{name}"', f'role = "{player.role}"']
            lines += [f'token = "{uri}"']
        files = ", ".join(f'"{name}.admission.dsse"' for name in brought)
        steps = [
            'do = "invite"; by = "ida"',
            *(f'do = "enrol"; who = "{name}"' for name in (*CUSTODIANS, "leo", "vault", "sec2")),
            'do = "authority"; by = "ida"; name = "production authority"',
            f'do = "log-key"; by = "leo"; origin = "{ORIGIN}"',
            'do = "kek"; by = "vault"; label = "production kek"',
            'do = "recovery"; by = "ida"; among = "2 of (ida, cas, cyd)"',
            f'do = "admit"; by = "ida"; who = ["ida", "cas", "cyd", "sec2"]; files = [{files}]',
            'do = "policy"; draft = "draft-1.toml"; signers = ["ida", "cas"]',
        ]
        for step in steps:
            lines += ["[[steps]]", *step.split("; ")]
        (self.folder / "ceremony.toml").write_text("\n".join(lines) + "\n")

    def _log_policy(self) -> None:
        key = self.run("leo", "log", "key").split()[-1]
        (self.folder / "logs.policy").write_text(f"log {key}\nquorum none\n")

    def _take_home(self, table: TokenStore, name: str, store: str) -> None:
        """Carry a token from the table to a store of its holder's own."""
        own = create_store(self.folder / "stores" / store)
        player = self.players[name]
        assert isinstance(player.uri, Pkcs11Uri)
        serial = (player.uri.serial or "").encode()
        for folder in (table.directory / "tokens").iterdir():
            if serial in (folder / "token.object").read_bytes():
                shutil.move(folder, own.directory / "tokens" / folder.name)
        self.players[name] = replace(player, told=dict(own.environment))

    @property
    def digest(self) -> str:
        """The digest of policy version 1, as it was read aloud."""
        return decode_statement(Policy, (self.folder / "env/policy-1.dsse").read_bytes()).digest

    def pin_policy(self, *names: str) -> None:
        """Have people pin what was read to them."""
        for name in names:
            self.run(name, self.players[name].role, "trust", self.digest)

    # ── what changes ────────────────────────────────────────────────────────────────────────────

    def draft(self, *, leaving: str = "") -> str:
        """Write the draft of the next policy."""
        return DRAFT.format(
            expires=(utc_now() + timedelta(days=380)).date(),
            third=self.third,
            hours=self.hours,
            withdrawn=_quoted(self.withdrawn),
            leaving=_quoted(leaving),
        )

    def next_policy(self, *admissions: str, leaving: str = "") -> dict[str, object]:
        """Put the next version in force: ida proposes, cyd signs too; return what she was shown."""
        last, self.version = self.version, self.version + 1
        draft, new = f"draft-{self.version}.toml", f"env/policy-{self.version}.dsse"
        (self.folder / draft).write_text(self.draft(leaving=leaving))
        previous = ("--previous", f"env/policy-{last}.dsse")
        half = f"proposed-{self.version}.dsse"
        policy = ("custodian", "policy")
        self.run("ida", *policy, "propose", draft, *admissions, *previous, "--out", half)
        shown = self.run("cyd", *policy, "sign", half, *previous, "--yes", "--out", new, "--json")
        self.log(new)
        found: dict[str, object] = json.loads(shown)
        assert found["complete"], found
        return found

    @property
    def check(self) -> str:
        """The check value of the KEK, as the ceremony wrote it down."""
        lines = decode_transcript((self.folder / "table/transcript.jsonl").read_bytes())
        steps = [line.record.event for line in lines if isinstance(line.record.event, Done)]
        return next(key.key_id for step in steps for key in step.keys if key.use == "kek")

    def admit(self, name: str, *, token: str = "") -> str:
        """Have somebody make keys and be admitted, with a token of that name."""
        where = token or name
        player = self.players[where]
        out = f"{where}.admission.dsse"
        enroll = (player.role, "enroll", name, "--token", str(player.uri))
        self.run(where, *enroll, "--invitation", "table/invitation.json", "--out", out)
        self.run("ida", "custodian", "admit", out, "--out", "env", "--yes")
        return out

    def certificates(self, token: str) -> list[str]:
        """Name the certificates of the keys of one home."""
        found = Home(self.folder / "homes" / token).identity()
        shares = (recipient_id(share.spki, share.mlkem) for share in found.shares)
        return sorted(
            str(path)
            for key in (key_id(found.signing_spki), *shares)
            for path in (self.folder / "env").glob(f"*-{key[:8]}.cer")
        )

    def list_revoked(self, *words: str) -> None:
        """Issue the next revocation list, before the one in use is stale."""
        self.lists += 1
        out = f"env/authority-{self.lists}.crl"
        self.run("ida", "custodian", *(words or ("renew-crl",)), "--out", out)

    # ── releases ────────────────────────────────────────────────────────────────────────────────

    def seal(self, name: str, release: str, *more: str) -> None:
        """Seal a model, and have its manifest logged."""
        model = self.folder / f"model-{name}"
        model.mkdir()
        (model / "weights").write_bytes(name.encode() * 4000)
        words = ("seal", f"model-{name}", "--name", "tiny", "--release", release, "--out", name)
        shown = self.run("pub", "publisher", *words, *more, "--json")
        self.manifests[name] = json.loads(shown)["manifest"]
        shutil.copy(self.folder / name / "manifest.dsse", self.folder / f"env/{name}.manifest.dsse")
        self.log(f"env/{name}.manifest.dsse")

    def ask(self, name: str, bundle: str) -> str:
        """Have the host ask for a bundle; return the request's name."""
        (self.folder / name).mkdir()
        request = f"{name}/request.dsse"
        words = ("request", bundle, "--tpm", self.tpm, "--event-log", "boot.log", "--out", request)
        self.run("gpu-1", "host", *words)
        return request

    def answer(self, who: str, verb: str, bundle: str, name: str, *more: str) -> None:
        """Have an officer answer a request, for everybody to see."""
        words = ("officer", verb, bundle, f"{name}/request.dsse", "--out", f"{name}/case")
        self.run(who, *words, *more, "--yes")
        # Answers bear whole seconds, and those of one second are in no order.
        time.sleep(1)

    def open(self, name: str, bundle: str) -> None:
        """Have the log sign for a request, and the host open it and burn its key."""
        request, case = f"{name}/request.dsse", f"{name}/case"
        manifest = f"{bundle}/manifest.dsse"
        word = ("--out", f"{case}/request.logged.dsse")
        self.run("leo", "log", "countersign", "log", request, case, manifest, *word)
        out = f"opened-{name}"
        words = ("open", bundle, request, "--answers", case, "--tpm", self.tpm, "--out", out)
        self.run("gpu-1", "host", *words, *_ends(case))
        opened = (self.folder / out / "weights").read_bytes()
        assert opened == (self.folder / f"model-{bundle}" / "weights").read_bytes()
        self.log(f"{case}/receipt.dsse", f"{case}/burn.dsse", proofs=case)

    def give_up(self, name: str) -> None:
        """Have the host give a request up, and the log hear of it."""
        request, case = f"{name}/request.dsse", f"{name}/case"
        self.run("gpu-1", "host", "cancel", request, "--tpm", self.tpm, *_ends(case))
        answers = [str(path) for path in sorted((self.folder / case).glob("*.dsse"))]
        self.log(request, *answers, proofs=case)

    def collect(self, name: str) -> None:
        """Have the auditor put a release into one file."""
        (self.folder / "archive").mkdir(exist_ok=True)
        case = (f"{name}/request.dsse", f"{name}/case", "env")
        out = ("--out", f"archive/{name}.case", "--log", "log")
        self.run("ada", "auditor", "collect", *case, *out)


def _ends(case: str) -> tuple[str, ...]:
    return ("--receipt", f"{case}/receipt.dsse", "--burn", f"{case}/burn.dsse")


def _quoted(words: str) -> str:
    return ", ".join(f'"{word}"' for word in words.split())


def chip_library() -> Path | None:
    """Return tpm2-pkcs11, if it is installed."""
    found = (path for path in library_paths(profile_named("tpm2-pkcs11")) if path.is_file())
    return next(found, None)


def _give_chip(year: Year, machine: swtpm.Swtpm) -> None:
    """Give sec2 a TPM behind tpm2-pkcs11; a SoftHSM token where that is not installed."""
    library = chip_library()
    year.chip = library is not None
    store = create_store(year.folder / "stores" / "sec2")
    if library is None:
        year.soft("sec2", "officer", store="table")
        return
    (year.folder / "chip").mkdir(mode=0o700)
    told = {
        **store.environment,
        "TPM2_PKCS11_STORE": str(year.folder / "chip"),
        "TPM2_PKCS11_TCTI": machine.tcti,
        "TPM2_PKCS11_LOG_LEVEL": "0",
        "TSS2_LOG": "all+NONE",
    }
    code = f"from {_CHIP} import initialise; initialise({str(library)!r})"
    subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | told,
        cwd=ROOT,
        timeout=200,
        check=True,
    )
    uri = Pkcs11Uri(token="tpm", module_name="tpm2-pkcs11", pin_source=year.pin("sec2"))
    year.enter("sec2", "officer", uri, told)


@contextmanager
def begun(folder: Path, manufactured: tuple[Path, Path]) -> Iterator[Year]:
    """Give an environment on its first day, before its ceremony, and a host that has booted."""
    vendor = manufactured[1]
    with ExitStack() as stack:
        host = stack.enter_context(running(manufactured))
        year = Year(folder, vendor, tpm=f"tpm:?tcti={host.tcti}")
        for name in ("env", "homes"):
            (folder / name).mkdir(mode=0o700)
        (folder / "vendor.pem").write_bytes(host.vendor_root.read_bytes())
        log = bootlog.record(bootlog.BootState())
        (folder / "boot.log").write_bytes(log)
        bootlog.extend(host, log)
        _give_chip(year, stack.enter_context(fresh(vendor)))
        laptop = stack.enter_context(fresh(vendor))
        uri = TpmUri(tcti=laptop.tcti, pin_source=year.pin("sec3"))
        year.soft("sec1", "officer")
        year.enter("sec3", "officer", uri, {})
        for name in ENROLLERS:
            year.soft(name, "enroller")
        year.soft("pub", "publisher")
        yield year
