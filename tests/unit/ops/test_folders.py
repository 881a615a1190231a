from __future__ import annotations

import os
from pathlib import Path

import pytest

from custody.errors import CustodyError, Malformed, Refused, Unavailable
from custody.formats.policy import Policy
from custody.ops.folders import read_file, read_folder, read_statement_file
from tests.unit.people import authority, policy, signed


def test_a_folder_is_sorted_by_what_its_files_are(tmp_path: Path) -> None:
    """Statements and certificates are found one folder deep; hidden and other files are not."""
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "deeper").mkdir()
    (tmp_path / "v1" / "policy.dsse").write_bytes(signed(policy(), "ida", "cas"))
    (tmp_path / "v1" / "deeper" / "policy.dsse").write_bytes(b"too deep to be read")
    (tmp_path / "authority.cer").write_bytes(authority())
    (tmp_path / "README.txt").write_text("not ours")
    (tmp_path / ".hidden.dsse").write_text("not ours")
    documents = read_folder(tmp_path)
    assert (1, 1) == (len(documents.policies), len(documents.certificates))
    assert () == documents.unreadable


def test_a_single_file_may_be_named(tmp_path: Path) -> None:
    """A file named by itself is read as one of a folder is."""
    path = tmp_path / "policy.dsse"
    path.write_bytes(signed(policy(), "ida"))
    assert [1] == [s.predicate.version for s in read_folder(path).policies]


def test_a_bad_file_hides_nothing(tmp_path: Path) -> None:
    """A damaged statement and a link are listed with their reasons beside what is good."""
    (tmp_path / "good.dsse").write_bytes(signed(policy(), "ida"))
    (tmp_path / "bad.dsse").write_bytes(b"{}")
    (tmp_path / "link.dsse").symlink_to(tmp_path / "good.dsse")
    documents = read_folder(tmp_path)
    assert 1 == len(documents.policies)
    reasons = {entry.name: entry.reason for entry in documents.unreadable}
    assert {"bad.dsse", "link.dsse"} == set(reasons)
    assert "is a symbolic link" == reasons["link.dsse"]


def test_the_fuller_of_two_files_counts(tmp_path: Path) -> None:
    """A half-signed draft left beside the finished statement does not hide it."""
    (tmp_path / "a-draft.dsse").write_bytes(signed(policy(), "ida"))
    (tmp_path / "policy.dsse").write_bytes(signed(policy(), "ida", "cas"))
    (statement,) = read_folder(tmp_path).policies
    assert 2 == len({signature.keyid for signature in statement.envelope.signatures})


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "absent", "large"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    """A FIFO does not hang the reader, a link is not followed, and every fault names the file."""
    path = tmp_path / "x.dsse"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to("/etc/hostname")
        case "folder":
            path.mkdir()
        case "large":
            path.write_bytes(bytes(11))
    expected = {"absent": Unavailable, "large": Malformed}.get(kind, Refused)
    with pytest.raises(CustodyError) as fault:
        read_file(path, max_bytes=10)
    assert (expected, str(path)) == (type(fault.value), fault.value.where)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    """Reading a file that holds something else says so, and which file it was."""
    path = tmp_path / "policy.dsse"
    path.write_bytes(b"not json")
    with pytest.raises(Malformed) as malformed:
        read_statement_file(Policy, path)
    assert str(path) == malformed.value.where


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """A folder that is missing is never an empty one."""
    with pytest.raises(Unavailable):
        read_folder(tmp_path / "nowhere")
