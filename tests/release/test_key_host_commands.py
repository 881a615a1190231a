"""A host without a TPM, its keys in SoftHSM: from making them to model and audit, as typed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from custody.encoding import parse_time
from custody.ops.folders import read_request_file
from custody.ops.landing import write_new_file
from tests.release.test_changes import Years
from tests.release.world import founded

HOST = "mainframe"
ENV = "env"


class Hosted(Years):
    """Years of an environment whose policy takes hosts without a TPM."""

    takes = '["software", "hsm-key"]'

    def draft(self, *, leaving: str = "", keys: str = "", withdrawn: str = "") -> str:
        """Write the draft of the next policy, with the classes it takes."""
        name = super().draft(leaving=leaving, keys=keys, withdrawn=withdrawn)
        path = self.folder / name
        text = path.read_text()
        assert 'trust_classes = ["software"]' in text
        path.write_text(text.replace('["software"]\nvendor', f"{self.takes}\nvendor"))
        return name

    def ask_by_key(self, bundle: str, *, code: int = 0) -> str:
        """Have the host ask; return the request's file."""
        request = f"{self.fresh('request')}.dsse"
        self.run(HOST, "host", "request-by-key", bundle, "--out", request, code=code)
        return request

    def answer(
        self, who: str, verb: str, bundle: str, request: str, *, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Consent or approve; the folder of answers holds what others said."""
        words = (verb, bundle, request, "--out", f"answers-{request}", "--yes")
        return self.run(who, "officer", *words, code=code)

    def open_by_key(
        self, bundle: str, request: str, out: str, *more: str, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Open as the host."""
        words = ("open-by-key", bundle, request, "--answers", f"answers-{request}", "--out", out)
        return self.run(HOST, "host", *words, *more, code=code)


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """An environment with one host, which has an HSM and no TPM."""
    with founded(tmp_path_factory.mktemp("hosted")) as world:
        for name in ("sec1", "sec2", "sec3", "pub", "ida"):
            world[name].run(world[name].role, "trust", world.pin)
        years = Hosted(world, "")
        actor = world.hire(HOST, "host")
        world.actors[HOST] = actor
        offer = f"admissions/{HOST}.dsse"
        words = ("--token", str(actor.uri), "--invitation", "start/invitation.json")
        shown = actor.run("host", "admit", HOST, *words, "--out", offer, "--json")
        assert "host" == json.loads(shown.stdout)["role"]
        years.admit(offer)
        years.run(HOST, "host", "trust", world.pin)
        years.next(offer)
        yield years


def both(years: Hosted, bundle: str, request: str, who: Sequence[str] = ("sec1", "sec2")) -> None:
    """Have these officers consent, and then approve."""
    for name in who:
        years.answer(name, "consent", bundle, request)
    for name in who:
        years.answer(name, "approve", bundle, request)


def test_a_release_from_the_key_to_the_audit(hosted: Hosted) -> None:
    """Two rounds with real tokens: model, receipt, case file, and what an auditor is told."""
    hosted.seal("first")
    request = hosted.ask_by_key("first")
    said = hosted.answer("sec1", "approve", "first", request, code=4).stderr
    assert "must consent before anybody approves" in said
    assert "NO TPM" in said
    assert "boot       UNKNOWN" in said
    hosted.answer("sec1", "consent", "first", request)
    assert "consents" in hosted.answer("sec1", "approve", "first", request, code=4).stderr
    hosted.answer("sec2", "consent", "first", request)
    for who in ("sec1", "sec2"):
        hosted.answer(who, "approve", "first", request)
    opened = hosted.open_by_key("first", request, "opened", "--receipt", "receipt.dsse")
    assert "burn not provable" in opened.stdout
    weights = (hosted.folder / "model-first" / "weights").read_bytes()
    assert weights == (hosted.folder / "opened" / "weights").read_bytes()
    assert "was opened" in hosted.open_by_key("first", request, "again", code=1).stderr

    pin = ("--policy-pin", hosted.world.pin)
    files = ("env", request, f"answers-{request}", "receipt.dsse")
    hosted.run("pub", "auditor", "collect", *files, *pin, "--out", "first.case")
    shown = json.loads(hosted.run("pub", "auditor", "verify", "first.case", *pin, "--json").stdout)
    (release,) = shown["releases"]
    assert (True, "opened-burn-not-provable", "hsm-key") == (
        shown["sound"],
        release["outcome"],
        release["trustClass"],
    )
    told = hosted.run("pub", "auditor", "verify", "first.case", *pin).stdout
    assert "host key in an HSM; boot state unknown; burn not provable" in told
    assert "consented  sec1" in told
    hosted.run("pub", "auditor", "report", "first.case", *pin, "--out", "first.html")
    page = (hosted.folder / "first.html").read_text()
    assert "Host key in an HSM; boot state unknown; burn not provable." in page
    assert "its TPM" not in page
    assert f"{HOST} (key in an HSM)" in page


def test_consents_of_an_older_request_open_nothing(hosted: Hosted) -> None:
    """Carried over to another request, files of consents and approvals count for nothing."""
    hosted.seal("second")
    older, request = hosted.ask_by_key("second"), hosted.ask_by_key("second")
    both(hosted, "second", older)
    folder = hosted.folder / f"answers-{request}"
    folder.mkdir()
    for path in (hosted.folder / f"answers-{older}").iterdir():
        write_new_file(folder / path.name, path.read_bytes())
    hosted.answer("sec3", "approve", "second", request, code=4)
    hosted.open_by_key("second", request, "mixed", code=4)
    assert not (hosted.folder / "mixed").exists()
    hosted.run(HOST, "host", "end-by-key", request, "--out", "ended.dsse")
    assert "was given up" in hosted.open_by_key("second", request, "mixed", code=1).stderr


def test_the_keys_of_a_host_sign_or_derive_and_stay(hosted: Hosted) -> None:
    """In the HSM: one key that signs, one that derives; neither can be taken out."""
    actor = hosted.world[HOST]
    audit = json.loads(actor.run("token", "audit", str(actor.uri), "--json").stdout)
    private = [o for o in audit["objects"] if o["kind"] == "private"]
    uses = sorted(flag for o in private for flag in o["flags"] if flag in ("SIGN", "DERIVE"))
    assert ["DERIVE", "SIGN"] == uses
    assert [] == [finding for finding in audit["findings"] if finding["weak"]]


def test_a_policy_says_that_it_takes_hosts_without_a_tpm(hosted: Hosted) -> None:
    """Before they sign, custodians read it in words; without the class they cannot list one."""
    words = ("policy", "show", "env/policy-2.dsse", "--previous", "env/policy-1.dsse", "--json")
    said = json.loads(hosted.run("ida", "custodian", *words).stdout)
    assert any(line.startswith("HOSTS WITHOUT A TPM are taken") for line in said["says"])
    assert any(line.startswith("+ HOSTS WITHOUT A TPM are taken") for line in said["changes"])
    hosted.takes = '["software"]'
    try:
        _, refused = hosted.propose(hosted.draft(), code=1)
    finally:
        hosted.takes = Hosted.takes
    assert f"host {HOST} has no TPM" in refused.stderr


def test_two_commands_at_a_time_open_once(hosted: Hosted) -> None:
    """Typed twice at the same moment, one opens; the other is told of it, and leaves nothing."""
    hosted.seal("both")
    request = hosted.ask_by_key("both")
    both(hosted, "both", request)
    actor = hosted.world[HOST]
    words = ("host", "open-by-key", "both", request, "--answers", f"answers-{request}", "--out")
    runs = [actor.begin(*words, f"race-{n}") for n in range(3)]
    said = [(run.communicate(timeout=120)[1], run.returncode) for run in runs]
    assert [0, 1, 1] == sorted(code for _, code in said)
    for text, code in said:
        if code:
            assert "another process is opening this request" in text or "was opened at" in text
    assert 1 == len(list(hosted.folder.glob("race-*")))
    assert [] == list(hosted.folder.glob(".race-*/output"))


def status(hosted: Hosted, request: str, *answers: str) -> dict[str, Any]:
    """Say where a request stands, as `status --json` does."""
    shown = hosted.run(HOST, "host", "status", *answers, "--json")
    digest = read_request_file(hosted.folder / request).digest
    (view,) = [view for view in json.loads(shown.stdout)["byKey"] if view["request"] == digest]
    return dict(view)


def test_status_tells_where_a_request_by_a_key_stands(hosted: Hosted) -> None:
    """Who consented and approved, until when, what is missing, how it ended; no PIN, no TPM."""
    hosted.seal("fourth")
    request = hosted.ask_by_key("fourth")
    folder = ("--answers", f"answers-{request}")
    view = status(hosted, request)
    assert ("open", [], False) == (view["state"], view["consented"], view["ready"])
    assert read_request_file(hosted.folder / request).predicate.ends_at == parse_time(
        view["deadline"]
    )
    hosted.answer("sec1", "consent", "fourth", request)
    view = status(hosted, request, *folder)
    assert (["sec1"], [1]) == (view["consented"], [gap["needed"] for gap in view["unconsented"]])
    shown = hosted.run(HOST, "host", "status", *folder).stdout
    assert f"open until {view['deadline'][:10]}" in shown
    assert "consented  sec1" in shown
    assert "must consent before approvals" in shown
    hosted.answer("sec2", "consent", "fourth", request)
    hosted.answer("sec1", "approve", "fourth", request)
    view = status(hosted, request, *folder)
    assert ([], ["sec1"], False) == (view["unconsented"], view["approved"], view["ready"])
    hosted.answer("sec2", "approve", "fourth", request)
    assert status(hosted, request, *folder)["ready"]
    assert "; can be opened" in hosted.run(HOST, "host", "status", *folder).stdout
    hosted.open_by_key("fourth", request, "opened-fourth")
    view = status(hosted, request, *folder)
    assert ("opened", False, "") == (view["state"], view["ready"], view["unfinished"])
    assert view["endedAt"]


def test_a_kept_receipt_is_copied(hosted: Hosted) -> None:
    """`receipt` serves such hosts by file and by digest; there is no burn to copy, or to do."""
    hosted.seal("fifth")
    request = hosted.ask_by_key("fifth")
    named = read_request_file(hosted.folder / request).digest[:16]
    early = hosted.run(HOST, "host", "receipt", request, "--out", "fifth.dsse", code=4).stderr
    assert "has not ended" in early
    hosted.run(HOST, "host", "end-by-key", request, "--out", "made.dsse")
    for name in (request, named):
        hosted.run(HOST, "host", "receipt", name, "--out", f"{name}.copy")
        made, copied = hosted.folder / "made.dsse", hosted.folder / f"{name}.copy"
        assert made.read_bytes() == copied.read_bytes()
    burn = ("--out", "x.dsse", "--burn", "y.dsse")
    assert "burn not provable" in hosted.run(HOST, "host", "receipt", named, *burn, code=1).stderr
    cancel = hosted.run(HOST, "host", "cancel", named, "--tpm", "tpm:", code=1).stderr
    assert "end-by-key" in cancel
    assert "given-up" == status(hosted, request)["state"]


def test_a_host_with_a_tpm_names_it(hosted: Hosted) -> None:
    """Of a home without keys in an HSM, `status` asks for the TPM."""
    said = hosted.run("pub", "host", "status", "--home", "fresh", code=2).stderr
    assert "name this host's TPM" in said


def test_one_file_is_read_in_memory(hosted: Hosted) -> None:
    """`read` is the one opening of a request by a key: no file, a receipt, and no second time."""
    hosted.seal("third")
    request = hosted.ask_by_key("third")
    both(hosted, "third", request)
    words = ("read", "third", request, "weights", "--answers", f"answers-{request}")
    read = hosted.run(HOST, "host", *words, "--receipt", "read.dsse")
    assert (hosted.folder / "model-third" / "weights").read_text() == read.stdout
    assert "burn not provable" in read.stderr
    again = hosted.run(HOST, "host", *words, code=1)
    assert "would open it once more" in again.stderr
    assert "was opened" in hosted.open_by_key("third", request, "late", code=1).stderr
    pin = ("--policy-pin", hosted.world.pin)
    files = ("env", request, f"answers-{request}", "read.dsse", "third")
    shown = json.loads(hosted.run("pub", "auditor", "verify", *files, *pin, "--json").stdout)
    (release,) = shown["releases"]
    assert (True, "opened-burn-not-provable") == (shown["sound"], release["outcome"])
