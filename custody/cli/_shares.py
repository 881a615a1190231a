"""What every command begins with that makes or reads shares of a recovery key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.errors import Unavailable

RecordArgument = Annotated[
    Path, typer.Argument(help="The recovery record (.dsse).", metavar="RECORD", show_default=False)
]
RecordOption = Annotated[
    Path, typer.Option("--record", help="The recovery record (.dsse).", metavar="RECORD")
]
WordsFdOption = Annotated[
    int | None,
    typer.Option("--words-fd", help="Read shares from this descriptor, one a line.", metavar="N"),
]


def check_ready() -> None:
    """Say what is missing where shares cannot be read; see that words stay in memory alone."""
    import resource

    # A process that is killed while it holds the seed must not leave it in a file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        import shamir_mnemonic  # noqa: F401
    except ImportError as error:
        raise Unavailable(
            "shamir-mnemonic is not installed, which reads and writes shares on paper",
            hint="pip install 'custody[recovery]'",
        ) from error
