"""What shows that a kept key is dead, and what does not.  No TPM: its bytes are made here."""

from __future__ import annotations

import msgspec
import pytest

from custody.encoding import key_id
from custody.formats.envelope import Signature, Statement, decode_statement, encode_statement
from custody.formats.forgotten import Forgotten
from custody.formats.request import Request
from custody.rules.forgotten import check_forgotten
from tests.unit.formats import spec_examples as examples
from tests.unit.formats.disposal_examples import forgot, forgotten
from tests.unit.formats.fixed import sign, spki

REQUEST = decode_statement(Request, examples.EXAMPLES["request/example.dsse"])
SAID = msgspec.structs.replace(
    forgot(), request=REQUEST.digest, manifest=REQUEST.predicate.terms.manifest
)


def failed(data: bytes) -> set[str]:
    """List the checks that fail."""
    statement: Statement[Forgotten] = decode_statement(Forgotten, data)
    return {v.check for v in check_forgotten(statement, REQUEST) if v.outcome == "fail"}


def test_a_good_one_holds() -> None:
    """The AK certifies the counter that is named, above where it stood, over the statement."""
    assert set() == failed(forgotten(SAID))


@pytest.mark.parametrize(
    ("change", "value", "index", "check"),
    [
        ({"request": "ab" * 32}, 5, 0x01800C10, "forgotten.request"),
        ({"manifest": "ab" * 32}, 5, 0x01800C10, "forgotten.request"),
        ({}, 4, 0x01800C10, "forgotten.value"),
        ({}, 3, 0x01800C10, "forgotten.value"),
        ({}, 5, 0x01800C11, "forgotten.value"),
        ({"counter_index": 0x01800C11}, 5, 0x01800C10, "forgotten.value"),
        ({"counter": 5}, 5, 0x01800C10, "forgotten.value"),
    ],
)
def test_what_shows_nothing(change: dict[str, object], value: int, index: int, check: str) -> None:
    """Another request, a counter that stands where it stood, another counter."""
    said = msgspec.structs.replace(SAID, **change)
    assert {check} == failed(forgotten(said, value=value, index=index))


def test_a_certificate_over_something_else_or_by_another_is_none() -> None:
    """A certificate of another statement, and a signature that is no TPM's, show nothing."""
    good = decode_statement(Forgotten, forgotten(SAID)).envelope.signatures[0]
    later = msgspec.structs.replace(SAID, forgotten_at=SAID.forgotten_at.replace(year=2028))
    assert {"forgotten.binding"} == failed(encode_statement(later, [good]))
    other = Signature(keyid="0" * 64, sig=good.sig)
    assert {"forgotten.signature"} == failed(encode_statement(SAID, [other]))
    plain = Signature(keyid=key_id(spki("ak")), sig=sign("ak", b"anything"))
    assert {"forgotten.signature"} == failed(encode_statement(SAID, [plain]))
