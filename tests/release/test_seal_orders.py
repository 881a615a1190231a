"""What nobody else would accept is refused before it is sealed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from custody.errors import Malformed
from tests.release.cast import NOW, Cast
from tests.release.expect import refused


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", " "),
        ("name", "a\nb"),
        ("name", "a\u202eb"),
        ("version", ""),
        ("version", "x" * 4097),
        ("notes", "fine\n\x1b[2J"),
        ("notes", "x\n" * 33_000),
        ("not_after", NOW),
        ("not_after", NOW - timedelta(days=1)),
    ],
)
def test_words_and_times_that_officers_would_refuse(cast: Cast, field: str, value: object) -> None:
    """The publisher is told which of his words is wrong, and nothing is written."""
    model, out = cast.model(), cast.folder / "bundle"
    with pytest.raises(Malformed) as caught:
        cast.seal_into(model, out, **{field: value})
    assert field == caught.value.where
    assert not out.exists()


@pytest.mark.parametrize("inside", ["bundle", "deep/bundle"])
def test_a_bundle_inside_its_model_is_refused(cast: Cast, inside: str) -> None:
    """It would be read as a part of the model."""
    model = cast.model()
    (model / "deep").mkdir()
    with refused(cast, "seal.target"):
        cast.seal_into(model, model / inside)
