from __future__ import annotations

import re
import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from custody.encoding import Text
from custody.errors import Malformed
from custody.formats.eventlog import (
    ALG_SHA1,
    ALG_SHA256,
    MAX_EVENT_BYTES,
    MAX_LOG_BYTES,
    NO_REGISTER,
    Bank,
    Event,
    EventLog,
    EventType,
    SpecId,
    parse_event_log,
)
from custody.formats.eventwords import MAX_LABEL_CHARS, describe, variable
from tests.unit.eventlogs import BANKS, SPEC, boot, event, genuine, log, public

GENUINE = ("plain", "kernel", "cmdline", "banks", "sha1", "secureboot")
PUBLIC = {
    "go-attestation-crypto_agile_eventlog": 26,
    "go-attestation-ebs_event_missing_eventlog": 38,
    "go-attestation-option_rom_eventlog": 61,
    "go-attestation-sb_cert_eventlog": 14,
    "go-attestation-short_no_action_eventlog": 1,
    "go-attestation-ubuntu_2104_shielded_vm_no_secure_boot_eventlog": 105,
    "keylime-supermicro": 59,
    "keylime-swtpm": 103,
    "keylime-thinkpad": 58,
    "keylime-ubuntu_qemu": 105,
}
GOOD = log(*boot()).pack()
HEAD = log().pack()


@pytest.mark.parametrize("name", GENUINE)
def test_a_genuine_log_is_read_and_written_back(name: str) -> None:
    """What firmware and kernel wrote parses, and packing it gives the same bytes."""
    data = genuine(name)
    assert data == parse_event_log(data).pack()


@pytest.mark.parametrize(("name", "events"), PUBLIC.items())
def test_a_public_log_is_read_and_written_back(name: str, events: int) -> None:
    """Logs of real machines, the odd ones too, parse whole and pack to the same bytes."""
    data = public(name)
    parsed = parse_event_log(data)
    assert (events, data) == (len(parsed.events), parsed.pack())


def test_the_old_form_has_one_bank() -> None:
    """A log that begins with no Spec ID event is SHA-1's, whatever its first event is."""
    parsed = parse_event_log(public("go-attestation-short_no_action_eventlog"))
    assert (None, (Bank(ALG_SHA1, 20),)) == (parsed.spec, parsed.banks)
    assert b"StartupLocality\0\x03" == parsed.events[0].data


def test_windows_has_events_in_no_register() -> None:
    """Register ffffffff is kept where nothing is extended."""
    last = parse_event_log(public("keylime-thinkpad")).events[-1]
    assert (NO_REGISTER, EventType.NO_ACTION) == (last.pcr, last.kind)


def test_an_unknown_type_is_kept() -> None:
    """Parsing judges no type: whoever shows a log must be able to show all of it."""
    data = log(event(1, 0x1234, b"?")).pack()
    assert 0x1234 == parse_event_log(data).events[0].kind


def raw(*parts: bytes) -> bytes:
    """Put a log together behind a good first event."""
    return HEAD + b"".join(parts)


def agile(pcr: int, kind: int, digests: bytes, data: bytes = b"", *, count: int = 1) -> bytes:
    """Write an event with whatever digests."""
    return struct.pack("<III", pcr, kind, count) + digests + struct.pack("<I", len(data)) + data


DIGEST = struct.pack("<H", ALG_SHA256) + bytes(32)
SHA1_DIGEST = struct.pack("<H", ALG_SHA1) + bytes(20)
SPEC_EVENT = b"Spec ID Event03\0"


def spec(data: bytes, *, pcr: int = 0, digest: bytes = bytes(20)) -> bytes:
    """Write a first event."""
    head = struct.pack("<II20sI", pcr, EventType.NO_ACTION, digest, len(data))
    return head + data


def spec_data(
    *algs: tuple[int, int], version: tuple[int, int] = (2, 0), uintn: int = 2, count: int = -1
) -> bytes:
    """Write the data of a first event."""
    data = SPEC_EVENT + struct.pack("<IBBBB", 0, version[1], version[0], 0, uintn)
    data += struct.pack("<I", len(algs) if count < 0 else count)
    return data + b"".join(struct.pack("<HH", *alg) for alg in algs) + b"\0"


SHA256 = (ALG_SHA256, 32)
MALFORMED = {
    "empty": (b"", "cut short"),
    "head cut short": (HEAD[:31], "cut short"),
    "spec cut short": (HEAD[:-1], "cut short"),
    "oversize": (bytes(MAX_LOG_BYTES + 1), "larger than"),
    "event cut short": (GOOD[:-1], "cut short"),
    "trailing byte": (GOOD + b"\0", "cut short"),
    "trailing zeros": (GOOD + bytes(64), "0 digests"),
    "data longer than the log": (
        raw(agile(0, 5, DIGEST)[:-4], struct.pack("<I", 100)),
        "cut short",
    ),
    "data over the cap": (
        raw(agile(0, 5, DIGEST)[:-4], struct.pack("<I", MAX_EVENT_BYTES + 1)),
        "more than",
    ),
    "length of all ones": (raw(agile(0, 5, DIGEST)[:-4], b"\xff" * 4), "more than"),
    "register 24": (raw(agile(24, 5, DIGEST)), "no register 24"),
    "an extended event in no register": (raw(agile(NO_REGISTER, 5, DIGEST)), "no register"),
    "no digest": (raw(agile(0, 5, b"", count=0)), "0 digests"),
    "two digests of one bank": (raw(agile(0, 5, DIGEST + DIGEST, count=2)), "2 digests"),
    "digests without number": (raw(agile(0, 5, DIGEST, count=2**32 - 1)), "digests"),
    "a bank not declared": (raw(agile(0, 5, SHA1_DIGEST)), "not those declared"),
    "recursive": (raw(agile(0, 3, DIGEST, SPEC_EVENT + bytes(20))), "inside the log"),
    "recursive, whole": (raw(agile(0, 3, DIGEST, HEAD[32:])), "inside the log"),
    "recursive, old form": (
        struct.pack("<II20sI", 0, 4, bytes(20), 4) + bytes(4) + HEAD,
        "inside the log",
    ),
    "spec in another register": (spec(spec_data(SHA256), pcr=1), "register 0"),
    "spec with a digest": (spec(spec_data(SHA256), digest=b"\1" * 20), "register 0"),
    "spec of version 1.2": (spec(spec_data(SHA256, version=(1, 2))), "version 1.2"),
    "spec with 128-bit integers": (spec(spec_data(SHA256, uintn=4)), "size 4"),
    "no bank": (spec(spec_data()), "0 algorithms"),
    "banks without number": (spec(spec_data(SHA256, count=2**32 - 1)), "algorithms"),
    "more banks than there are": (spec(spec_data(SHA256, count=3)), "cut short"),
    "a bank twice": (spec(spec_data(SHA256, SHA256)), "twice"),
    "SHA-256 of 20 bytes": (spec(spec_data((ALG_SHA256, 20))), "20 bytes"),
    "digests of nothing": (spec(spec_data((0x99, 0))), "0 bytes"),
    "digests too long": (spec(spec_data((0x99, 65))), "65 bytes"),
    "vendor's information cut": (spec(spec_data(SHA256)[:-1] + b"\5abc"), "vendor"),
    "more behind the spec": (spec(spec_data(SHA256) + b"x"), "vendor"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_log_is_malformed(name: str) -> None:
    """Each departure from the form is refused with the reason (synthetic logs)."""
    data, reason = MALFORMED[name]
    with pytest.raises(Malformed, match=reason):
        parse_event_log(data)


def test_digests_in_another_order_are_malformed() -> None:
    """Digests stand in the order the first event declares."""
    head = log(banks=(Bank(ALG_SHA1, 20), *BANKS)).pack()
    parse_event_log(head + agile(0, 5, SHA1_DIGEST + DIGEST, count=2))
    with pytest.raises(Malformed, match="in their order"):
        parse_event_log(head + agile(0, 5, DIGEST + SHA1_DIGEST, count=2))


def test_events_are_counted() -> None:
    """The smallest events there are still end at a number, because logs do."""
    tiny = log(banks=(Bank(0x99, 1),)).pack()
    one = struct.pack("<IIIHBI", 0, 5, 1, 0x99, 0, 0)
    room = (MAX_LOG_BYTES - len(tiny)) // len(one)
    assert room <= 55_188
    assert room == len(parse_event_log(tiny + one * room).events)


def test_no_prefix_of_a_log_is_taken_for_more() -> None:
    """A log cut anywhere is malformed, or has fewer events."""
    data = genuine("plain")
    whole = len(parse_event_log(data).events)
    for end in range(len(data)):
        try:
            assert len(parse_event_log(data[:end]).events) < whole
        except Malformed:
            continue


EVENTS = st.builds(
    Event,
    pcr=st.integers(0, 23),
    kind=st.sampled_from(EventType) | st.integers(0, 2**32 - 1),
    digests=st.tuples(st.binary(min_size=20, max_size=20), st.binary(min_size=32, max_size=32))
    | st.tuples(st.none(), st.binary(min_size=32, max_size=32)),
    data=st.binary(max_size=60).filter(lambda data: not data.startswith(SPEC_EVENT)),
)
LOGS = st.builds(
    EventLog,
    spec=st.builds(
        SpecId,
        platform_class=st.integers(0, 1),
        minor=st.just(0),
        major=st.just(2),
        errata=st.integers(0, 255),
        uintn_size=st.sampled_from((1, 2)),
        vendor_info=st.binary(max_size=20),
    ),
    banks=st.just((Bank(ALG_SHA1, 20), Bank(ALG_SHA256, 32))),
    events=st.lists(EVENTS, max_size=6).map(tuple),
)


@given(LOGS)
def test_what_is_packed_is_parsed(made: EventLog) -> None:
    """Parsing what was packed gives the same log."""
    assert made == parse_event_log(made.pack())


def any_bytes(data: bytes) -> None:
    """Read whatever it is; what is a log packs to the same bytes, and has printable names."""
    try:
        parsed = parse_event_log(data)
    except Malformed:
        return
    assert data == parsed.pack()
    for one in parsed.events:
        label = describe(one)
        assert 0 < len(label) <= MAX_LABEL_CHARS
        assert re.search(TEXT_PATTERN, label)


TEXT_PATTERN: str = Text.__metadata__[0].pattern  # type: ignore[attr-defined]
_SPLICES = st.tuples(st.integers(0, len(GOOD)), st.integers(0, 40), st.binary(max_size=40))


@st.composite
def changed_logs(draw: st.DrawFn) -> bytes:
    """Change a good log in a few places."""
    data = draw(st.sampled_from((GOOD, genuine("banks"), genuine("sha1"))))
    for start, length, new in draw(st.lists(_SPLICES, min_size=1, max_size=4)):
        data = data[:start] + new + data[start + length :]
    return data


FUZZ = st.binary(max_size=400) | st.binary(max_size=200).map(lambda b: HEAD + b) | changed_logs()


@settings(max_examples=4000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FUZZ)
@example(HEAD)
def test_nothing_but_malformed_comes_of_any_bytes(data: bytes) -> None:
    """Whatever is read, it is a log that packs to the same bytes, or malformed."""
    any_bytes(data)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_nothing_but_malformed_comes_of_ten_minutes() -> None:
    """The same for ten minutes."""
    end = time.monotonic() + 600

    @settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(FUZZ)
    def fuzz(data: bytes) -> None:
        any_bytes(data)

    while time.monotonic() < end:
        fuzz()


NAMED = {
    (1, EventType.SEPARATOR, bytes(4)): "separator",
    (1, EventType.SEPARATOR, b"\1\0\0\0"): "separator 01000000",
    (9, EventType.IPL, b"grub_cmd: linux /vmlinuz\0"): "loader grub_cmd: linux /vmlinuz",
    (8, EventType.IPL, b"a\x1b[2Jb\0"): "loader",
    (5, EventType.EFI_ACTION, b"Exit Boot Services Invocation"): "Exit Boot Services Invocation",
    (5, EventType.EFI_ACTION, b"\xff"): "action",
    (7, EventType.EFI_VARIABLE_AUTHORITY, b"short"): "variable",
    (0, 0x1234, b""): "event of type 0x1234",
    (4, EventType.EFI_BOOT_SERVICES_APPLICATION, b""): "boot application",
}


@pytest.mark.parametrize(("what", "label"), NAMED.items())
def test_events_have_names(what: tuple[int, int, bytes], label: str) -> None:
    """A name says the type and what text the data hold, if it is text."""
    assert label == describe(event(*what))


def test_a_variable_can_draw_on_nobodys_screen() -> None:
    """What a variable's name does to a terminal is gone from its label."""
    name = "db\u202e\x1b[31m"
    data = bytes(16) + struct.pack("<QQ", len(name), 0) + name.encode("utf-16-le")
    assert "variable db [31m" == describe(event(7, EventType.EFI_VARIABLE_DRIVER_CONFIG, data))


def test_a_variable_ends_where_it_says() -> None:
    """Data with more behind the variable are no variable."""
    data = bytes(16) + struct.pack("<QQ", 2, 1) + "db".encode("utf-16-le") + b"\1"
    found = variable(data)
    assert found is not None
    assert ("db", b"\1") == (found.name, found.value)
    assert variable(data + b"\0") is None
    assert variable(data[:-1]) is None


def test_the_document_shows_the_vector() -> None:
    """The bytes in eventlog.md are how the genuine log begins, and its table is what it has."""
    text = (Path(__file__).parents[3] / "custody" / "formats" / "eventlog.md").read_text()
    block = text.split("```")[1]
    shown = "".join(re.findall(r"^(?:  )?((?:[0-9a-f]{2,} ?)+)", block, re.MULTILINE))
    data = genuine("plain")
    assert data.startswith(bytes.fromhex(shown))
    assert len(bytes.fromhex(shown)) > 100
    assert SPEC.major == parse_event_log(data).spec.major  # type: ignore[union-attr]
    rows = re.findall(r"^\| ([\d, ]+) \| ([^|]+) \|", text, re.MULTILINE)
    table = {int(pcr): names.split(", ") for pcrs, names in rows for pcr in pcrs.split(", ")}
    found: dict[int, list[str]] = {}
    for one in parse_event_log(data).events:
        found.setdefault(one.pcr, []).append(describe(one))
    assert found == table
