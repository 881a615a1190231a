"""Whoever signs or releases something is judged as of his answer, however long he was waited for.

Real tokens (SoftHSM) and a TPM (swtpm), typed at a terminal; the clock goes on at each question.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from custody.encoding import utc_now
from custody.formats.enrolment import EnrolmentRequest
from custody.formats.envelope import decode_statement
from custody.formats.goldenset import GoldenSet
from custody.formats.policy import Policy
from custody.ops.desk import DeskFiles
from custody.ops.files import read_record
from custody.ops.home import Home
from tests.release.test_changes import Years, _enrol
from tests.release.waiting import DAY, HOUR, Typed, forgetful, type_late, typing
from tests.release.world import booted, challenge, founded

#: When no policy of these worlds is in force any more.
AGES = 800 * DAY
VOUCHING = ("--inventory", "inventory.txt", "--trust-class", "software")


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Years]:
    """An environment with one host and its boot state."""
    with founded(tmp_path_factory.mktemp("waited")) as world, booted(world) as tpm:
        for name in ("sec1", "sec2", "sec3", "pub", "ida", "cas"):
            world[name].run(world[name].role, "trust", world.pin)
        _enrol(world, tpm)
        world["pub"].run("host", "trust", world.pin, "--home", "homes/gpu-1")
        yield Years(world, tpm)


def late(years: Years, who: str, *words: str, waits: int = AGES, home: str = "") -> Typed:
    """Run a command of somebody's role at a terminal, where each question waits."""
    actor = years.world[who]
    return type_late(actor, actor.role, *words, waits=waits, home=home)


def test_an_enroller_retires_nothing_under_a_policy_that_has_ended(years: Years) -> None:
    """Answered after the policy's end, a retirement is not signed; answered soon it is."""
    words = ("retire", "env/gpu-1.dsse", "--reason", "sold", "--out")
    done = late(years, "erik", *words, "late.dsse")
    assert "judged anew, as of the answer" in done.after
    assert "not in force at" in done.after
    assert (1, False) == (done.code, (years.folder / "late.dsse").exists())
    soon = late(years, "erik", *words, "soon.dsse", waits=1)
    assert (0, True) == (soon.code, (years.folder / "soon.dsse").exists())
    assert "judged anew" not in soon.shown


def test_an_enroller_authorises_nothing_under_a_policy_that_has_ended(years: Years) -> None:
    """Nor is leave given to open kept keys."""
    done = late(years, "erik", "authorise", "env/lab-6.1.dsse", "--out", "leave.dsse")
    assert "not in force at" in done.after
    assert (1, False) == (done.code, (years.folder / "leave.dsse").exists())


def test_a_host_is_vouched_for_while_its_answer_counts(years: Years) -> None:
    """Eight days at the question: the challenge has expired by then, and no record is signed."""
    answer = challenge(years.world, years.tpm, "ewan", "gpu-1.json")
    words = ("record", "gpu-1.json", "--answer", answer, *VOUCHING, "--out", "again.dsse")
    done = late(years, "ewan", *words, waits=8 * DAY)
    assert "the challenge has expired" in done.after
    assert (1, False) == (done.code, (years.folder / "again.dsse").exists())


@pytest.mark.parametrize(
    ("days", "said"), [(8, "the answer is too old"), (800, "not in force at")], ids=["8", "800"]
)
def test_a_host_at_the_desk_is_vouched_for_while_its_answer_counts(
    years: Years, days: int, said: str
) -> None:
    """Nor one that answered the desk's server; it goes on waiting there."""
    request = read_record(EnrolmentRequest, years.folder / "gpu-1.json")
    desk = DeskFiles(Home(years.folder / "homes/ewan"))
    desk.put("waiting", request, at=utc_now())
    words = ("sign", request.digest(), *VOUCHING, "--out", "desk.dsse")
    done = late(years, "ewan", *words, waits=days * DAY)
    assert said in done.after
    assert (1, False) == (done.code, (years.folder / "desk.dsse").exists())
    assert [request.digest()] == [asked.request.digest() for asked in desk.waiting()]


def test_a_golden_set_bears_the_time_of_the_pin(years: Years) -> None:
    """Where nothing is asked but the PIN, that is waited for as well: no set is dated back."""
    words = ("golden", "boot.json", "--name", "late", "--epoch", "1", "--out")
    begun, home = utc_now(), forgetful(years.world["esme"])
    done = late(years, "esme", *words, "late-golden.dsse", waits=HOUR, home=home)
    assert 1 == done.shown.count("PIN of token esme"), done.shown
    said = decode_statement(GoldenSet, (years.folder / "late-golden.dsse").read_bytes()).predicate
    assert HOUR <= (said.issued_at - begun).total_seconds() < 2 * HOUR
    refused = late(years, "esme", *words, "never.dsse", home=home)
    assert "not in force at" in refused.shown
    assert (1, False) == (refused.code, (years.folder / "never.dsse").exists())


def test_a_bundle_is_destroyed_under_no_policy_that_has_ended(years: Years) -> None:
    """A publisher's late yes destroys nothing."""
    years.seal("old")
    years.seal("new", "--replaces", years.bundles["old"])
    before = sorted(path.name for path in (years.folder / "old").iterdir())
    done = late(years, "pub", "retire", "old", "--out", "disposal.dsse")
    assert "not in force at" in done.after
    assert (1, False) == (done.code, (years.folder / "disposal.dsse").exists())
    assert before == sorted(path.name for path in (years.folder / "old").iterdir())


def test_a_bundle_is_sealed_as_of_the_pin(years: Years) -> None:
    """Of a bundle whose own end, or policy's, came while the PIN was waited for nothing is left."""
    model = years.folder / "model-late"
    model.mkdir()
    (model / "weights").write_bytes(b"late" * 1000)
    words = ("seal", "model-late", "--name", "late", "--release", "1", "--out", "late")
    home = forgetful(years.world["pub"])
    for days, said in ((2, "is over already"), (800, "not in force at")):
        done = late(years, "pub", *words, "--days", "1", waits=days * DAY, home=home)
        assert said in done.shown, done.shown
        assert (1, False) == (done.code, (years.folder / "late").exists())


def test_no_ak_is_certified_by_a_record_of_a_policy_that_has_ended(years: Years) -> None:
    """An attestation authority's PIN is waited for too."""
    erik = years.world["erik"]
    ca = ("ca", "init", "rack", "--token", typing(str(erik.uri)))
    made = late(years, "erik", *ca, "--out", "rack", waits=0)
    assert 0 == made.code, made.shown
    words = ("ca", "issue-ak", "--record", "env/gpu-1.dsse", "--out", "ak.pem")
    done = late(years, "erik", *words)
    assert "not in force at" in done.shown
    assert (1, False) == (done.code, (years.folder / "ak.pem").exists())


def ending(years: Years, *names: str, days: int) -> str:
    """Certify people for so many days only; return the folder that has no other certificates."""
    folder = years.folder / f"{years.fresh('soon')}"
    folder.mkdir()
    for path in (years.folder / "env").iterdir():
        if path.suffix != ".cer" or path.name.partition(".")[0] not in names:
            (folder / path.name).write_bytes(path.read_bytes())
    offers = [f"admissions/{name}.dsse" for name in names]
    words = ("custodian", "admit", *offers, "--days", str(days), "--yes", "--out", folder.name)
    years.run("ida", *words)
    return folder.name


@pytest.mark.parametrize("verb", ["approve", "deny"])
def test_a_late_yes_by_a_certificate_that_has_ended_answers_nothing(
    years: Years, verb: str
) -> None:
    """An officer whose certificate ended while his terminal waited approves and denies nothing."""
    soon, bundle = ending(years, "sec1", days=1), years.fresh("certified")
    years.seal(bundle)
    request, _ = years.ask(bundle)
    more = ("--reason", "no") if verb == "deny" else ()
    if verb == "deny":
        # Then there is a question to wait at.
        years.approve("sec1", bundle, request)
    words = (verb, bundle, request, *more, "--env", soon, "--out", f"answers-{request}")
    before = sorted((years.folder / f"answers-{request}").glob("*"))
    done = late(years, "sec1", *words, waits=30 * HOUR)
    assert "judged anew, as of the answer" in done.after, done.shown
    assert "certificate" in done.after
    assert (1, before) == (done.code, sorted((years.folder / f"answers-{request}").glob("*")))
    soon_enough = late(years, "sec1", *words, waits=1)
    assert 0 == soon_enough.code, soon_enough.shown


def test_a_policy_is_signed_by_what_follows_at_the_answer(years: Years) -> None:
    """Certificates ended at the question: a policy that locks everybody out by then is not
    signed, though it was sound when it was shown.
    """
    soon = ending(years, "sec1", "sec2", "sec3", days=2)
    proposed, _ = years.propose(years.draft())
    words = ("policy", "sign", proposed, "--previous", "env/policy-1.dsse", "--env", soon)
    done = late(years, "cas", *words, "--out", "signed.dsse", waits=3 * DAY)
    assert "[y/N]: y" in done.shown, done.shown
    assert "custody: error:" in done.after
    assert (1, False) == (done.code, (years.folder / "signed.dsse").exists())
    soon_enough = late(years, "cas", *words, "--out", "signed.dsse", waits=1)
    assert 0 == soon_enough.code, soon_enough.shown


def test_a_policy_is_proposed_by_what_follows_at_the_pin(years: Years) -> None:
    """Likewise where nothing but the PIN is asked; and it bears the time of that."""
    soon, draft = ending(years, "sec1", "sec2", "sec3", days=2), years.draft()
    words = ("policy", "propose", draft, "--previous", "env/policy-1.dsse", "--env", soon, "--out")
    begun, home = utc_now(), forgetful(years.world["ida"])
    done = late(years, "ida", *words, "never-proposed.dsse", waits=3 * DAY, home=home)
    assert "PIN of token ida" in done.shown, done.shown
    assert "custody: error:" in done.shown.partition("PIN of token ida")[2]
    assert (1, False) == (done.code, (years.folder / "never-proposed.dsse").exists())
    made = late(years, "ida", *words, "proposed.dsse", waits=HOUR, home=home)
    assert 0 == made.code, made.shown
    said = decode_statement(Policy, (years.folder / "proposed.dsse").read_bytes()).predicate
    assert HOUR <= (said.issued_at - begun).total_seconds() < 2 * HOUR
