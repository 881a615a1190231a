"""A model sealed compressed: released, opened, read, checked, on a real swtpm."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from custody.crypto.parts import DEFAULT_PART_SIZE
from custody.errors import Malformed, Unavailable
from custody.ops.bundle import CONTENTS, MANIFEST, PARTS, PAYLOAD, Bundle
from custody.ops.check import check_bundle
from custody.ops.delta import known_base
from custody.ops.seal import Sealed, SealOrder, check_order, seal_model
from custody.rules.verdicts import passed
from tests.release.cast import NOW, Cast
from tests.release.test_read_from_the_middle import minilm_path, needs_minilm, released, unlock
from tests.unit.ops.bundles import read_model, write_model
from tests.unit.ops.compressed import model_files

WEIGHTS = "model/a.safetensors"
ORDER = SealOrder(
    name="tiny",
    version="1.0",
    not_after=NOW.replace(month=2),
    part_size_bytes=1 << 16,
    compress="auto",
)


def _seal(cast: Cast, model: Path, name: str, order: SealOrder = ORDER) -> tuple[Sealed, Bundle]:
    out = cast.folder / name
    situation, signer = cast.situation("pub"), cast.people["pub"].signer
    sealed = seal_model(model, out, order, situation=situation, signer=signer)
    return sealed, Bundle.at(out)


def _public(bundle: Bundle) -> bytes:
    return b"".join(
        (bundle.path / name).read_bytes() for name in (MANIFEST, PARTS, CONTENTS, PAYLOAD)
    )


def test_a_compressed_model_is_released_and_opened(cast: Cast, tmp_path: Path) -> None:
    """It takes less, is checked with no key, shows no name, and comes back as it was."""
    files = model_files()
    model = write_model(cast.folder / "floats", files)
    sealed, bundle = _seal(cast, model, "floats.bundle")
    size = sum(map(len, files.values()))
    assert 0 < sealed.compressed_bytes < 0.7 * size
    assert sealed.compressed_bytes <= sealed.payload_bytes < 0.75 * size
    assert sealed.payload_bytes == (bundle.path / PAYLOAD).stat().st_size
    assert passed(check_bundle(bundle, situation=cast.situation("pub")))
    public = _public(bundle)
    for word in (*files, "tiny", "hidden_size", "data_offsets"):
        assert word.encode() not in public

    request, answers = released(cast, bundle)
    cast.open(bundle, request, answers, tmp_path / "opened")
    assert files == read_model(tmp_path / "opened")


def test_a_compressed_model_is_read_in_memory(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, ranges and tensors are those of the plain files; so is what ``host read`` pours."""
    from custody.cli._read import _pour
    from tests.release.test_read_from_the_middle import _Pipe as Pipe

    files = model_files()
    _, bundle = _seal(cast, write_model(cast.folder / "floats", files), "floats.bundle")
    request, answers = released(cast, bundle)
    with unlock(cast, bundle, request, answers) as model:
        reader = model.reader
        assert files == {file.name: reader.read(file.name) for file in reader.files()}
        assert files[WEIGHTS][100_001:200_002] == reader.read(WEIGHTS, 100_001, 100_001)
        entry = reader.tensor_file(WEIGHTS).entry("narrow")
        plain = files[WEIGHTS][entry.offset : entry.offset + entry.size_bytes]
        assert plain == reader.tensor(WEIGHTS, "narrow").tobytes()
        pipe = Pipe()
        monkeypatch.setattr(sys, "stdout", pipe)
        _pour(reader, WEIGHTS, 70_000, 400_000)
        monkeypatch.undo()
        assert files[WEIGHTS][70_000:400_000] == pipe.bytes.getvalue()
        reader.full_pass()


def test_a_host_without_the_extra_spends_no_approval(
    cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be expanded is found out before the burn; with the library, it opens."""
    files = model_files()
    _, bundle = _seal(cast, write_model(cast.folder / "floats", files), "floats.bundle")
    request, answers = released(cast, bundle)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "custody.ops.frame_codec", None)
        with pytest.raises(Unavailable, match="compressed"):
            cast.open(bundle, request, answers, tmp_path / "opened")
        with pytest.raises(Unavailable), unlock(cast, bundle, request, answers):
            pytest.fail("a reader was given")
    assert not cast.place.receipt_path(request.digest).exists()
    cast.open(bundle, request, answers, tmp_path / "opened")
    assert files == read_model(tmp_path / "opened")


def test_a_publisher_without_the_extra_is_told(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` where zstandard is not installed is refused before anything is written."""
    model = write_model(cast.folder / "floats", model_files())
    monkeypatch.setitem(sys.modules, "custody.ops.frame_plan", None)
    with pytest.raises(Unavailable, match="compresses") as told:
        _seal(cast, model, "floats.bundle")
    assert "pip install 'custody[compress]'" == told.value.hint
    assert not (cast.folder / "floats.bundle").exists()


def test_what_does_not_compress_is_sealed_as_it_is(cast: Cast) -> None:
    """``auto`` on a model of noise gives a bundle as without it."""
    model = cast.model("noise")
    (model / "tokenizer" / "vocab.txt").unlink()
    sealed, bundle = _seal(cast, model, "noise.bundle")
    assert 0 == sealed.compressed_bytes
    assert sealed.remembered is not None
    plain, other = _seal(cast, model, "plain.bundle", _without(ORDER))
    assert plain.part_count == sealed.part_count
    assert other.core.contents_size_bytes == bundle.core.contents_size_bytes


def _without(order: SealOrder) -> SealOrder:
    return SealOrder(
        name=order.name,
        version=order.version,
        not_after=order.not_after,
        part_size_bytes=order.part_size_bytes,
    )


def test_an_update_is_not_compressed(cast: Cast) -> None:
    """Both at once are refused before anything is read; a compressed base needs its files."""
    model = write_model(cast.folder / "floats", model_files())
    sealed, bundle = _seal(cast, model, "floats.bundle")
    assert sealed.remembered is None
    known = known_base(bundle.path, model, memory=cast.folder, base_model=model)
    order = SealOrder(
        name="tiny", version="1.1", not_after=ORDER.not_after, base=known, compress="auto"
    )
    with pytest.raises(Malformed) as refused:
        check_order(order, now=NOW)
    assert "compress" == refused.value.where


@needs_minilm
def test_the_real_model_compressed(cast: Cast, tmp_path: Path) -> None:
    """MiniLM takes a sixth less, and every byte of it comes back."""
    source = minilm_path()
    order = SealOrder(
        name="MiniLM",
        version="1",
        not_after=ORDER.not_after,
        part_size_bytes=DEFAULT_PART_SIZE,
        compress="auto",
    )
    sealed, bundle = _seal(cast, source, "minilm.bundle", order)
    assert sealed.compressed_bytes < 0.84 * sealed.size_bytes
    request, answers = released(cast, bundle)
    cast.open(bundle, request, answers, tmp_path / "opened")
    _assert_same(read_model(source), read_model(tmp_path / "opened"))


def _assert_same(expected: dict[str, bytes], found: dict[str, bytes]) -> None:
    different: Sequence[str] = [name for name in expected if expected[name] != found.get(name)]
    assert ([], expected.keys()) == (different, found.keys())
