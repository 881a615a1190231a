"""What follows from measures: duties, and differences from a profile."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from custody.keys.pkcs11_probe import MEASURERS
from custody.keys.probe import MEASURES, Answer, Duty, Measured, differences, fitness
from custody.keys.profiles import UNKNOWN, profile_named

PROCESS = {"process.threads", "process.fork"}
KEPT = {id_ for id_ in MEASURES if id_.startswith("kept.")}


def all_yes(**changed: Answer) -> dict[str, Measured]:
    """Answer everything with yes, but for what is ``changed`` (dots written as two underscores).

    Of kept keys nothing is asked where throw-away ones have said it all.
    """
    answers: dict[str, Answer] = dict.fromkeys(KEPT, "untested")
    answers |= {name.replace("__", "."): answer for name, answer in changed.items()}
    assert set() == answers.keys() - MEASURES.keys()
    return {id_: Measured(id=id_, answer=answers.get(id_, "yes"), detail="") for id_ in MEASURES}


def verdicts(measured: dict[str, Measured]) -> dict[Duty, str]:
    """Return the verdict on each duty."""
    return {fit.duty: fit.verdict for fit in fitness(measured, UNKNOWN)}


def test_every_measure_is_made() -> None:
    """What is promised is measured, here or in a process of its own, and nothing else."""
    assert MEASURES.keys() == MEASURERS.keys() | PROCESS | KEPT
    assert set() == MEASURERS.keys() & (PROCESS | KEPT)


def test_a_token_that_does_everything_can_do_every_duty() -> None:
    """All yes is fit for all duties."""
    assert dict.fromkeys(get_args(Duty), "can") == verdicts(all_yes())


@pytest.mark.parametrize(
    ("changed", "hit"),
    [
        ("ec__p256", {"officer", "publisher", "site"}),
        ("ec__p384", {"ca"}),
        ("ecdsa__digest", {"officer", "publisher", "site", "ca"}),
        ("ecdh__raw", {"officer", "publisher", "site"}),
        ("template__full", {"officer", "publisher", "site", "ca"}),
        ("template__kek", {"kek"}),
        ("kwp", {"kek"}),
        ("oaep__sha256", set()),
        ("kwp__length", set()),
        ("process__threads", set()),
    ],
)
@pytest.mark.parametrize(("answer", "verdict"), [("no", "cannot"), ("untested", "not-shown")])
def test_one_lack_takes_duties_away(
    changed: str, hit: set[str], answer: Answer, verdict: str
) -> None:
    """A "no" to what a duty needs is a cannot; what nobody measured is not shown; others stay."""
    found = verdicts(all_yes(**{changed: answer}))
    assert {duty: verdict if duty in hit else "can" for duty in get_args(Duty)} == found


@pytest.mark.parametrize("kept", ["oaep-sha256", "oaep-sha1"])
def test_a_token_that_does_not_agree_can_decrypt(kept: str) -> None:
    """An officer's token may open shares by RSA, and it is said by which hash."""
    answers: dict[str, Answer] = {"ecdh__raw": "no", f"kept__{kept}": "yes"}
    measured = all_yes(**answers)
    (officer,) = (fit for fit in fitness(measured, UNKNOWN) if fit.duty == "officer")
    assert "can" == officer.verdict
    assert MEASURES[f"kept.{kept}"] == officer.because[-1]
    assert "cannot" == verdicts(measured | {"ecdsa.digest": measured["ecdh.raw"]})["officer"]


def test_a_token_without_throw_away_keys_shows_what_it_keeps() -> None:
    """Where nothing can be thrown away, the kept keys say it; each of them is needed."""
    unasked = dict.fromkeys(("ec__p256", "template__full", "ecdsa__digest"), "untested")
    shown = {"kept__sign": "yes", "kept__secret": "yes", "kept__oaep-sha256": "yes"}
    lacking: dict[str, Answer] = {**unasked, "ecdh__raw": "no", **shown}  # type: ignore[dict-item]
    assert "can" == verdicts(all_yes(**lacking))["officer"]
    for one in shown:
        assert "cannot" == verdicts(all_yes(**{**lacking, one: "no"}))["officer"]


def test_a_no_outweighs_what_was_not_measured() -> None:
    """One refusal decides, and both are told."""
    measured = all_yes(kwp="no", enforces__trusted="untested")
    (kek,) = (fit for fit in fitness(measured, UNKNOWN) if fit.duty == "kek")
    assert ("cannot", 2) == (kek.verdict, len(kek.because))
    assert kek.because[0].startswith("not so: wraps")
    assert kek.because[1].startswith("not measured: ")


def test_the_form_of_the_point_is_the_profiles() -> None:
    """A token that takes points in another form than its profile says opens no share."""
    measured = all_yes(ecdh__raw="no")
    der = msgspec.structs.replace(UNKNOWN, ecdh_point="der")
    assert "cannot" == verdicts(measured)["officer"]
    assert "can" == next(fit for fit in fitness(measured, der) if fit.duty == "officer").verdict


def test_differences_are_named_with_the_profiles_source() -> None:
    """What is offered and what is answered otherwise than the profile says is listed."""
    profile = profile_named("softhsm2")
    measured = {
        claim.id: Measured(id=claim.id, answer=claim.answer, detail="")
        for claim in profile.behaviour
    }
    offered = frozenset(profile.mechanisms)
    assert () == differences(measured, offered, profile)
    measured["oaep.sha256"] = Measured(id="oaep.sha256", answer="yes", detail="")
    measured["kwp"] = Measured(id="kwp", answer="untested", detail="")
    found = differences(measured, offered - {"ECDSA"}, profile)
    assert ["mechanism.ECDSA", "oaep.sha256"] == [item.id for item in found]
    assert ("no", "yes") == (found[1].expected, found[1].found)
    assert all(item.source.startswith("probed on SoftHSM") for item in found)
