"""What changes in an environment's life, in order: tokens, people, keys, bundles, authorities.

Real tokens (SoftHSM) and a real TPM (swtpm); every step is a command of whose part it is.  The
tests go on from each other, as years do.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from custody.encoding import key_id, utc_now
from custody.formats.envelope import decode_statement
from custody.formats.manifest import Manifest
from custody.formats.state import Identity
from custody.ops.home import Home
from tests.release.world import Actor, World, booted, challenge, founded, record

HYBRID = "MLKEM1024_P384"
#: What an officer of today asks for only if he must.
WEAK = ("--suite", "P256")

DRAFT = """
environment = "production"
expires = {year}-01-01
quorum = "{quorum}"
authorities = [{authorities}]
token_classes = ["software"]
weakest_suite = "{weakest}"
withdrawn = [{withdrawn}]

[leaving]
principals = [{leaving}]
keys = [{keys}]

[thresholds]
root = 2
enrolment = 2
golden = 2

[host]
pcrs = [0, 2, 4, 7]
trust_classes = ["software"]
vendor_roots = ["vendor.pem"]
"""


@dataclass
class Years:
    """The environment as it changes: the newest policy, its tree, and how many of each thing."""

    world: World
    tpm: str
    version: int = 1
    quorum: str = "2 of (sec1, sec2, sec3)"
    weakest: str = "P256"
    authorities: tuple[str, ...] = ("start/authority.cer",)
    signers: tuple[str, str] = ("ida", "cas")
    count: int = 0
    bundles: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.world.folder

    def fresh(self, stem: str) -> str:
        """Name a file that is not there yet."""
        self.count += 1
        return f"{stem}-{self.count}"

    def hire(self, name: str, role: str, *more: str, token: str | None = None) -> str:
        """Give somebody a token and a home, and admit him; return his admission's name."""
        actor = self.world.hire(name, role, token=token)
        where = token or name
        self.world.actors[where] = actor
        admission = f"admissions/{where}.dsse"
        words = ("--token", str(actor.uri), "--invitation", "start/invitation.json", *more)
        self.run(where, role, "enroll", name, *words, "--out", admission)
        self.admit(admission)
        return admission

    def run(self, who: str, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command with somebody's token, in the home of that token."""
        actor = self.world[who]
        home = ("--home", f"homes/{who}") if who != actor.name else ()
        return actor.run(*words, *home, code=code)

    def admit(self, *admissions: str) -> None:
        """Have ida check admissions and issue certificates."""
        self.run("ida", "custodian", "admit", *admissions, "--out", "env", "--yes")

    def draft(self, *, leaving: str = "", keys: str = "", withdrawn: str = "") -> str:
        """Write the draft of the next policy."""
        path = self.folder / f"{self.fresh('draft')}.toml"
        text = DRAFT.format(
            year=utc_now().year + 1,
            quorum=self.quorum,
            weakest=self.weakest,
            authorities=_listed(" ".join(self.authorities)),
            leaving=_listed(leaving),
            keys=_listed(keys),
            withdrawn=_listed(withdrawn),
        )
        path.write_text(text)
        return path.name

    def propose(
        self, draft: str, *admissions: str, code: int = 0
    ) -> tuple[str, subprocess.CompletedProcess[str]]:
        """Have the first signer propose; return the file and what was said."""
        out = f"{self.fresh('proposed')}.dsse"
        previous = ("--previous", f"env/policy-{self.version}.dsse")
        words = ("policy", "propose", draft, *admissions, *previous, "--out", out, "--json")
        return out, self.run(self.signers[0], "custodian", *words, code=code)

    def next(self, *admissions: str, also: str = "", **changes: str) -> dict[str, Any]:
        """Put the next version in force; return what was shown to who signed last.

        ``also`` signs after the usual two.
        """
        unsigned, _ = self.propose(self.draft(**changes), *admissions)
        previous = ("--previous", f"env/policy-{self.version}.dsse", "--yes", "--json")
        for who in (self.signers[1], *also.split()):
            signed = f"{self.fresh('signed')}.dsse"
            words = ("policy", "sign", unsigned, *previous, "--out", signed)
            shown: dict[str, Any] = json.loads(self.run(who, "custodian", *words).stdout)
            unsigned = signed
        assert shown["complete"], shown
        self.version += 1
        (self.folder / unsigned).rename(self.folder / "env" / f"policy-{self.version}.dsse")
        return shown

    def seal(self, name: str, *more: str, who: str = "pub") -> str:
        """Seal a model; return its manifest's digest."""
        model = self.folder / f"model-{name}"
        model.mkdir()
        (model / "weights").write_bytes(name.encode() * 1000)
        words = ("seal", f"model-{name}", "--name", name, "--release", "1", "--out", name)
        sealed = json.loads(self.run(who, "publisher", *words, *more, "--json").stdout)
        self.bundles[name] = sealed["manifest"]
        # Auditors and custodians are sent manifests, not payloads.
        (self.folder / "env" / f"{name}.manifest.dsse").write_bytes(
            (self.folder / name / "manifest.dsse").read_bytes()
        )
        return str(sealed["manifest"])

    def manifest(self, name: str) -> Manifest:
        """Read the manifest of a bundle."""
        data = (self.folder / name / "manifest.dsse").read_bytes()
        return decode_statement(Manifest, data).predicate

    def ask(self, bundle: str, *, code: int = 0) -> tuple[str, str]:
        """Have the host ask for a bundle; return the request and what was said."""
        request = f"{self.fresh('request')}.dsse"
        words = ("request", bundle, "--tpm", self.tpm, "--home", "homes/gpu-1", "--out", request)
        log = ("--event-log", "boot.log")
        return request, self.run("pub", "host", *words, *log, code=code).stderr

    def approve(self, who: str, bundle: str, request: str, *, code: int = 0) -> str:
        """Approve with somebody's token; return what was said."""
        words = ("approve", bundle, request, "--out", f"answers-{request}", "--yes")
        return self.run(who, "officer", *words, code=code).stderr

    def open(self, bundle: str, *officers: str) -> None:
        """Release a bundle by these officers, and compare what comes out."""
        request, _ = self.ask(bundle)
        for who in officers:
            self.approve(who, bundle, request)
        out = self.fresh("opened")
        words = ("open", bundle, request, "--tpm", self.tpm, "--home", "homes/gpu-1")
        answers = ("--answers", f"answers-{request}", "--out", out)
        self.run("pub", "host", *words, *answers)
        assert (self.folder / out / "weights").read_bytes() == (
            self.folder / f"model-{bundle}" / "weights"
        ).read_bytes()

    def crl(self, *words: str) -> None:
        """Revoke, or renew the list."""
        out = f"env/{self.fresh('authority')}.crl"
        self.run("ida", "custodian", *words, "--out", out)

    def certificates(self, name: str, key: str = "") -> list[str]:
        """Name the certificates of somebody, or of one of his keys."""
        found = (self.folder / "env").glob(f"{name}.*-{key[:8] or '*'}.cer")
        return sorted(str(path) for path in found)

    def identity(self, token: str) -> Identity:
        """Return the identity of the home of a token."""
        return Home(self.folder / "homes" / token).identity()


def _listed(words: str) -> str:
    return ", ".join(f'"{word}"' for word in words.split())


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Years]:
    """An environment with one host, whose people have pinned version 1."""
    with founded(tmp_path_factory.mktemp("years")) as world, booted(world) as tpm:
        for name in ("sec1", "sec2", "sec3", "pub", "ida"):
            world[name].run(world[name].role, "trust", world.pin)
        _enrol(world, tpm)
        world["pub"].run("host", "trust", world.pin, "--home", "homes/gpu-1")
        yield Years(world, tpm)


def _enrol(world: World, tpm: str) -> None:
    words = ("enroll", "gpu-1", "--tpm", tpm, "--out", "gpu-1.json", "--json")
    asked = json.loads(world["pub"].run("host", *words).stdout)
    (world.folder / "inventory.txt").write_text(f"{asked['ek']}\n")
    record(world, "erik", "gpu-1.json", challenge(world, tpm, "erik", "gpu-1.json"), "half.dsse")
    answer = challenge(world, tpm, "esme", "gpu-1.json")
    record(world, "esme", "gpu-1.json", answer, "env/gpu-1.dsse", "--onto", "half.dsse")
    words = ("measure", "--tpm", tpm, "--pcrs", "0-7", "--out", "boot.json")
    world["pub"].run("host", *words)
    golden: tuple[str, ...] = ("enroller", "golden", "boot.json")
    world["erik"].run(*golden, "--name", "lab-6.1", "--epoch", "1", "--out", "half-golden.dsse")
    world["esme"].run(*golden, "--onto", "half-golden.dsse", "--out", "env/lab-6.1.dsse")


def trust(years: Years, who: str, role: str) -> None:
    """Have somebody who came later pin version 1."""
    years.run(who, role, "trust", years.world.pin)


def share_of(years: Years, token: str, number: int = 0) -> str:
    """Return the key id of a share key, as certificates and policies name it."""
    return key_id(years.identity(token).shares[number].spki)


def signing_of(years: Years, token: str) -> str:
    """Return the key id of a signing key."""
    return key_id(years.identity(token).signing_spki)


def test_a_lost_token_is_replaced_on_the_same_leaf(years: Years) -> None:
    """A second token fills the first one's leaf; what was sealed before stays with the first."""
    years.seal("first")
    spare = years.hire("sec2", "officer", *WEAK, token="sec2-spare")
    trust(years, "sec2-spare", "officer")
    years.next(spare)
    lost = years.certificates("sec2", share_of(years, "sec2"))
    lost += years.certificates("sec2", signing_of(years, "sec2"))
    assert 2 == len(lost)
    years.crl("revoke", *lost, "--reason", "keyCompromise", "--yes")
    years.seal("second")
    # Whoever found the token approves nothing by it, and nothing new is sealed to it.
    request, _ = years.ask("first")
    assert "revoked" in years.approve("sec2", "first", request, code=1)
    slots = [s for s in years.manifest("second").envelope.slots if s.purpose == "share"]
    assert 3 == len(slots)
    years.open("second", "sec2-spare", "sec3")
    # The spare holds no share of what was sealed before it came; the others do.
    assert "sealed before you, or this token, joined" in years.approve(
        "sec2-spare", "first", request, code=1
    )
    years.open("first", "sec1", "sec3")


def test_an_officer_leaves_and_another_joins(years: Years) -> None:
    """Version 3: sec3 goes, sec4 comes.  The old share works still, and is said to."""
    admission = years.hire("sec4", "officer", *WEAK)
    trust(years, "sec4", "officer")
    years.quorum = "2 of (sec1, sec2, sec4)"
    years.next(admission, leaving="sec3")
    years.seal("third", "--replaces", years.bundles["first"])
    request, _ = years.ask("third")
    assert "custody: error:" in years.approve("sec3", "third", request, code=1)
    years.open("third", "sec2-spare", "sec4")
    years.run("ida", "auditor", "trust", years.world.pin, "--home", "homes/aud")
    openers = json.loads(
        years.run("ida", "auditor", "who-can-open", "env", "--home", "homes/aud", "--json").stdout
    )
    by_manifest = {one["manifest"]: one for one in openers["bundles"]}
    first = by_manifest[years.bundles["first"]]
    assert [["sec1", "sec2"], ["sec1", "sec3"], ["sec2", "sec3"]] == first["able"]
    standing = {(s["name"], s["standing"]) for s in first["shares"]}
    assert {("sec1", "in force"), ("sec2", "not good"), ("sec3", "left")} == standing
    # By the rules: both trees, so sec3's share helps nobody, and sec4 has none.
    assert [["sec1", "sec2"]] == first["allowed"]
    third = by_manifest[years.bundles["third"]]
    assert [["sec1", "sec2"], ["sec1", "sec4"], ["sec2", "sec4"]] == third["allowed"]
    said = years.run("ida", "auditor", "who-can-open", "env", "--home", "homes/aud").stdout
    sealed, in_force = "2 of (sec1, sec2, sec3)", "2 of (sec1, sec2, sec4)"
    assert f"by the rules    {in_force}\n" in said
    assert (
        f"by the rules    {sealed}, and by the policy in force {in_force}, without sec3\n" in said
    )


def test_withdrawing_says_what_old_shares_can_do(years: Years) -> None:
    """Version 4 withdraws: who signs is told what the shares still open, and what replaced it."""
    first, third = years.bundles["first"], years.bundles["third"]
    shown = years.next(withdrawn=first)
    words = "\n".join(shown["follows"])
    assert f"withdrawn: {first[:16]}" in words
    assert "2 of (sec1, sec2, sec3) together can still open it outside these tools" in words
    assert "their shares still work: sec3" in words
    assert f"replaced by {third[:16]}…, re-encrypted" in words
    _, said = years.ask("first", code=1)
    assert "withdrawn by the policy in force" in said
    # The next draft forgets it; the policy does not.
    shown = years.next()
    assert f"withdrawn: manifest {first}" in shown["says"]
    assert not shown["follows"]


def test_a_publishers_key_rotates_with_overlap(years: Years) -> None:
    """While both keys are listed both bundles open; when the old one goes, its bundles end."""
    admission = years.hire("pub", "publisher", token="pub-new")
    trust(years, "pub-new", "publisher")
    years.next(admission)
    years.seal("fourth", who="pub-new")
    years.open("third", "sec1", "sec4")
    years.open("fourth", "sec1", "sec4")
    shown = years.next(keys=signing_of(years, "pub"))
    words = "\n".join(shown["follows"])
    for name in ("second", "third"):
        assert f"bundle {years.bundles[name][:16]}… could be released no more" in words
    assert years.bundles["fourth"][:16] not in words
    years.open("fourth", "sec1", "sec4")
    _, said = years.ask("third", code=1)
    assert "no publisher's" in said


def test_custodians_and_enrollers_rotate(years: Years) -> None:
    """Old and new thresholds sign the change; from then on the newcomers' voices count."""
    cleo = years.hire("cleo", "custodian")
    elke = years.hire("elke", "enroller")
    trust(years, "elke", "enroller")
    # Two of the old three and two of the new: ida is both, cas goes, cleo comes.
    years.next(cleo, elke, leaving="cas ewan", also="cleo")
    proposed, _ = years.propose(years.draft())
    previous = ("--previous", f"env/policy-{years.version}.dsse", "--yes", "--out", "no.dsse")
    done = years.run("cas", "custodian", "policy", "sign", proposed, *previous, code=1)
    assert "the signing key is no custodian's" in done.stderr
    years.signers = ("ida", "cleo")
    years.next()
    years.open("fourth", "sec2-spare", "sec4")
    answer = challenge(years.world, years.tpm, "elke", "gpu-1.json")
    record(years.world, "elke", "gpu-1.json", answer, "elke.dsse")


def test_a_policy_that_locks_everybody_out_is_refused_before_it_is_signed(years: Years) -> None:
    """All of a node revoked: no custodian's tool proposes such a tree, or signs it."""
    years.crl("revoke", *years.certificates("sec4"), "--reason", "keyCompromise", "--yes")
    tree, years.quorum = years.quorum, "all(sec1, sec4)"
    out, done = years.propose(years.draft(), code=1)
    assert "nobody could release anything: it would take 1 more of sec4" in done.stderr
    assert "revoked" in done.stderr
    assert not (years.folder / out).exists()
    # A tree that the living satisfy is no lock-out, and says whom it now hangs on.
    years.quorum = tree
    shown = years.next()
    words = "\n".join(shown["follows"])
    assert "sec1 is needed for every release now" in words
    assert "sec2 is needed for every release now" in words
    # A threshold above the members is refused by the policy alone.
    years.quorum = "3 of (sec1, sec2)"
    _, done = years.propose(years.draft(), code=1)
    assert "quorum: 3 of 2" in done.stderr
    years.quorum = "3 of (sec1, sec2, sec4)"
    _, done = years.propose(years.draft(), code=1)
    assert "nobody could release anything" in done.stderr
    years.quorum = tree


def test_officers_upgrade_and_the_weakest_suite_follows(years: Years) -> None:
    """A hybrid share key beside the old one, then instead of it; then nothing weaker is taken."""
    years.hire("sec5", "officer", *WEAK)
    trust(years, "sec5", "officer")
    years.quorum = "2 of (sec1, sec2, sec5)"
    years.next("admissions/sec5.dsse", leaving="sec4")
    olds, admissions = [], []
    for who in ("sec2-spare", "sec5"):
        olds.append(share_of(years, who))
        out = f"{who}-2.dsse"
        words = ("upgrade-slot", "--invitation", "start/invitation.json", "--out", out, "--json")
        shown = json.loads(years.run(who, "officer", *words).stdout)
        assert HYBRID == shown["suite"]
        assert [olds[-1]] == shown["olderKeys"]
        admissions.append(out)
    years.admit(*admissions)
    years.seal("before", who="pub-new")
    shown = years.next(*admissions)
    assert any("as weak as P256" in line for line in shown["follows"])
    olds.append(share_of(years, "sec2"))
    years.next(keys=" ".join(olds))
    years.seal("after", who="pub-new")
    suites = {slot.suite for slot in years.manifest("after").envelope.slots}
    assert {HYBRID} == suites
    years.open("after", "sec2-spare", "sec5")
    # The old keys left the policy, not the tokens: what was sealed to them still opens.
    years.open("before", "sec2-spare", "sec5")
    years.weakest = HYBRID
    shown = years.next()
    follows = "\n".join(shown["follows"])
    assert f"bundle {years.bundles['before'][:16]}… could be released no more" in follows
    assert f"weaker than {HYBRID}" in follows
    _, said = years.ask("before", code=1)
    assert "weaker than" in said
    years.open("after", "sec1", "sec5")
    # Nor does a policy take an officer whose keys are weaker.
    weak = years.hire("sec6", "officer", *WEAK)
    years.quorum = "2 of (sec1, sec2, sec5, sec6)"
    _, done = years.propose(years.draft(), weak, code=1)
    assert f"officer sec6 has a share key weaker than {HYBRID}" in done.stderr
    years.quorum = "2 of (sec1, sec2, sec5)"


def test_an_authority_rotates_with_overlap(years: Years) -> None:
    """A new authority beside the old one, certificates from both, then the new one alone."""
    words = ("cleo", "--environment", "production", "--token", str(years.world["cleo"].uri))
    years.run("cleo", "custodian", "init", *words, "--authority", "--out", "start-2")
    new = years.folder / "start-2"
    for name in ("cer", "crl"):
        (years.folder / "env" / f"authority-new.{name}").write_bytes(
            (new / f"authority.{name}").read_bytes()
        )
    # Before anybody has a certificate of it, it alone would lock everybody out.
    years.authorities = ("start-2/authority.cer",)
    _, done = years.propose(years.draft(), code=1)
    assert "nobody could release anything" in done.stderr
    years.authorities = ("start/authority.cer", "start-2/authority.cer")
    years.next()
    years.open("after", "sec1", "sec5")
    again = []
    for who in ("sec1", "sec2-spare", "sec5", "pub-new"):
        actor = years.world[who]
        out = f"{who}.again.dsse"
        invited = ("--token", str(actor.uri), "--invitation", "start-2/invitation.json")
        years.run(who, actor.role, "enroll", actor.name, *invited, "--out", out)
        again.append(out)
    years.run("cleo", "custodian", "admit", *again, "--out", "env", "--yes")
    years.authorities = ("start-2/authority.cer",)
    years.next()
    years.open("after", "sec1", "sec5")


def test_status_names_what_ends(years: Years) -> None:
    """Nothing is due in an hour; in eight weeks the list is; what is revoked is named at once."""
    found = json.loads(
        years.run("ida", "custodian", "status", "--within", "8w", "--json", code=4).stdout
    )
    due = {(one["kind"], one["subject"].split()[0]) for one in found["endings"] if one["due"]}
    assert ("revocation list", "CN=production") in due
    assert any(one["kind"] == "bundle" and not one["due"] for one in found["endings"])
    words = years.run("ida", "custodian", "status", "--within", "8w", code=4).stdout
    assert "custody custodian renew-crl" in words


def test_nobody_ever_held_a_threshold(years: Years) -> None:
    """Over every manifest and version: no; and who sealed each is said to have known its key."""
    home = ("--home", "homes/aud")
    done = years.run("ida", "auditor", "ever-held", "env", *home)
    assert done.stdout.startswith("no: nobody has ever held a threshold of shares of one key")
    found = json.loads(years.run("ida", "auditor", "ever-held", "env", *home, "--json").stdout)
    assert sorted([m] for m in years.bundles.values()) == sorted(
        key["manifests"] for key in found["keys"]
    )
    # Without one of the manifests that are named, the answer is not whole.
    (years.folder / "env" / "first.manifest.dsse").rename(years.folder / "first.hidden")
    done = years.run("ida", "auditor", "ever-held", "env", *home, code=4)
    assert f"not here: manifest {years.bundles['first']}" in done.stdout
    assert "by what is here" in done.stdout


def test_no_answer_is_given_for_no_manifest(years: Years) -> None:
    """Without a manifest nothing is known of any key: no "nobody", and what lacks is said."""
    bare = years.folder / "bare"
    bare.mkdir()
    for path in (years.folder / "env").iterdir():
        if path.is_file() and "manifest" not in path.name:
            shutil.copy(path, bare)
    for verb in ("ever-held", "who-can-open"):
        done = years.run("ida", "auditor", verb, "bare", "--home", "homes/aud", code=4)
        assert "custody: error: no manifest is here" in done.stderr
        assert "custody: missing: manifests" in done.stderr
        assert "no: nobody" not in done.stdout


def test_the_next_version_moves_no_key_to_another_name(years: Years) -> None:
    """One token under two names would in time hold two leaves' shares of one bundle."""
    actor: Actor = replace(years.world["sec5"])
    words = ("--token", str(actor.uri), "--invitation", "start/invitation.json")
    stolen = years.folder / "homes" / "sec7"
    stolen.mkdir(mode=0o700)
    data = (years.folder / "homes/sec5/identity.json").read_text()
    (stolen / "identity.json").write_text(data.replace('"sec5"', '"sec7"'))
    seeds = years.folder / "homes/sec5/mlkem"
    (stolen / "mlkem").mkdir(mode=0o700)
    for seed in seeds.iterdir():
        (stolen / "mlkem" / seed.name).write_bytes(seed.read_bytes())
    out = ("--home", "homes/sec7", "--out", "sec7.dsse")
    actor.run("officer", "enroll", "sec7", *words, *out)
    years.quorum = "2 of (sec1, sec2, sec7)"
    draft = years.draft(leaving="sec5", keys=share_of(years, "sec5"))
    _, done = years.propose(draft, "sec7.dsse", code=1)
    assert "of sec5 would be sec7's" in done.stderr
