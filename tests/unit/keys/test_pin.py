from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.errors import Malformed, Refused, Unavailable
from custody.keys.pin import MAX_PIN_BYTES, Pin, read_pin_source


def pin_file(directory: Path, content: bytes, mode: int = 0o600) -> str:
    """Write a PIN file."""
    path = directory / "pin"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def through_pipe(content: bytes) -> bytearray:
    """Read a PIN from a descriptor."""
    ours, theirs = os.pipe()
    try:
        os.write(theirs, content)
        os.close(theirs)
        return read_pin_source(f"fd:{ours}")
    finally:
        os.close(ours)


@pytest.mark.parametrize("form", ["{}", "file:{}", "file://{}"])
def test_file_forms(tmp_path: Path, form: str) -> None:
    """A PIN file is named by a path or a file: URI, and its last newline is not part of the PIN."""
    assert b"123456" == read_pin_source(form.format(pin_file(tmp_path, b"123456\n")))


@given(st.binary(min_size=1, max_size=MAX_PIN_BYTES))
def test_descriptor(pin: bytes) -> None:
    """A PIN without line breaks or zero bytes is read whole from a descriptor, others refused."""
    if any(byte in pin for byte in b"\n\r\0"):
        with pytest.raises(Refused):
            through_pipe(pin + b"x")
    else:
        assert pin == through_pipe(pin) == through_pipe(pin + b"\n")


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"12\n34\n", b"1234\n\n", b"1234\r\n", b"12\x0034", b"1" * 256, b"1" * 300],
)
def test_content_refused(tmp_path: Path, content: bytes) -> None:
    """An empty PIN, one of several lines and one too long are refused, from a file or a pipe."""
    with pytest.raises(Refused) as from_file:
        read_pin_source(pin_file(tmp_path, content))
    with pytest.raises(Refused) as from_pipe:
        through_pipe(content)
    for caught in (from_file, from_pipe):
        assert "pin.source" == caught.value.check
        assert "1234" not in repr(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610])
def test_shared_file_refused(tmp_path: Path, mode: int) -> None:
    """A PIN file that group or others can reach in any way is refused, with the remedy."""
    with pytest.raises(Refused, match="other users") as caught:
        read_pin_source(pin_file(tmp_path, b"1234\n", mode))
    assert "pin.source" == caught.value.check
    assert "chmod 600" in str(caught.value.hint)


def test_fifo_and_directory_refused(tmp_path: Path) -> None:
    """What is no regular file is refused, and a FIFO does not make the command wait."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for place in (fifo, tmp_path):
        with pytest.raises(Refused, match="regular"):
            read_pin_source(str(place))


def test_unreadable_source(tmp_path: Path) -> None:
    """A source that is there and cannot be read is unavailable, whoever runs the command."""
    descriptor = os.open(tmp_path / "pin", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        with pytest.raises(Unavailable, match="cannot read the PIN"):
            read_pin_source(f"fd:{descriptor}")
    finally:
        os.close(descriptor)
    if os.geteuid():
        with pytest.raises(Unavailable, match="cannot read the PIN file"):
            read_pin_source(pin_file(tmp_path, b"1234\n", 0o000))


@pytest.mark.parametrize("source", ["fd:999", "/nonexistent/pin"])
def test_missing_source(source: str) -> None:
    """A source that is not there is unavailable."""
    with pytest.raises(Unavailable):
        read_pin_source(source)


@pytest.mark.parametrize(
    "source",
    ["", "pin", "fd:", "fd:-1", "fd:x", "fd:³", "file:pin", "|/bin/pin", "env:PIN", "http://x"],
)
def test_unknown_source(source: str) -> None:
    """A PIN comes from a descriptor or a file, never from a program or the environment."""
    with pytest.raises(Malformed):
        read_pin_source(source)


def test_pin_is_read_late_and_once() -> None:
    """The person is asked at the first use, once, and the buffer is zeroed at the end."""
    asked: list[bytearray] = []

    def reader(prompt: str, /) -> bytearray:
        asked.append(bytearray(b"1234"))
        return asked[-1]

    pin = Pin(None, reader, prompt="PIN of token alice")
    assert [] == asked
    assert b"1234" == pin.read() == pin.read()
    pin.wipe()
    assert [bytearray(4)] == asked
    with pytest.raises(Unavailable):
        pin.read()


def test_spoilt_pin_repeats_its_refusal() -> None:
    """After the token said no, its refusal is the answer to every later use."""
    pin = Pin(None, lambda _: bytearray(b"1234"), prompt="")
    held = pin.read()
    pin.spoil(Refused("the PIN is wrong", check="token.pin"))
    pin.wipe()
    assert bytearray(4) == held
    for _ in range(2):
        with pytest.raises(Refused, match="wrong"):
            pin.read()


def test_nobody_to_ask() -> None:
    """Without a source and without a person the question cannot be put."""
    with pytest.raises(Unavailable, match="PIN"):
        Pin(None, None, prompt="").read()


def test_repr_holds_no_pin() -> None:
    """A PIN in a traceback shows nothing."""
    pin = Pin(None, lambda _: bytearray(b"1234"), prompt="")
    pin.read()
    assert "<Pin>" == repr(pin)
