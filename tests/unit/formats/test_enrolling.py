"""What an enroller's server says: enrolling.md."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.encoding import Record, decode, encode
from custody.errors import Malformed
from custody.formats.enrolling import Refusal, Waiting
from custody.ops import desk
from custody.transports import enrolment_server as server
from tests.unit.formats.examples import DOCUMENTS

TEXT = (DOCUMENTS / "enrolling.md").read_text()
EXAMPLES = dict(re.findall(r"```json enrolling=(\w+)\n(.*)\n```", TEXT))
KINDS: dict[str, type[Record]] = {"refusal": Refusal, "waiting": Waiting}


@pytest.mark.parametrize("name", KINDS)
def test_an_example_is_read(name: str) -> None:
    """As it stands in the document."""
    data = EXAMPLES[name].encode()
    assert data == encode(decode(KINDS[name], data))


def test_the_document_has_its_sections_in_order() -> None:
    """The example before any rule."""
    sections = ("Example", "Conventions", "Fields", "Verifying", "What is not auth", "Limits")
    places = [TEXT.find(f"\n## {section}") for section in (*sections, "Rationale")]
    assert -1 not in places
    assert sorted(places) == places


def test_the_limits_are_those_of_the_program() -> None:
    """Every number of the document."""
    for words in (
        f"{server.MAX_BODY_BYTES >> 10} KiB a body",
        f"{server.REQUESTS_A_MINUTE} requests a minute",
        f"{server.MAX_CONNECTIONS} connections, {server.CONNECTION_SECONDS} seconds each",
        f"At most {desk.MAX_OPEN_OF_ONE_EK} challenges of one EK are open, and {desk.MAX_OPEN}",
        f"at most {desk.ANSWER_LIFE.seconds // 60} minutes old",
        f"for at most {desk.WAITING_LIFE.days} days",
        f"kept for\n{desk.RECORD_LIFE.days} days",
    ):
        assert words in TEXT, words


@pytest.mark.parametrize(
    "change",
    [
        ('"endorsement.inventory"', '""'),
        ('"endorsement.inventory"', '"a check"'),
        ('"endorsement.inventory"', '"x\\u001b[31m"'),
        ("is not on the inventory", "is not\\non the inventory"),
        ('"hint":null', '"hint":7'),
        ('"hint":null,', ""),
    ],
)
def test_a_refusal_that_is_none_is_malformed(change: tuple[str, str]) -> None:
    """A server cannot make the terminal of who asks do anything, nor say what is no check."""
    good = EXAMPLES["refusal"]
    assert change[0] in good
    with pytest.raises(Malformed):
        decode(Refusal, good.replace(*change).encode())


@given(st.binary(max_size=300), st.sampled_from(sorted(KINDS)))
def test_junk_is_malformed(data: bytes, name: str) -> None:
    """Whatever a server sends."""
    with suppress(Malformed):
        assert data == encode(decode(KINDS[name], data))
