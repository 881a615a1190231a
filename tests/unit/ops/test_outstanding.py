"""What a host remembers of requests that died."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from custody.errors import Incomplete, Refused
from custody.ops.outstanding import Ledger


def test_what_died_is_not_remembered_for_ever(tmp_path: Path) -> None:
    """The causes of the newest deaths are told; older ones make room."""
    ledger = Ledger(tmp_path / "requests")
    ledger.folder.mkdir()
    digests = [f"{number:064x}" for number in range(300)]
    for number, digest in enumerate(digests):
        ledger.bury(digest, "tpm.rebooted")
        os.utime(ledger.folder / f"{digest}.dead", ns=(number, number))
    assert 256 == len(list(ledger.folder.iterdir()))
    with pytest.raises(Refused) as refused:
        ledger.find(digests[-1])
    assert "tpm.rebooted" == refused.value.check
    with pytest.raises(Incomplete):
        ledger.find(digests[0])
