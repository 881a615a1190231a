"""What shows that a request's key is dead, and what does not.  No TPM: its bytes are made here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import msgspec
import pytest

from custody.crypto.bind import bind
from custody.encoding import key_id
from custody.formats.burn import Burn
from custody.formats.envelope import (
    Signature,
    Statement,
    decode_statement,
    encode_statement,
    statement_digest,
)
from custody.formats.evidence import (
    RH_ENDORSEMENT,
    RH_NULL,
    Attest,
    ClockInfo,
    NvCertified,
    Quoted,
    counter_public,
    name,
    nv_name,
    pack_quote,
    qualified_name,
)
from custody.formats.request import Request
from custody.rules.burn import check_burn
from custody.rules.verdicts import passed
from tests.unit.formats import spec_examples as examples
from tests.unit.formats.fixed import spki

REQUEST = decode_statement(Request, examples.EXAMPLES["request/example.dsse"])
TERMS = REQUEST.predicate.terms
COUNTER = NvCertified(
    index_name=bytes.fromhex(TERMS.nv_name), offset=0, contents=(8).to_bytes(8, "big")
)
CLOCK = ClockInfo(clock_ms=73_400_500, reset_count=3, restart_count=0, safe=True)


def attest_of(burn: Burn, *, tag: str = "burn") -> Attest:
    """Return what the AK certifies for a burn receipt."""
    return Attest(
        signer=qualified_name(RH_ENDORSEMENT, name(examples.AK)),
        extra_data=bind(tag, bytes.fromhex(statement_digest(burn))),
        clock=CLOCK,
        firmware_version=examples.FIRMWARE,
        body=COUNTER,
    )


def signed(burn: Burn, attest: Attest, *, keyid: str = "") -> Statement[Burn]:
    """Have the AK sign an attestation, and put it where the signature is."""
    packed = attest.pack()
    sig = pack_quote(packed, examples.tpm_signature(packed).pack())
    keyid = keyid or key_id(spki("ak"))
    return decode_statement(Burn, encode_statement(burn, [Signature(keyid=keyid, sig=sig)]))


def failed(statement: Statement[Burn]) -> set[str]:
    """List the checks that fail."""
    return {v.check for v in check_burn(statement, REQUEST) if v.outcome == "fail"}


def test_a_good_burn_receipt_holds() -> None:
    """A certificate of the terms' counter above N, over the statement, passes every check."""
    verdicts = check_burn(signed(examples.burn(), attest_of(examples.burn())), REQUEST)
    assert passed(verdicts)
    assert [
        "burn.request",
        "burn.signature",
        "burn.binding",
        "burn.counter",
        "burn.value",
        "burn.boot",
    ] == [v.check for v in verdicts]


BODIES: dict[str, tuple[NvCertified, str]] = {
    "another index": (
        replace(COUNTER, index_name=nv_name(counter_public(0x01800C01).pack())),
        "burn.counter",
    ),
    "an offset": (replace(COUNTER, offset=1), "burn.counter"),
    "seven bytes": (replace(COUNTER, contents=bytes(6) + b"\x08"), "burn.counter"),
    "nine bytes": (replace(COUNTER, contents=bytes(8) + b"\x08"), "burn.counter"),
    "the value N": (replace(COUNTER, contents=(7).to_bytes(8, "big")), "burn.value"),
    "a value below N": (replace(COUNTER, contents=bytes(8)), "burn.value"),
}


@pytest.mark.parametrize("what", BODIES)
def test_a_certificate_of_something_else_is_refused(what: str) -> None:
    """Only the whole counter of the terms, above N, shows that H is dead."""
    body, check = BODIES[what]
    attest = replace(attest_of(examples.burn()), body=body)
    assert {check} == failed(signed(examples.burn(), attest))


CLOCKS: dict[tuple[int, int], set[str]] = {
    (3, 0): set(),
    (3, 1): set(),
    (4, 0): set(),
    (2, 9): {"burn.boot"},
    (0, 0): {"burn.boot"},
}


@pytest.mark.parametrize("counts", CLOCKS)
def test_a_later_boot_is_good_and_an_earlier_one_is_not(counts: tuple[int, int]) -> None:
    """A counter certified after a reboot counts; boot counts below the terms' never do."""
    reset, restart = counts
    clock = replace(CLOCK, reset_count=reset, restart_count=restart)
    attest = replace(attest_of(examples.burn()), clock=clock)
    assert CLOCKS[counts] == failed(signed(examples.burn(), attest))


CHANGES: dict[str, Callable[[Attest], Attest]] = {
    "bound to another statement": partial(replace, extra_data=bytes(32)),
    "bound as a receipt is": lambda _: attest_of(examples.burn(), tag="receipt"),
    "nothing bound": partial(replace, extra_data=b""),
    "an AK of another hierarchy": partial(
        replace, signer=qualified_name(RH_NULL, name(examples.AK))
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_certificate_over_something_else_is_refused(what: str) -> None:
    """The certificate must be over this statement, by the AK where it was enrolled."""
    attest = CHANGES[what](attest_of(examples.burn()))
    assert {"burn.binding"} == failed(signed(examples.burn(), attest))


def test_a_quote_is_no_certificate() -> None:
    """A quote over the same data, by the same AK, says nothing about a counter."""
    attest = replace(
        attest_of(examples.burn()),
        body=Quoted(banks=examples.BANKS, pcr_digest=examples.PCR_DIGEST),
    )
    assert {"burn.signature"} == failed(signed(examples.burn(), attest))


def test_another_signer_is_refused() -> None:
    """A bad signature, and an envelope that names another key, are refused."""
    good = attest_of(examples.burn())
    assert {"burn.signature"} == failed(
        signed(examples.burn(), good, keyid=key_id(spki("alice sign")))
    )
    packed = replace(good, firmware_version=1).pack()
    sig = pack_quote(packed, examples.tpm_signature(good.pack()).pack())
    data = encode_statement(examples.burn(), [Signature(keyid=key_id(spki("ak")), sig=sig)])
    assert {"burn.signature"} == failed(decode_statement(Burn, data))


@pytest.mark.parametrize("change", [{"request": "ab" * 32}, {"counter": 6}])
def test_a_burn_receipt_of_another_request_is_refused(change: dict[str, object]) -> None:
    """Request and N must be those of the request it is shown for."""
    burn = msgspec.structs.replace(examples.burn(), **change)
    assert {"burn.request"} == failed(signed(burn, attest_of(burn)))
