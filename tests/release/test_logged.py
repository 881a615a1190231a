"""Where the policy says `logged`, nothing opens without the log: by the rules, and by the TPM."""

from __future__ import annotations

from pathlib import Path

import pytest

from custody.errors import Incomplete
from custody.formats.case import merge, sort_documents
from custody.formats.envelope import decode_statement
from custody.formats.logged import Logged
from custody.lab.swtpm import Swtpm
from custody.ops.audit import audit_case
from tests.release.logged import Log, LoggedCast, witness


@pytest.fixture
def cast(machine: Swtpm, tmp_path: Path) -> LoggedCast:
    """A cast whose policy demands a log with two witnesses."""
    return LoggedCast(tmp_path, machine, Log(witnesses=[witness("w1"), witness("w2")]))


def test_a_logged_release_opens_with_the_logs_signature(cast: LoggedCast, tmp_path: Path) -> None:
    """A quorum alone is incomplete; with the log's word it opens, and the audit shows indexes."""
    bundle = cast.seal()
    request = cast.ask(bundle)
    answers = cast.quorum(bundle, request)
    with pytest.raises(Incomplete) as error:
        cast.open(bundle, request, answers, tmp_path / "out")
    assert ("the log's signature",) == tuple(error.value.missing)
    word = cast.countersign(bundle, request, *answers)
    opened = cast.open(bundle, request, [*answers, word], tmp_path / "out")
    files = [("receipt.dsse", opened.receipt_data), ("burn.dsse", opened.burn_data)]
    case = merge(cast.case(bundle, request, *answers, word), sort_documents(files))
    report = audit_case(case, pin=cast.pin)
    assert report.sound, report
    (release,) = report.releases
    assert "opened-and-burned" == release.outcome
    assert [0, 1, 2, 3] == [
        entry.index for entry in decode_statement(Logged, word).predicate.entries
    ]
