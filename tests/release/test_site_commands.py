"""A site's HSM (SoftHSM) and a host's TPM (swtpm), from making the key to the model, as typed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.release.test_changes import Years, _enrol
from tests.release.world import booted, founded

AT_HOST = ("--home", "homes/gpu-1")


@pytest.fixture(scope="module")
def sited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Years]:
    """An environment with one host, whose second policy lists two sites."""
    with founded(tmp_path_factory.mktemp("sited")) as world, booted(world) as tpm:
        for name in ("sec1", "sec2", "pub", "ida"):
            world[name].run(world[name].role, "trust", world.pin)
        _enrol(world, tpm)
        world["pub"].run("host", "trust", world.pin, *AT_HOST)
        years = Years(world, tpm)
        years.seal("before")
        years.next(*(offered(years, name) for name in ("fra1", "ams1")))
        yield years


def offered(years: Years, name: str) -> str:
    """Make a site's keys in an HSM of its own, and certify them; return the admission."""
    actor = years.world.hire(name, "site")
    years.world.actors[name] = actor
    out = f"admissions/{name}.dsse"
    words = ("--token", str(actor.uri), "--invitation", "start/invitation.json", "--out", out)
    shown = json.loads(actor.run("host", "site", name, *words, "--json").stdout)
    assert "site" == shown["role"]
    years.admit(out)
    return out


def at(years: Years, site: str, bundle: str, out: str, *more: str, code: int = 0) -> str:
    """Ask, have two officers approve, and open with the HSM of a site; return what was said."""
    request, _ = years.ask(bundle)
    for who in ("sec1", "sec2"):
        years.approve(who, bundle, request)
    return again(years, site, bundle, request, out, *more, code=code)


def again(
    years: Years, site: str, bundle: str, request: str, out: str, *more: str, code: int = 0
) -> str:
    """Open a request that was approved, where the HSM of a site is."""
    words = ("open", bundle, request, "--tpm", years.tpm, *AT_HOST, *more)
    answers = ("--answers", f"answers-{request}", "--out", out)
    return years.world[site].run("host", *words, *answers, code=code).stderr


def test_a_bundle_opens_only_where_the_sites_hsm_answers(sited: Years) -> None:
    """Full quorum: without the HSM, or at another site, nothing; at its own site the model."""
    sited.seal("second", "--site", "fra1")
    said = at(sited, "pub", "second", "nowhere", code=3)
    assert "opens only with the HSM of the site" in said
    request = f"request-{sited.count}.dsse"
    elsewhere = ("--site", "homes/ams1")
    said = again(sited, "ams1", "second", request, "elsewhere", *elsewhere, code=1)
    assert "another site's HSM" in said
    # The home says which key it is; without the HSM that holds it the home is of no use.
    here = ("--site", "homes/fra1")
    said = again(sited, "ams1", "second", request, "copied", *here, code=3)
    assert "token" in said
    said = again(sited, "fra1", "second", request, "officers", "--site", "homes/sec1", code=1)
    assert "no site's" in said
    again(sited, "fra1", "second", request, "second-opened", *here)
    opened = sited.folder / "second-opened" / "weights"
    assert opened.read_bytes() == (sited.folder / "model-second" / "weights").read_bytes()
    for name in ("nowhere", "elsewhere", "copied", "officers"):
        assert not (sited.folder / name).exists()


def test_a_file_is_read_in_memory_with_the_sites_hsm(sited: Years) -> None:
    """`host read` asks the HSM as `host open` does."""
    sited.seal("read", "--site", "ams1")
    request, _ = sited.ask("read")
    for who in ("sec1", "sec2"):
        sited.approve(who, "read", request)
    words = ("host", "read", "read", request, "weights", "--tpm", sited.tpm, *AT_HOST)
    answers = ("--answers", f"answers-{request}")
    sited.world["ams1"].run(*words, *answers, code=3)
    done = sited.world["ams1"].run(*words, *answers, "--site", "homes/ams1")
    assert b"read" * 1000 == done.stdout.encode()


def test_the_policy_says_whose_hsm_it_takes(sited: Years) -> None:
    """Before they sign, custodians read it; afterwards what is sealed without a site is refused."""
    words = ("policy", "show", "env/policy-2.dsse", "--previous", "env/policy-1.dsse")
    said = json.loads(sited.run("ida", "custodian", *words, "--json").stdout)
    line = "a bundle opens only with the HSM of ams1 or fra1, whichever it was sealed for"
    assert line in said["says"]
    assert f"+ {line}" in said["changes"]
    before = sited.bundles["before"][:16]
    assert [f"bundle {before}… could be released no more: it opens without a site's HSM"] == [
        follows.partition(",")[0] for follows in said["follows"] if before in follows
    ]
    assert "opens without a site's HSM" in sited.ask("before", code=1)[1]


def test_the_key_of_a_site_derives_and_stays(sited: Years) -> None:
    """In the HSM: a key for this role alone, that derives, does not sign and is not destroyed."""
    actor = sited.world["fra1"]
    audit = json.loads(actor.run("token", "audit", str(actor.uri), "--json").stdout)
    (held,) = (o for o in audit["objects"] if o["kind"] == "private" and o["role"] == "site")
    assert "DERIVE" in held["flags"]
    assert not {"SIGN", "DECRYPT", "UNWRAP", "EXTRACTABLE", "DESTROYABLE"} & set(held["flags"])
    assert [] == [finding for finding in audit["findings"] if finding["weak"]]


@pytest.mark.parametrize(
    ("whose", "verb", "hint"),
    [
        ("sec1", "host site", "no second factor"),
        ("fra1", "host admit", "to be a second factor beside yours"),
        ("fra1", "officer enroll", "to be a second factor beside yours"),
    ],
)
def test_one_token_is_not_both_factors(sited: Years, whose: str, verb: str, hint: str) -> None:
    """Who has a token with a site's key and a share key in it has both halves: none is made."""
    actor = sited.world[whose]
    before = actor.run("token", "audit", str(actor.uri), "--json").stdout
    words = ("--invitation", "start/invitation.json", "--out", "both.dsse", "--home", "homes/both")
    said = actor.run(*verb.split(), "both", "--token", str(actor.uri), *words, code=1)
    assert hint in said.stderr
    assert before == actor.run("token", "audit", str(actor.uri), "--json").stdout
    assert not (sited.folder / "both.dsse").exists()


def test_an_auditor_is_told_whose_hsm_it_takes(sited: Years) -> None:
    """`who-can-open` names the site beside the shares, and nobody for what was sealed without."""
    sited.seal("third", "--site", "ams1")
    sited.run("ida", "auditor", "trust", sited.world.pin, "--home", "homes/aud")
    words = ("auditor", "who-can-open", "env", "--home", "homes/aud")
    shown = json.loads(sited.run("ida", *words, "--json").stdout)
    by_manifest = {one["manifest"]: one for one in shown["bundles"]}
    third, before = (by_manifest[sited.bundles[name]] for name in ("third", "before"))
    assert ("ams1", "") == (third["site"], before["site"])
    assert [] == before["allowed"]
    assert "opens without a site's HSM" in before["forbidden"]
    said = sited.run("ida", *words).stdout
    assert "by shares alone 2 of (sec1, sec2, sec3), and the HSM of site ams1" in said


def test_an_officer_reads_whose_hsm_it_takes(sited: Years) -> None:
    """A review says for which site a bundle was sealed."""
    sited.seal("fourth", "--site", "fra1")
    request, _ = sited.ask("fourth")
    said = sited.run("sec1", "officer", "review", "fourth", request).stdout
    assert "site       takes the HSM of site fra1" in said


def test_a_site_whose_hsm_agrees_on_no_curve(sited: Years) -> None:
    """A key that only decrypts is proven in a second round, and opens the site's half as well."""
    actor = sited.world.hire("lhr1", "site")
    sited.world.actors["lhr1"] = actor
    admission = "admissions/lhr1.dsse"
    words = ("--token", str(actor.uri), "--invitation", "start/invitation.json")
    rsa = ("--suite", "RSA3072_OAEP_SHA1", "--out", admission)
    actor.run("host", "site", "lhr1", *words, *rsa)
    sited.run("ida", "custodian", "challenge", admission, "--out", "lhr1.challenge")
    actor.run("host", "prove", "lhr1.challenge", "--out", "lhr1.answer")
    answered = ("--answer", "lhr1.answer", "--out", "env", "--yes")
    sited.run("ida", "custodian", "admit", admission, *answered)
    sited.weakest = "RSA3072_OAEP_SHA1"
    sited.next(admission)
    sited.seal("fifth", "--site", "lhr1")
    at(sited, "lhr1", "fifth", "fifth-opened", "--site", "homes/lhr1")
    opened = sited.folder / "fifth-opened" / "weights"
    assert opened.read_bytes() == (sited.folder / "model-fifth" / "weights").read_bytes()


def test_a_policy_whose_sites_are_all_revoked_is_not_signed(sited: Years) -> None:
    """Nothing could be sealed under it: the custodian is told before he signs."""
    lost = [path for site in ("fra1", "ams1", "lhr1") for path in sited.certificates(site)]
    assert 6 == len(lost)
    sited.crl("revoke", *lost, "--reason", "keyCompromise", "--yes")
    _, said = sited.propose(sited.draft(), code=1)
    assert "no site has a share key whose certificate holds" in said.stderr
