from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.encoding import parse_time
from custody.errors import CustodyError, Malformed, Refused, Unavailable
from custody.formats.model import decode_model_signature
from custody.ops import model_hash
from custody.ops.keys import Signer
from custody.ops.model_hash import ModelDirectory
from custody.ops.model_sign import sign_directory
from custody.ops.model_verify import ModelReport, verify_directory
from custody.ops.progress import silent
from custody.rules.model import KeyTrust, ModelTrust
from custody.rules.model_certificate import CertificateTrust, SignerIdentity
from custody.rules.verdicts import passed
from tests.unit.crypto.vectors import Vector, each, read
from tests.vectors.model import make_verify as make

SIGNER = Signer(ec.generate_private_key(ec.SECP256R1()))
TRUST = ModelTrust(signer=KeyTrust(SIGNER.spki))
FILES = {"a.bin": b"1", "sub/b": b"", "sub/c": bytes(3 << 20)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model."""
    return _write(tmp_path / "m", FILES)


def _write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        # Not of this moment: two writes within one tick of the kernel's clock have the same time.
        os.utime(path, ns=(0, 0))
    return folder


def _failed(report: ModelReport) -> list[str]:
    return [f"{v.check}: {v.reason}" for v in report.verdicts if v.outcome == "fail"]


def _checks(report: ModelReport) -> set[str]:
    return {v.check for v in report.verdicts if v.outcome == "fail"}


def _trust(vector: Vector) -> ModelTrust:
    signer: KeyTrust | CertificateTrust
    if "key" in vector:
        signer = KeyTrust(base64.b64decode(vector["key"]))
    else:
        signer = CertificateTrust(
            authorities=(base64.b64decode(vector["authority"]),),
            identity=SignerIdentity.read(vector["identity"]) if "identity" in vector else None,
            moment=parse_time(vector["at"]),
            crls=(base64.b64decode(vector["crl"]),) if "crl" in vector else (),
        )
    trust = ModelTrust(signer=signer)
    also = vector.get("also", "")
    if also == "v0.2":
        return trust.with_old()
    return replace(trust, unsigned=(also.removeprefix("unsigned="),)) if also else trust


@each("model/verify.txt", *make.HEADERS)
def test_what_is_said_of_a_signature(vector: Vector, tmp_path: Path) -> None:
    """A vector holds, or fails exactly the checks it names for the reason it gives."""
    files = {name: text.encode() for name, text in json.loads(vector["files"]).items()}
    folder = _write(tmp_path / "m", files)
    data = base64.b64decode(vector["signature"])
    report = verify_directory(folder, data, trust=_trust(vector))
    if vector["expect"] == "sound":
        assert ([], True) == (_failed(report), passed(report.verdicts))
    else:
        check, _, reason = vector["expect"].partition(": ")
        assert set(check.split()) == _checks(report), _failed(report)
        assert any(reason.strip() in fault for fault in _failed(report)), _failed(report)


def test_the_vectors_are_what_their_generator_writes() -> None:
    """The file has exactly the generator's cases, no comment twice."""
    stored = read("model/verify.txt", *make.HEADERS)
    assert list(make.cases()) == stored
    assert len({vector["comment"] for vector in stored}) == len(stored)


def test_what_is_signed_verifies(model: Path) -> None:
    """A directory verifies by the key that signed it, hidden and empty files with it."""
    (model / ".hidden").write_bytes(b"x")
    data = sign_directory(model, signer=SIGNER)
    report = verify_directory(model, data, trust=TRUST)
    assert ([], 4) == (_failed(report), report.files)
    assert sum(map(len, FILES.values())) + 1 == report.size_bytes
    assert "m" == decode_model_signature(data).model_name


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c/d", "c/e", "f/g/h", ".git/x"]),
        st.binary(max_size=99),
        min_size=1,
    ),
    st.data(),
)
def test_any_change_is_found(files: dict[str, bytes], data: st.DataObject) -> None:
    """A signed model verifies; with any one file changed, gone or added it does not."""
    with _folder() as folder:
        model = _write(folder / "m", files)
        signed = sign_directory(model, signer=SIGNER)
        assert [] == _failed(verify_directory(model, signed, trust=TRUST))
        name = data.draw(st.sampled_from(sorted(files)))
        change = data.draw(st.sampled_from(["byte", "gone", "more"]))
        if change == "byte":
            (model / name).write_bytes(files[name] + b"\0")
        elif change == "gone":
            (model / name).unlink()
        else:
            (model / "more").write_bytes(b"")
        expected = {"byte": "model.digest", "gone": "model.missing", "more": "model.unsigned"}
        assert {expected[change]} == _checks(verify_directory(model, signed, trust=TRUST))


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder for one example of a property."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def test_its_own_signature_is_no_part_of_a_model(model: Path) -> None:
    """A model.sig inside the model is listed as ignored, and is the one unsigned file there."""
    path = model / "model.sig"
    data = sign_directory(model, signer=SIGNER, signature=path)
    assert ("model.sig",) == decode_model_signature(data).ignore_paths
    path.write_bytes(data)
    assert [] == _failed(verify_directory(model, data, trust=TRUST, signature=path))
    elsewhere = model.parent / "copy.sig"
    report = verify_directory(model, data, trust=TRUST, signature=elsewhere)
    assert {"model.ignored"} == _checks(report)


def test_what_is_ignored_is_named(model: Path) -> None:
    """A path to ignore is written down; one that is not there, or outside, is refused."""
    data = sign_directory(model, signer=SIGNER, ignore=["sub"])
    assert ["a.bin"] == [r.name for r in decode_model_signature(data).resources]
    assert ("sub",) == decode_model_signature(data).ignore_paths
    assert {"model.ignored"} == _checks(verify_directory(model, data, trust=TRUST))
    for path in ("su", "../m/sub", "/sub", ""):
        with pytest.raises(Refused) as error:
            sign_directory(model, signer=SIGNER, ignore=[path])
        assert "model.ignore" == error.value.check
    with pytest.raises(Refused) as error:
        sign_directory(model, signer=SIGNER, ignore=["sub", "a.bin"])
    assert "model.empty" == error.value.check


@pytest.mark.parametrize("kind", ["link", "fifo", "link to a folder"])
def test_links_and_pipes_are_refused(model: Path, kind: str) -> None:
    """A signed file that became a link to its own bytes is refused, as is any pipe beside it."""
    data = sign_directory(model, signer=SIGNER)
    if kind == "link":
        (model / "a.bin").rename(model.parent / "moved")
        (model / "a.bin").symlink_to(model.parent / "moved")
    elif kind == "fifo":
        os.mkfifo(model / "pipe")
    else:
        (model / "sub").rename(model.parent / "moved")
        (model / "sub").symlink_to(model.parent / "moved")
    found = _checks(verify_directory(model, data, trust=TRUST))
    assert "model.special" in found
    assert ("model.missing" in found) == (kind == "link to a folder")


def test_a_name_that_is_no_text_is_spelled(model: Path) -> None:
    """A stranger's file name with escape sequences or bytes that are no text is shown spelled."""
    data = sign_directory(model, signer=SIGNER)
    for name in (b"\x1b[2J", b"\xff"):
        (Path(os.fsdecode(os.fsencode(model) + b"/" + name))).write_bytes(b"")
    faults = _failed(verify_directory(model, data, trust=TRUST))
    assert 2 == len(faults)
    assert all(fault.isprintable() and fault.isascii() for fault in faults)


@pytest.mark.parametrize("name", [".", "w.bin"])
def test_a_model_that_is_one_file(tmp_path: Path, name: str) -> None:
    """A single file verifies under the reference's name for it, and under its own."""
    path = tmp_path / "w.bin"
    path.write_bytes(b"12")
    trust = ModelTrust(signer=KeyTrust(make.spki(make.SIGNER)))
    data = make.bundle(make.statement([make.resource(name, "12")]))
    assert [] == _failed(verify_directory(path, data, trust=trust))
    path.write_bytes(b"21")
    assert {"model.digest"} == _checks(verify_directory(path, data, trust=trust))


def test_nothing_is_read_before_the_signature_holds(model: Path) -> None:
    """Where the signature fails no file is opened, and the verdicts say so."""
    data = sign_directory(model, signer=SIGNER)
    other = ModelTrust(signer=KeyTrust(make.spki(make.OTHER)))
    report = verify_directory(model / "nowhere", data, trust=other)
    assert ({"model.key", "model.signature"}, 0) == (_checks(report), report.files)
    assert "not-applicable" == report.verdicts[-1].outcome


def test_a_model_that_is_not_there(tmp_path: Path, model: Path) -> None:
    """A directory that cannot be read is unavailable, not refused."""
    data = sign_directory(model, signer=SIGNER)
    with pytest.raises(Unavailable):
        verify_directory(tmp_path / "nowhere", data, trust=TRUST)


@pytest.mark.parametrize("how", ["grows", "shrinks", "goes", "becomes a pipe", "is another"])
def test_a_file_that_changes_is_refused(model: Path, how: str) -> None:
    """A file that is not as it was listed is refused, whatever it became, and nothing hangs."""
    directory = ModelDirectory(model)
    found = directory.entries()
    path = model / "sub" / "c"
    if how == "grows":
        path.write_bytes(FILES["sub/c"] + b"x")
    elif how == "shrinks":
        os.truncate(path, 7)
    else:
        path.unlink()
        if how == "becomes a pipe":
            os.mkfifo(path)
        elif how == "is another":
            path.write_bytes(FILES["sub/c"])
    whole = [model_hash.Stretch(f, 0, f.entry.size_bytes) for f in found]
    with pytest.raises(Refused) as error:
        directory.digests(whole, algorithm="sha256", progress=silent)
    directory.close()
    assert ("model.changed", str(path)) == (error.value.check, error.value.where)


def test_a_file_written_while_it_is_hashed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change after the first byte was read is found at the last."""
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset:
            (model / "sub" / "c").write_bytes(FILES["sub/c"])
        return real(fd, buffers, offset)

    data = sign_directory(model, signer=SIGNER)
    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(Refused, match="changed while"):
        verify_directory(model, data, trust=TRUST)


@given(st.lists(st.integers(0, 2_500_000), min_size=1, max_size=6))
@settings(deadline=None, max_examples=15)
def test_stretches_are_hashed_as_they_lie(ends: list[int]) -> None:
    """Every stretch has the digest of its own bytes, in the order they were asked for."""
    data = os.urandom(2_500_000)
    with _folder() as folder:
        directory = ModelDirectory(_write(folder / "m", {"w": data}))
        (found,) = directory.entries()
        stretches = [model_hash.Stretch(found, end // 2, end) for end in ends]
        digests = directory.digests(stretches, algorithm="sha256", progress=silent)
        directory.close()
    assert [hashlib.sha256(data[e // 2 : e]).digest() for e in ends] == list(digests)


def test_progress_ends_with_everything(model: Path) -> None:
    """Progress is told in bytes, and the last word is that all are done."""
    said: list[tuple[str, int, int]] = []
    sign_directory(model, signer=SIGNER, progress=lambda *words: said.append(words))
    assert ("hashing", 3 * (1 << 20) + 1, 3 * (1 << 20) + 1) == said[-1]


def test_progress_may_stop_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What progress raises ends the work, and no thread is left behind."""

    def stop(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        sign_directory(model, signer=SIGNER, progress=stop)
    assert before == threading.active_count()


@pytest.mark.parametrize("text", ["", "CN=", "cn=x", "abc", "EMAIL=x", "0" * 63])
def test_what_is_no_identity(text: str) -> None:
    """Words that name nobody are malformed, lest a slip of the pen pin nothing."""
    with pytest.raises(Malformed):
        SignerIdentity.read(text)


def test_identities_are_read_as_people_write_them() -> None:
    """A digest may have capitals, spaces and colons; names are taken as they stand."""
    digest = "AB:CD" + " 0123456789abcdef" * 3 + "0123456789AB"
    assert SignerIdentity("key", "abcd" + "0123456789abcdef" * 3 + "0123456789ab") == (
        SignerIdentity.read(digest)
    )
    assert SignerIdentity("CN", "a = b") == SignerIdentity.read("CN=a = b")


def test_junk_never_holds(model: Path) -> None:
    """Whatever byte of a signature is changed, it fails or its signed bytes are the same."""
    data = sign_directory(model, signer=SIGNER)
    payload = decode_model_signature(data).payload
    for at in range(0, len(data), 3):
        changed = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
        report = verify_directory(model, changed, trust=TRUST)
        if not _failed(report):
            assert payload == decode_model_signature(changed).payload


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=50)
def test_noise_is_judged(data: bytes) -> None:
    """Noise in place of a signature is one failed check, never another error."""
    report = verify_directory(Path("nowhere"), data, trust=TRUST)
    assert {"model.format"} == _checks(report)


def test_errors_are_ours(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails while it is read is unavailable, and names the file."""
    data = sign_directory(model, signer=SIGNER)

    def preadv(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(CustodyError) as error:
        verify_directory(model, data, trust=TRUST)
    assert isinstance(error.value, Unavailable)
    assert (error.value.where or "").startswith(str(model))


def test_times_are_judged_at_the_moment_given() -> None:
    """The vectors' moment is what it says, so that they never rot."""
    assert datetime(2027, 4, 11, tzinfo=UTC) == parse_time(make.AT)
