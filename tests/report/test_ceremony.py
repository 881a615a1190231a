"""The page of a ceremony: what it shows, and that a stranger's words stay words."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from custody.encoding import Digest
from custody.formats.transcript import Done, Event, Line
from custody.ops.audit_ceremony import JudgedCeremony
from custody.ops.spoken import spoken
from custody.ops.transcript import HeldScript
from custody.report.ceremony import render_ceremony
from custody.rules.ceremony import progress_of
from custody.rules.transcript import judge_transcript
from tests.report.test_page import check_structure, read
from tests.unit.formats import ceremony_example as example


def judged(lines: Sequence[Line], *, pin: Digest | None = None) -> JudgedCeremony:
    """Judge the example's ceremony."""
    held = HeldScript(script=example.script(), digest=example.DIGEST, data=example.SCRIPT)
    verdicts = judge_transcript(
        held.script, held.digest, lines, held.tokens, files=example.files(), pin=pin
    )
    return JudgedCeremony(
        held=held, lines=tuple(lines), progress=progress_of(lines), verdicts=verdicts
    )


def test_the_page_tells_every_step_and_digest() -> None:
    """Steps, tokens, keys, words to read aloud and signatures are on the page."""
    page = read(render_ceremony(judged(example.lines(), pin=example.lines()[-1].digest)))
    check_structure(page)
    text = page.text
    assert "✓ Sound" in text
    for words in (
        "alice makes keys as officer",
        "0a11",
        "X.509 Certificate for PIV Attestation",
        "Signed by alice",
        "software, not attested",
        "self-asserted, 2 keys attested by the vendor",
        "made in a YubiKey",
        "13078782",
        "5.2.6",
    ):
        assert words in text
    for line in spoken(example.lines()[-1].digest):
        assert line[10:] in text
    assert "begun more than once" not in text


def test_it_is_not_sound_by_itself() -> None:
    """Where nobody's digest was compared the page says no more than that the files agree."""
    text = read(render_ceremony(judged(example.lines()))).text
    assert "✓ Its files agree" in text
    assert "✓ Sound" not in text


def test_what_fails_is_on_top() -> None:
    """A transcript that was cut says so in its first lines, and its end is missing."""
    text = read(render_ceremony(judged(example.lines()[:-1]))).text
    assert "✗ Not sound" in text
    assert "it was not closed" in text
    assert "It was not closed." in text


def test_a_strangers_words_are_escaped() -> None:
    """A label that is markup is shown as it is, and changes nothing around it."""

    def marked(event: Event) -> Event:
        if not isinstance(event, Done):
            return event
        return replace(event, said=("<script>alert(1)</script>",))

    page = render_ceremony(judged(example.chained([marked(e) for e in example.events()])))
    assert b"<script" not in page
    assert b"&lt;script&gt;alert(1)" in page
