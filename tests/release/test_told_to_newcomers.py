"""What somebody reads who does everything for the first time, with real tokens, as typed."""

from __future__ import annotations

import json

from custody.encoding import key_id
from custody.ops.home import Home
from tests.release.test_changes import Years
from tests.release.test_key_host_commands import HOST, Hosted, both, hosted

__all__ = ["hosted"]

INVITED = ("--invitation", "start/invitation.json")
HALF = "half of the share key is in"


def offer(years: Years, name: str, *more: str) -> tuple[str, str, str]:
    """Have an officer enrol; return his admission, what was shown, and what was said."""
    actor = years.world.hire(name, "officer")
    years.world.actors[name] = actor
    out = f"admissions/{name}.dsse"
    words = ("--token", str(actor.uri), *INVITED, "--out", out, *more)
    done = actor.run("officer", "enroll", name, *words)
    return out, done.stdout, done.stderr


def test_one_share_key_has_one_digest(hosted: Hosted) -> None:
    """Enrolling, admitting, certificates, the policy and revoking name a hybrid key alike."""
    admission, shown, said = offer(hosted, "ann")
    home = Home(hosted.world["ann"].home)
    (share,) = home.identity().shares
    assert "MLKEM1024_P384" == share.suite
    assert f"  share  {share.key_id}\n" in shown
    assert f"{HALF} {home.path}/mlkem: back it up, nothing replaces it\n" in said
    admit = ("custodian", "admit", admission, "--out", "env", "--yes")
    admitted = hosted.run("ida", *admit)
    assert share.key_id in admitted.stderr
    assert f"env/ann.share-{share.key_id[:8]}.cer\n" in admitted.stdout
    _, proposed = hosted.propose(hosted.draft(), admission)
    says = "\n".join(json.loads(proposed.stdout)["says"])
    assert f"ann share (MLKEM1024_P384) key {share.key_id}, software token" in says
    assert "ann: officer\n" in f"{says}\n"
    for text in (shown, admitted.stderr, admitted.stdout, says):
        assert key_id(share.spki)[:8] not in text
    again = hosted.run("ida", *admit)
    assert 2 == again.stderr.count("has a certificate already, until ")
    revoke = ("--reason", "superseded", "--out", "env/ann.crl", "--yes")
    revoked = hosted.run("ida", "custodian", "revoke", share.key_id, *revoke)
    assert 2 == revoked.stderr.count(f"key {share.key_id[:16]}…: superseded")


def test_who_was_admitted_twice_in_one_breath_is_told(hosted: Hosted) -> None:
    """Two admissions of one key are one key, and the custodian sees it before he says yes."""
    first, _, said = offer(hosted, "ben", "--suite", "P256")
    assert HALF not in said
    second = "admissions/ben-again.dsse"
    actor = hosted.world["ben"]
    words = ("--token", str(actor.uri), *INVITED, "--out", second)
    actor.run("officer", "enroll", "ben", *words)
    done = hosted.run("ida", "custodian", "admit", first, second, "--out", "env", "--yes")
    assert 2 == done.stderr.count("the same key as in another of these admissions")


def test_there_is_nothing_to_upgrade(hosted: Hosted) -> None:
    """The strongest key stays the only one; a key that was made already is not a second one."""
    refused = hosted.run("sec1", "officer", "upgrade-slot", *INVITED, "--out", "s.dsse", code=1)
    assert "nothing to upgrade" in refused.stderr
    assert not (hosted.folder / "s.dsse").exists()
    words = ("officer", "upgrade-slot", *INVITED, "--out")
    first = hosted.run("sec3", *words, "sec3-2.dsse").stderr
    assert HALF in first
    assert "an earlier admission of it waits" not in first
    assert "an earlier admission of it waits" in hosted.run("sec3", *words, "sec3-3.dsse").stderr


def test_a_policy_of_nobody_asks_for_admissions(hosted: Hosted) -> None:
    """Who forgets them is told what to name, in no decoder's words."""
    words = ("custodian", "policy", "propose", "draft.toml", "--out", "nobody.dsse")
    said = hosted.run("ida", *words, code=4).stderr
    assert "hint: name the admissions: *.admission.dsse" in said
    assert "$." not in said


def test_a_host_with_keys_in_an_hsm_is_told_its_commands(hosted: Hosted) -> None:
    """It has no TPM to name; who has one is asked for it."""
    hosted.seal("by-tpm")
    asked = hosted.run(HOST, "host", "request", "by-tpm", "--out", "r.dsse", code=1).stderr
    assert "hint: custody host request-by-key" in asked
    opening = ("host", "open", "by-tpm", "r.dsse", "--out", "m")
    assert "hint: custody host open-by-key" in hosted.run(HOST, *opening, code=1).stderr
    other = hosted.run("sec1", "host", "request", "by-tpm", "--out", "r.dsse", code=2).stderr
    assert "invalid value for --tpm: name this host's TPM" in other


def test_consents_that_suffice_are_told(hosted: Hosted) -> None:
    """To the officer, to the host and in a review: what is missing then are approvals."""
    bundle = "two-rounds"
    hosted.seal(bundle)
    request = hosted.ask_by_key(bundle)
    answers = f"answers-{request}"
    status = ("officer", "status", bundle, request)
    seen = hosted.run("sec3", *status)
    assert "approvals  needed: 2 of sec1, sec2, sec3\n" in seen.stdout
    assert "no answers were looked at: --answers DIR\n" in seen.stderr
    hosted.answer("sec1", "consent", bundle, request)
    half = hosted.run("sec3", *status, "--answers", answers)
    assert "must consent before approvals" in half.stdout
    assert "approvals  missing: 2 of" in half.stdout
    assert "no answers were looked at" not in half.stderr
    hosted.answer("sec2", "consent", bundle, request)
    at_host = ("host", "status", "--answers", answers)
    review = ("officer", "review", bundle, request, "--answers", answers, "--public")
    at_officer = (*status, "--answers", answers)
    for who, words in (("sec3", at_officer), (HOST, at_host), ("sec3", review)):
        whole = hosted.run(who, *words).stdout
        assert "consents   complete: officers approve now\n" in whole
        assert "approvals  missing: 2 of sec1, sec2, sec3\n" in whole
        assert "must consent" not in whole


def test_what_was_given_already_is_not_to_be_moved_away(hosted: Hosted) -> None:
    """A second yes, or a second request, is told of the first one, which holds."""
    bundle = "twice"
    hosted.seal(bundle)
    request = hosted.ask_by_key(bundle)
    words = ("host", "request-by-key", bundle, "--out", request)
    again = hosted.run(HOST, *words, code=1).stderr
    assert "this bundle was asked for already, until " in again
    assert "move it away" not in again
    both(hosted, bundle, request)
    for verb, did in (("approve", "approved"), ("consent", "consented to")):
        said = hosted.answer("sec1", verb, bundle, request, code=1).stderr
        assert f"you have {did} this already (until " in said
        assert "move it away" not in said
    denied = ("--out", f"answers-{request}", "--reason", "no", "--yes")
    hosted.run("sec3", "officer", "deny", bundle, request, *denied)
    said = hosted.run("sec3", "officer", "deny", bundle, request, *denied, code=1).stderr
    assert "you have denied this already" in said
    # What somebody else put there is not taken for an answer.
    folder = hosted.folder / f"answers-{request}"
    (mine,) = folder.glob("*.sec1.approval.dsse")
    (his,) = folder.glob("*.sec2.approval.dsse")
    mine.write_bytes(his.read_bytes())
    said = hosted.answer("sec1", "approve", bundle, request, code=1).stderr
    assert "already there; it is never overwritten" in said
