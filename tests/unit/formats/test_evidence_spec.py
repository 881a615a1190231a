"""The spec's worked example is the recorded one, and does what the spec says."""

from __future__ import annotations

import re
from pathlib import Path

from custody.crypto.bind import bind
from custody.formats import evidence
from tests.unit.formats.test_evidence import RECORDED

SPEC = Path(evidence.__file__).with_name("evidence.md").read_text(encoding="utf-8")
#: Hexadecimal stands in the first 40 columns, words behind it.
EXAMPLES = [
    bytes.fromhex("".join(line[:40] for line in text.splitlines()))
    for text in re.findall(r"```\n(.*?)```", SPEC, re.DOTALL)
]


def test_the_example_is_the_recorded_quote() -> None:
    """The first example is a quote container, byte for byte the recorded one."""
    packed = evidence.pack_quote(RECORDED["quote"], RECORDED["quote signature"])
    assert packed == EXAMPLES[0]
    assert bind("request", b"example") == evidence.parse_attest(RECORDED["quote"]).extra_data


def test_the_examples_key_signed_it() -> None:
    """The second example is the AK whose signature the first one carries."""
    assert RECORDED["ak"] == EXAMPLES[1]
    evidence.verify_attest(EXAMPLES[1], *evidence.unpack_quote(EXAMPLES[0]))
    assert evidence.name(EXAMPLES[1]).hex() in SPEC


def test_the_tables_attributes_are_the_templates() -> None:
    """Every attribute word in the spec's table is its template's."""
    for template in (
        evidence.AK_TEMPLATE,
        evidence.HOST_PARENT_TEMPLATE,
        evidence.host_key_template(evidence.Curve.P384, bytes(32)),
    ):
        assert f"`{int(template.attributes):08x}`" in SPEC
    assert f"`{int(evidence.counter_public(0x01800C00).attributes):08x}`" in SPEC
