"""A year in the life of one environment, from its ceremony to the auditor's report on it.

One year is lived once; each test looks at another part of what it left behind.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from custody.crypto.keyslots import recipient_id
from custody.encoding import format_time, utc_now
from custody.errors import Unavailable
from custody.formats.envelope import decode_statement
from custody.formats.keybackup import KeyBackup
from custody.formats.manifest import Manifest
from custody.formats.transcript import decode_transcript, encode_transcript
from custody.lab.softhsm import create_store, find_library, init_token
from custody.ops.home import Home
from tests.release.year import ENROLLERS, PIN, SO_PIN, Year, begun
from tests.report.browser import CONTRAST, CROWDED, browser, program
from tests.report.test_page import check_structure, read

INVENTORY = ("--inventory", "inventory.txt")
RECORD = "env/recovery-1.dsse"


def first_days(year: Year) -> None:
    """A ceremony; everybody pins its policy; a host is enrolled, and its boot state approved."""
    year.ceremony()
    year.enter("gpu-1", "host", None, {})
    year.enter("ada", "auditor", None, {})
    year.pin_policy(*(name for name in year.players if name != "vault"))
    asked = json.loads(
        year.run(
            "gpu-1", "host", "enroll", "gpu-1", "--tpm", year.tpm, "--out", "gpu-1.json", "--json"
        )
    )
    (year.folder / "inventory.txt").write_text(f"{asked['ek']}\n")
    onto: tuple[str, ...] = ()
    for who in ENROLLERS[:2]:
        challenge, answer = f"{who}.challenge", f"{who}.answer"
        out = ("--out", challenge)
        year.run(who, "enroller", "challenge", "gpu-1.json", *INVENTORY, *out)
        words = ("--tpm", year.tpm, "--answer", challenge, "--out", answer)
        year.run("gpu-1", "host", "enroll", "gpu-1", *words)
        made = f"{who}.gpu-1.dsse"
        vouch = ("enroller", "record", "gpu-1.json", "--answer", answer, *INVENTORY)
        year.run(who, *vouch, "--trust-class", "software", *onto, "--yes", "--out", made)
        onto = ("--onto", made)
    year.run("gpu-1", "host", "measure", "--tpm", year.tpm, "--pcrs", "0-7", "--out", "boot.json")
    golden = ("enroller", "golden", "boot.json")
    year.run("erik", *golden, "--name", "lab-6.1", "--epoch", "1", "--out", "half-golden.dsse")
    year.run("esme", *golden, "--onto", "half-golden.dsse", "--out", "env/lab-6.1.dsse")
    shutil.copy(year.folder / onto[1], year.folder / "env/gpu-1.dsse")
    year.log("env/gpu-1.dsse", "env/lab-6.1.dsse")


def back_up(year: Year, out: str) -> None:
    """Have the vault's security officer trust a wrapping key, and its KEK leave under it."""
    uri = str(year.players["vault"].uri)
    trust = ("custodian", "recovery", "trust-key", "env/wrapping-1.dsse", "--token", uri, "--yes")
    year.run("ida", *trust, so_pin=SO_PIN)
    kek = year.check
    backup = ("custodian", "backup", "env/wrapping-1.dsse", "--kek", kek, "--token", uri)
    year.run("ida", *backup, "--out", out)


def wipe(year: Year) -> None:
    """Initialise the vault's token again: all that was in it is gone."""
    store = create_store(year.folder / "stores" / "ida")
    vault = year.players["vault"]
    serial = vault.uri.serial.encode()  # type: ignore[union-attr]
    for folder in (store.directory / "tokens").iterdir():
        if serial in (folder / "token.object").read_bytes():
            shutil.rmtree(folder)
    uri = init_token(store, "vault", so_pin=SO_PIN, user_pin=PIN)
    year.players["vault"] = replace(vault, uri=replace(uri, pin_source=year.pin("vault")))


def live(year: Year) -> None:
    """Tell the year."""
    first_days(year)
    year.day = 1
    year.typed(
        "ida", "custodian", "recovery", "wrapping-key", RECORD, "--out", "env/wrapping-1.dsse"
    )
    back_up(year, "env/kek-1.dsse")
    year.log("env/wrapping-1.dsse", "env/kek-1.dsse")
    # The first release: to a TPM's officer and one with a token of his own.
    year.day = 10
    year.seal("one", "1.0")
    year.ask("r1", "one")
    for who in ("sec1", "sec3"):
        year.answer(who, "approve", "one", "r1")
    year.open("r1", "one")
    year.day = 40
    _lost_token(year)
    year.day = 90
    _leaves(year)
    # The second: denied, and given up.
    year.day = 120
    year.list_revoked()
    year.seal("two", "2.0", "--replaces", year.manifests["one"])
    year.ask("r2", "two")
    year.answer("sec1-spare", "approve", "two", "r2")
    year.answer("sec4", "deny", "two", "r2", "--reason", "the evaluation is not signed off")
    year.give_up("r2")
    # The third: by the officer whose token only has RSA, and by who came in place of another.
    year.day = 150
    year.list_revoked()
    year.ask("r3", "two")
    for who in ("sec2", "sec4"):
        year.answer(who, "approve", "two", "r3")
    year.open("r3", "two")
    year.day = 200
    _restore(year)
    year.day = 240
    year.list_revoked()
    year.withdrawn, year.hours = year.manifests["one"], 12
    year.next_policy()
    year.run("pub", "publisher", "retire", "one", "--out", "env/one.disposal.dsse", "--yes")
    year.day = 360
    year.list_revoked()
    year.day = 364
    for name in ("r1", "r2", "r3"):
        year.collect(name)


def _lost_token(year: Year) -> None:
    """sec1 loses his token: another fills his leaf, and the certificates of the lost one end."""
    year.list_revoked()
    year.soft("sec1-spare", "officer")
    spare = year.admit("sec1", token="sec1-spare")
    year.pin_policy("sec1-spare")
    year.next_policy(spare)
    lost = year.certificates("sec1")
    year.list_revoked("revoke", *lost, "--reason", "keyCompromise", "--yes")


def _leaves(year: Year) -> None:
    """sec3 goes, and sec4 comes."""
    year.list_revoked()
    year.soft("sec4", "officer")
    admission = year.admit("sec4")
    year.pin_policy("sec4")
    year.third = "sec4"
    year.next_policy(admission, leaving="sec3")


def _restore(year: Year) -> None:
    """The vault's token is wiped, and its KEK comes back by two papers; then it is backed up."""
    year.list_revoked()
    wipe(year)
    uri = str(year.players["vault"].uri)
    words = ("custodian", "restore", "env/kek-1.dsse", "--record", RECORD, "--yes")
    year.typed("ida", *words, "--token", f"'{uri}'")
    back_up(year, "env/kek-2.dsse")
    year.log("env/kek-2.dsse")


@pytest.fixture(scope="module")
def year(
    manufactured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Year]:
    """Live the year; on its last day the auditor has the archive."""
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    with begun(tmp_path_factory.mktemp("year"), manufactured) as made:
        live(made)
        yield made


def ask(year: Year, *words: str, code: int = 0) -> Any:
    """Ask the auditor's archive, for JSON."""
    return json.loads(year.run("ada", "auditor", *words, "--json", code=code))


def manifest(year: Year, bundle: str) -> Manifest:
    """Read the manifest of a bundle."""
    data = (year.folder / f"env/{bundle}.manifest.dsse").read_bytes()
    return decode_statement(Manifest, data).predicate


def test_the_ceremony_is_tied_to_the_policy_everybody_pinned(year: Year) -> None:
    """Its transcript holds, and by the digest that was read aloud it made that very policy."""
    said = year.run("ada", "auditor", "verify-ceremony", "table", "--digest", year.digest)
    assert "sound" in said.splitlines()
    other = "1" * 64
    year.run("ada", "auditor", "verify-ceremony", "table", "--digest", other, code=1)


def test_three_releases_come_to_their_three_ends(year: Year) -> None:
    """Opened and burned, denied and given up, opened and burned: each sound, from its one file."""
    told = ask(year, "list", "archive")
    ends = [(one["outcome"], one["sound"]) for one in told]
    assert [
        ("opened-and-burned", True),
        ("never-opened", True),
        ("opened-and-burned", True),
    ] == ends
    for name in ("r1", "r2", "r3"):
        said = year.run("ada", "auditor", "verify", f"archive/{name}.case")
        assert "sound" in said.splitlines()


def test_who_answered_what_is_told_in_order(year: Year) -> None:
    """Five consents and one denial, by the people who had a token of the quorum on that day."""
    told = ask(year, "who-approved", "archive")
    assert [
        ("sec1", "approval.given"),
        ("sec3", "approval.given"),
        ("sec1", "approval.given"),
        ("sec4", "denial.given"),
        ("sec2", "approval.given"),
        ("sec4", "approval.given"),
    ] == [(one["officer"], one["answer"]) for one in told]
    assert "“the evaluation is not signed off”" == told[3]["note"]


def test_an_officer_of_the_year_only_has_rsa(year: Year) -> None:
    """sec2's shares were sealed by RSA-OAEP, and one of them opened the third release."""
    if not year.chip:
        pytest.skip("tpm2-pkcs11 is not installed: sec2's token was SoftHSM's")
    slots = {s.leaf: s.suite for s in manifest(year, "two").envelope.slots if s.purpose == "share"}
    assert [s for s in slots.values() if "OAEP" in s] == [slots["1"]]


def test_an_officer_of_the_year_has_a_tpm_for_a_token(year: Year) -> None:
    """sec3's keys are in a TPM, and one of the shares of the first release was opened in it."""
    found = Home(year.folder / "homes/sec3").identity()
    assert found.token.startswith("tpm:")
    slots = manifest(year, "one").envelope.slots
    own = {recipient_id(share.spki, share.mlkem) for share in found.shares}
    assert [1] == [sum(s.recipient in own for s in slots if s.purpose == "share")]


def test_what_changed_binds(year: Year) -> None:
    """Who left and what was lost open nothing by the rules; the withdrawn bundle nobody."""
    found = ask(year, "who-can-open", "env")["bundles"]
    one, two = (
        next(b for b in found if b["manifest"] == year.manifests[name]) for name in ("one", "two")
    )
    standing = {(share["name"], share["standing"]) for share in one["shares"]}
    assert {("sec1", "not good"), ("sec2", "in force"), ("sec3", "left")} == standing
    assert [] == one["allowed"]
    assert {"in force"} == {s["standing"] for s in two["shares"] if s["name"] != "sec1"}
    assert year.run("ada", "auditor", "ever-held", "env").startswith("no: nobody has ever held")


def test_the_key_that_came_back_is_the_key_that_was_lost(year: Year) -> None:
    """Wiped and brought back from paper: one check value, out of two tokens."""
    before, after = (
        decode_statement(KeyBackup, (year.folder / f"env/kek-{n}.dsse").read_bytes()).predicate
        for n in (1, 2)
    )
    assert before.check == after.check == year.check
    assert before.held_in.serial != after.held_in.serial
    assert before.wrapped != after.wrapped


def test_what_is_due_is_told(year: Year) -> None:
    """At the end of the year only what ends soon is left to do, and a bundle whose time is over."""
    told = ask(year, "overdue", "archive", "env", code=4)
    kinds = [(one["kind"], one["due"]) for one in told]
    assert [("overdue.disposal", True), ("overdue.policy", False)] == kinds


def test_nothing_of_the_log_is_missing_from_the_archive(year: Year) -> None:
    """Every entry of the log is of a statement that the auditor was shown."""
    told = ask(year, "overdue", "archive", "env", "--log", "log", code=4)
    assert [] == [one for one in told if one["kind"] == "overdue.unshown"]


#: What a year of keys is told by, beside its releases.
KEPT = {
    *("ceremony.held", "policy.issued", "person.joined", "person.left", "token.added"),
    *("token.revoked", "host.enrolled", "state.approved", "bundle.sealed", "bundle.withdrawn"),
    *("bundle.destroyed", "recovery.made", "backup.key-made", "backup.made"),
}


def test_since_and_exported_lines_tell_of_keys_what_the_page_tells(year: Year) -> None:
    """Ceremony, people, tokens, recovery, backups: in order, each once, and each believed."""
    whole = ("archive", "env", "--ceremony", "table")
    told = ask(year, "since", format_time(utc_now() - timedelta(days=1)), *whole)
    assert KEPT <= {row["act"] for row in told}
    own = [(row["act"], row["words"], row["at"]) for row in told if not row["request"]]
    assert len(own) == len(set(own))
    assert all(row["sound"] for row in told)
    assert [] == ask(year, "since", format_time(utc_now() + timedelta(days=9999)), *whole)
    year.run("ada", "auditor", "export", *whole, "--out", "year.jsonl")
    lines = (year.folder / "year.jsonl").read_bytes().splitlines()
    assert told == [json.loads(line) for line in lines]


def test_statements_of_keys_are_judged_elsewhere_from_the_bundle(year: Year) -> None:
    """Whoever has the in-toto bundle and the pin tells the same, but for what lists revoked."""
    year.run(
        "ada", "auditor", "export", "archive", "env", "--as", "in-toto", "--out", "year.intoto"
    )
    lines = (year.folder / "year.intoto").read_bytes().splitlines()
    (year.folder / "elsewhere").mkdir()
    for number, line in enumerate(lines):
        (year.folder / f"elsewhere/{number}.dsse").write_bytes(line)
    begin = format_time(utc_now() - timedelta(days=1))
    here, there = (ask(year, "since", begin, *at) for at in (("archive", "env"), ("elsewhere",)))
    kept = KEPT - {"ceremony.held", "token.revoked"}
    acts = [
        {(row["act"], row["statement"], row["words"]) for row in rows if row["act"] in kept}
        for rows in (here, there)
    ]
    assert acts[0] == acts[1]
    assert kept == {act for act, _, _ in acts[1]}
    assert all(row["sound"] for row in there if row["act"] in kept and not row["request"])


# ── the page ─────────────────────────────────────────────────────────────────────────────────────


def report(year: Year, out: str, *ceremonies: str, code: int = 0) -> Path:
    """Have the auditor write the page of the year."""
    since = ("--since", format_time(utc_now() - timedelta(days=1)))
    tables = [word for folder in ceremonies for word in ("--ceremony", folder)]
    year.run("ada", "auditor", "report", "archive", "env", *since, *tables, "--out", out, code=code)
    return year.folder / out


@pytest.fixture(scope="module")
def page(year: Year) -> Path:
    """Write the page."""
    return report(year, "year.html", "table")


def test_the_page_tells_the_year_in_order(year: Year, page: Path) -> None:
    """Everything that happened, as it happened, each with who stands for it."""
    reader = read(page.read_bytes())
    check_structure(reader)
    at = reader.text.index("In order Everything")
    for words in (
        "ceremony of production: The first keys of production",
        "13 steps by a script, on record",
        "recovery key 1 made and split",
        "policy version 1, until",
        "gpu-1 enrolled, record 1 of its TPM",
        "boot state lab-6.1, epoch 1, approved",
        "key-encryption key “production kek” backed up",
        f"bundle {year.manifests['one'][:16]}… sealed",
        f"gpu-1 asked for {year.manifests['one'][:16]}…: opened and burned",
        "sec1 approved",
        "sec3 approved",
        "gpu-1 burned the key",
        "policy version 2, until",
        "sec1 has further keys",
        "sec1: 2 certificates revoked, as their keys may be in other hands",
        "policy version 3, until",
        "sec3 leaves; was officer",
        "sec4 joins as officer",
        f"bundle {year.manifests['two'][:16]}… sealed",
        f"gpu-1 asked for {year.manifests['two'][:16]}…: never opened, and burned",
        "sec4 denied: “the evaluation is not signed off”",
        "gpu-1 did not open it: given up",
        f"gpu-1 asked for {year.manifests['two'][:16]}…: opened and burned",
        "sec2 approved",
        "“production kek” backed up, out of another token",
        "it came back from a backup",
        "policy version 4, until",
        "now: an approval lives at most 12 hours",
        f"bundle {year.manifests['one'][:16]}… withdrawn by version 4",
        f"bundle {year.manifests['one'][:16]}… destroyed by its publisher, he says",
        "No revocation list here covers",
        "Its transcript holds the policy that everything here is judged by.",
        "custodians ! soon policy version 4 ends",
        "restoring makes no statement",
    ):
        found = reader.text.find(words, at)
        assert found >= 0, words
        at = found
    assert "✓ Sound" in reader.text


def test_the_page_says_what_is_not_logged(page: Path) -> None:
    """One statement of the year is in no log: its line says so, and the verdict counts it."""
    text = read(page.read_bytes()).text
    assert 1 == text.count("! not shown")
    assert "1 line is not shown to be logged" in text
    assert "✓ 5 of 5 statements" in text


def test_a_ceremony_that_does_not_hold_makes_the_page_unsound(year: Year) -> None:
    """A transcript with a record cut out is named before all."""
    shutil.copytree(year.folder / "table", year.folder / "cut")
    lines = decode_transcript((year.folder / "cut/transcript.jsonl").read_bytes())
    cut = encode_transcript((*lines[:5], *lines[6:]))
    (year.folder / "cut/transcript.jsonl").write_bytes(cut)
    text = read(report(year, "cut.html", "cut", code=1).read_bytes()).text
    assert "✗ Not sound" in text
    assert "nobody whose signature holds" in text
    assert "Signed by" not in text
    assert "record 5 says that it is number 6" in text[text.index("What does not hold") :][:120]


@pytest.mark.skipif(program() is None, reason="no Chromium here: apt-get install chromium")
def test_the_page_can_be_read_on_any_screen(page: Path) -> None:
    """Wide and narrow, light and dark, and on paper."""
    with browser() as chromium:
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                chromium.show(page, width=width, scheme=scheme)
                assert [] == chromium.complaints()
                assert width == chromium.value("document.documentElement.scrollWidth")
                ratio, text = chromium.value(CONTRAST)
                assert ratio >= 4.5, (scheme, text)
                assert [] == chromium.value(CROWDED)
        assert chromium.paper().startswith(b"%PDF-")
