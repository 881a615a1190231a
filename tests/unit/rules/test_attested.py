"""Every fault put into what reads an AK's word, and into who judges by it, is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from custody.formats.burn import Burn
from custody.formats.envelope import Statement, decode_statement
from custody.formats.evidence import Quoted
from custody.formats.receipt import Receipt
from custody.rules import attested, burn
from custody.rules.verdicts import Ledger
from tests.unit.formats import spec_examples as examples
from tests.unit.formats.fixed import spki
from tests.unit.rules.mutants import Laboratory, Look
from tests.unit.rules.test_burn import (
    BODIES,
    CHANGES,
    CLOCK,
    CLOCKS,
    REQUEST,
    TERMS,
    attest_of,
    signed,
)


def _statements() -> list[Statement[Burn]]:
    said = examples.burn()
    good = attest_of(said)
    counts = [replace(CLOCK, reset_count=a, restart_count=b) for a, b in CLOCKS]
    attests = [
        good,
        *(replace(good, body=body) for body, _ in BODIES.values()),
        *(replace(good, clock=clock) for clock in counts),
        *(change(good) for change in CHANGES.values()),
        replace(good, body=Quoted(banks=examples.BANKS, pcr_digest=examples.PCR_DIGEST)),
    ]
    others = [msgspec.structs.replace(said, request="ab" * 32)]
    others.append(msgspec.structs.replace(said, counter=6))
    return [
        *(signed(said, attest) for attest in attests),
        *(signed(other, attest_of(other)) for other in others),
        signed(said, good, keyid=spki("alice sign").hex()[:64]),
        _altered(signed(said, good)),
    ]


def _altered(statement: Statement[Burn]) -> Statement[Burn]:
    (signature,) = statement.envelope.signatures
    other = msgspec.structs.replace(signature, sig=signature.sig[:-1] + b"\x01")
    envelope = msgspec.structs.replace(statement.envelope, signatures=(other,))
    return msgspec.structs.replace(statement, envelope=envelope)


def _look(statement: Statement[Burn]) -> Look:
    def look(names: Mapping[str, Any]) -> object:
        return names["check_burn"](statement, REQUEST)

    return look


def _look_at_a_quote(names: Mapping[str, Any]) -> object:
    receipt = decode_statement(Receipt, examples.EXAMPLES["receipt/example.dsse"])
    ledger = Ledger()
    attest = names["check_statement"](
        ledger, receipt, ak_public=examples.AK, kind=Quoted, check="receipt"
    )
    return ledger.verdicts, names["counter_value"](attest, bytes.fromhex(TERMS.nv_name))


#: Mutants that live, and why none of them is a fault.
EXPLAINED = {
    'module: P = TypeVar("P", bound=Predicate): another word': "only type checkers read it",
    "check_statement: signature = statement.envelope.signatures[0]: -1": "there is exactly one",
}


def test_no_fault_goes_unnoticed() -> None:
    """Of all mutants of burn receipts' rule, and of what it reads the AK's word by, none lives."""
    laboratory = Laboratory(burn, attested)
    assert 50 < len(list(laboratory.mutants()))
    looks = [*(_look(statement) for statement in _statements()), _look_at_a_quote]
    survivors = {mutant.name for mutant in laboratory.survivors(looks)}
    assert set(EXPLAINED) == survivors
