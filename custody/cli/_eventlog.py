"""Where a host's event log comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.formats.eventlog import MAX_LOG_BYTES
from custody.ops.folders import read_file

EventLogOption = Annotated[
    Path | None,
    typer.Option(
        "--event-log",
        help="This boot's log: /sys/kernel/security/tpm0/binary_bios_measurements.",
        envvar="CUSTODY_EVENT_LOG",
        metavar="FILE",
        show_default=False,
    ),
]


def read_event_log(path: Path | None) -> bytes:
    """Read a log; nothing where none is named, for not every TPM is the kernel's."""
    return b"" if path is None else read_file(path, max_bytes=MAX_LOG_BYTES)
