"""An environment from nothing, by files: every person a process with a token store of his own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from custody.encoding import utc_now
from custody.ops.folders import read_folder
from custody.ops.home import Home
from custody.ops.trust import current
from custody.rules.people import check_key
from custody.rules.trust import count_signers
from custody.rules.verdicts import passed
from tests.release.world import World, booted, challenge, founded, record


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An environment whose enrollers trust its policy."""
    with founded(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module")
def tpm(world: World) -> Iterator[str]:
    """The URI of a host's TPM that has booted, whose EK is on the inventory."""
    with booted(world) as uri:
        yield uri


@pytest.fixture(scope="module")
def request_file(world: World, tpm: str) -> str:
    """A host's enrolment request, with the inventory that lists it."""
    words: tuple[str, ...] = (
        "host",
        "enroll",
        "gpu-1",
        "--tpm",
        tpm,
        "--out",
        "gpu-1.json",
        "--json",
    )
    asked = json.loads(world["pub"].run(*words).stdout)
    (world.folder / "inventory.txt").write_text(f"{asked['ek']}  # rack 3\n")
    return "gpu-1.json"


def test_the_policy_is_trusted_and_every_key_has_a_good_certificate(world: World) -> None:
    """What files alone have made is a policy in force, and nobody in it lacks a certificate."""
    situation = current(
        Home(world["erik"].home), documents=read_folder(world.folder / "env"), now=utc_now()
    )
    policy = situation.trusted.policy
    assert sorted(world.actors) == [person.id for person in policy.principals]
    for person in policy.principals:
        for key in person.keys:
            assert passed(check_key(person, key, situation)), person.id


def test_a_host_is_enrolled_by_two_enrollers(world: World, tpm: str, request_file: str) -> None:
    """A record and a golden set count once two enrollers have signed each, and not before."""
    first = challenge(world, tpm, "erik", request_file)
    record(world, "erik", request_file, first, "half.dsse")
    second = challenge(world, tpm, "esme", request_file)
    record(world, "esme", request_file, second, "env/gpu-1.dsse", "--onto", "half.dsse")
    world["pub"].run("host", "measure", "--tpm", tpm, "--pcrs", "0-7", "--out", "boot.json")
    words: tuple[str, ...] = ("enroller", "golden", "boot.json")
    world["erik"].run(*words, "--name", "lab-6.1", "--epoch", "1", "--out", "half-golden.dsse")
    other = (*words, "--onto", "half-golden.dsse", "--epoch", "2", "--out", "other.dsse")
    assert "--epoch: the set of --onto says otherwise" in world["esme"].run(*other, code=2).stderr
    world["esme"].run(*words, "--onto", "half-golden.dsse", "--out", "env/lab-6.1.dsse")

    documents = read_folder(world.folder / "env")
    situation = current(Home(world["erik"].home), documents=documents, now=utc_now())
    policy = situation.trusted.policy
    (vouched,), (golden,) = documents.enrolments, documents.golden_sets
    half = read_folder(world.folder / "half.dsse").enrolments[0]
    signers = [
        count_signers(statement.envelope, policy, role="enroller", needed=2).signers
        for statement in (vouched, golden, half)
    ]
    assert [("erik", "esme"), ("erik", "esme"), ("erik",)] == signers
    assert half.digest == vouched.digest


def test_a_challenge_is_good_for_one_answer(world: World, tpm: str, request_file: str) -> None:
    """The same answer given twice is incomplete the second time: the challenge is used up."""
    answer = challenge(world, tpm, "ewan", request_file)
    record(world, "ewan", request_file, answer, "ewan-1.dsse")
    done = record(world, "ewan", request_file, answer, "ewan-2.dsse", code=4)
    assert "custody: error: you have no challenge open for this request" in done.stderr
    assert not (world.folder / "ewan-2.dsse").exists()


def test_a_wrong_proof_uses_the_challenge_up(world: World, tpm: str, request_file: str) -> None:
    """An answer with another proof is refused, and the right one no longer helps."""
    answer = world.folder / challenge(world, tpm, "ewan", request_file)
    right = answer.read_text()
    proof = json.loads(right)["proof"]
    answer.write_text(right.replace(proof, proof[::-1]))
    done = record(world, "ewan", request_file, answer.name, "wrong.dsse", code=1)
    assert "not shown to be in one TPM" in done.stderr
    answer.write_text(right)
    record(world, "ewan", request_file, answer.name, "wrong.dsse", code=4)


def test_an_answer_to_somebody_else_is_refused(world: World, tpm: str, request_file: str) -> None:
    """One enroller cannot use the answer another got, and loses nothing by trying."""
    theirs = challenge(world, tpm, "erik", request_file)
    own = challenge(world, tpm, "ewan", request_file)
    done = record(world, "ewan", request_file, theirs, "borrowed.dsse", code=1)
    assert "answers another challenge" in done.stderr
    record(world, "ewan", request_file, own, "own.dsse")


def test_a_tpm_off_the_inventory_is_not_challenged(world: World, request_file: str) -> None:
    """A vendor's chain alone is any TPM in the world."""
    (world.folder / "empty.txt").write_text("# nothing approved yet\n")
    words: tuple[str, ...] = ("--inventory", "empty.txt", "--out", "never.json")
    done = world["ewan"].run("enroller", "challenge", request_file, *words, code=1)
    assert "is not on the inventory" in done.stderr
    assert not (world.folder / "never.json").exists()


def test_a_class_the_policy_does_not_take_is_refused(
    world: World, tpm: str, request_file: str
) -> None:
    """A software TPM cannot be enrolled as hardware where the policy wants software."""
    answer = challenge(world, tpm, "ewan", request_file)
    words: tuple[str, ...] = (
        "--answer",
        answer,
        "--inventory",
        "inventory.txt",
        "--trust-class",
        "hardware",
    )
    done = world["ewan"].run(
        "enroller", "record", request_file, *words, "--yes", "--out", "hw.dsse", code=1
    )
    assert "the policy takes no hardware hosts" in done.stderr


def test_a_second_record_must_be_the_same(world: World, tpm: str, request_file: str) -> None:
    """An enroller does not sign another's record of the same host under another name."""
    renamed = json.loads(
        world["pub"]
        .run("host", "enroll", "gpu-2", "--tpm", tpm, "--out", "gpu-2.json", "--json")
        .stdout
    )["file"]
    record(world, "erik", renamed, challenge(world, tpm, "erik", renamed), "gpu-2.dsse")
    answer = challenge(world, tpm, "esme", request_file)
    done = record(world, "esme", request_file, answer, "mixed.dsse", "--onto", "gpu-2.dsse", code=1)
    assert "the record differs from what you found yourself: host" in done.stderr


def test_the_next_version_brings_a_second_token_and_a_revocation(world: World) -> None:
    """Version 2 adds sec2's second token; a revoked key of sec3 is good no more."""
    spare = world.hire("sec2", "officer", token="sec2-spare")
    spare = replace(spare, world=world.folder)
    words: tuple[str, ...] = ("--token", str(spare.uri), "--invitation", "start/invitation.json")
    spare.run(
        "officer", "enroll", "sec2", *words, "--home", "homes/sec2-spare", "--out", "spare.dsse"
    )
    ida, cas = world["ida"], world["cas"]
    ida.run("custodian", "admit", "spare.dsse", "--out", "env", "--yes")
    before = ("--previous", "env/policy-1.dsse")
    words = ("draft.toml", "--admission", "spare.dsse", *before, "--out", "policy-2.dsse")
    ida.run("custodian", "policy", "propose", *words)
    words = ("policy-2.dsse", *before, "--yes", "--out", "env/policy-2.dsse", "--json")
    shown = json.loads(cas.run("custodian", "policy", "sign", *words).stdout)
    assert shown["complete"]
    assert 2 == shown["version"]
    assert 2 == sum(line.startswith("+   sec2 ") for line in shown["changes"])

    (certificate,) = (world.folder / "env").glob("sec3.sign-*.cer")
    words = (str(certificate), "--reason", "keyCompromise", "--yes", "--out", "env/authority-2.crl")
    ida.run("custodian", "revoke", *words)
    home, documents = Home(world["erik"].home), read_folder(world.folder / "env")
    situation = current(home, documents=documents, now=utc_now())
    assert (2, 2) == (home.memory().policy_version, home.memory().crls[0].number)
    policy = situation.trusted.policy
    outcome = {
        person.id: all(passed(check_key(person, key, situation)) for key in person.keys)
        for person in policy.principals
        if "officer" in person.roles
    }
    assert {"sec1": True, "sec2": True, "sec3": False} == outcome


def test_a_policy_short_of_its_threshold_is_not_trusted(world: World) -> None:
    """One custodian's signature makes no policy."""
    home = ("--home", "homes/auditor", "--env", "policy-1.dsse")
    done = world["pub"].run("auditor", "trust", world.pin, *home, code=1)
    assert "signed by 1 of the 2 custodians it needs" in done.stderr


def test_a_wrong_pin_is_refused_once(world: World) -> None:
    """A wrong PIN ends the command with one line; nothing is written."""
    actor = world["ida"]
    home = json.loads((actor.home / "identity.json").read_bytes())
    assert "pin-source" in home["token"]
    wrong = world.folder / "wrong-pin"
    wrong.write_text("000000\n")
    wrong.chmod(0o600)
    words: tuple[str, ...] = (
        "publisher",
        "enroll",
        "mallory",
        "--invitation",
        "start/invitation.json",
    )
    uri = replace(actor.uri, pin_source=str(wrong))
    done = actor.run(
        *words, "--token", str(uri), "--home", "homes/m", "--out", "mallory.dsse", code=1
    )
    assert 1 == done.stderr.count("custody: error:")
    assert "PIN" in done.stderr
    assert "000000" not in done.stderr + done.stdout
    assert not (world.folder / "mallory.dsse").exists()
