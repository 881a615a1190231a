"""Every fault put into rules/attestation and rules/evidence is noticed, or is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from custody.rules import attestation, evidence
from tests.unit.crypto.vectors import read
from tests.unit.rules.attesting import Case
from tests.unit.rules.mutants import Laboratory, Look
from tests.unit.rules.wrong_evidence import cases


def _look(case: Case) -> Look:
    def look(names: Mapping[str, Any]) -> object:
        return case.judged_by(names["check_evidence"])

    return look


def test_no_fault_goes_unnoticed() -> None:
    """Of all mutants of the rules only those survive that tests/vectors/mutants explains."""
    laboratory = Laboratory(attestation, evidence)
    looks = [_look(case) for case in cases()]
    explained = {vector["mutant"]: vector["why"] for vector in _explained()}
    survivors = {mutant.name for mutant in laboratory.survivors(looks)}
    assert sorted(explained) == sorted(survivors)
    assert all(explained.values())


def test_there_are_faults_to_notice() -> None:
    """Each condition of each check is changed somehow: a runner that finds nothing proves nothing.

    Every check that the rules write down is made to hold always in one of the mutants.
    """
    names = [mutant.name for mutant in Laboratory(attestation, evidence).mutants()]
    always = [name for name in names if name.endswith("holds always")]
    assert 300 < len(names)
    assert 25 < len(always)


def _explained() -> list[dict[str, str]]:
    return read("mutants/attestation.txt", "mutant", "why")
