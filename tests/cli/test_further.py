"""``--further TYPE=FILE``: what is read, and what is no option at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from custody.cli._further import read_further
from custody.formats.request import Further


def test_files_are_read_in_the_order_of_their_types(tmp_path: Path) -> None:
    """The format wants them sorted; people need not."""
    gpu, vm = tmp_path / "gpu", tmp_path / "vm=1"
    gpu.write_bytes(b"report")
    vm.write_bytes(b"quote")
    given = [f"urn:x:vm={tmp_path}/gpu", f"https://example.com/a=b={gpu}"]
    assert (
        Further(type="https://example.com/a=b", evidence=b"report"),
        Further(type="urn:x:vm", evidence=b"report"),
    ) == read_further(given)
    assert () == read_further(None)


@pytest.mark.parametrize(
    "text", ["gpu=FILE", "urn:x:gpu", "urn:x:gpu=", "=FILE", "urn:x g=FILE", "URN:x=FILE"]
)
def test_what_is_no_type_and_file_is_a_usage_error(text: str, tmp_path: Path) -> None:
    """A type is a URI; a typing error is never sent as evidence."""
    (tmp_path / "evidence").write_bytes(b"x")
    with pytest.raises(typer.BadParameter):
        read_further([text.replace("FILE", str(tmp_path / "evidence"))])


def test_twice_and_empty_are_usage_errors(tmp_path: Path) -> None:
    """One type has one piece of evidence, and nothing is none."""
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.write_bytes(b"x")
    empty.write_bytes(b"")
    with pytest.raises(typer.BadParameter, match="twice"):
        read_further([f"urn:x:a={full}", f"urn:x:a={full}"])
    with pytest.raises(typer.BadParameter, match="empty"):
        read_further([f"urn:x:a={empty}"])
