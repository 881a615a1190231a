"""``unseal`` and ``forget``: a key that the quorum let this host keep for restarts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from custody.cli import _words
from custody.cli._eventlog import EventLogOption, read_event_log
from custody.cli._home import (
    BundleArgument,
    EnvOption,
    HomeOption,
    JsonOption,
    OutOption,
    TpmOption,
    example,
    open_home,
)
from custody.cli._log import LogOption, offer
from custody.cli._open import place_asked_from, place_of
from custody.cli._opening import BaseOption
from custody.cli._session import stand
from custody.cli._ui import Screen
from custody.cli._wiring import open_tpm
from custody.encoding import MAX_STATEMENT_BYTES, utc_now
from custody.errors import Incomplete
from custody.keys.hostapi import HostTpm
from custody.ops.bundle import Bundle
from custody.ops.folders import read_file
from custody.ops.kept import Kept, KeptKeys, prune, unsealing_key
from custody.ops.kept import forget as forget_key
from custody.ops.landing import check_absent, unfinished_output, write_new_file
from custody.ops.receipts import forgotten_statement
from custody.ops.unseal import unseal_release

_SHORTEST = 8


def add_unseal(app: typer.Typer) -> None:
    """Add what a host does with a kept key."""
    app.command(
        epilog=example(
            "custody host unseal ./bundle --tpm tpm: --env ./production --out /run/custody/model"
        )
    )(unseal)
    app.command(epilog=example("custody host forget 4f57e7ce --tpm tpm: --out forgotten.dsse"))(
        forget
    )


def unseal(
    bundle: BundleArgument,
    tpm: TpmOption,
    out: OutOption,
    env: EnvOption = None,
    event_log: EventLogOption = None,
    base: BaseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open a bundle again after a restart, with the key that was kept by leave of its quorum.

    Only in the boot state it was kept for, or a later one that enough enrollers authorised, and
    only while the newest policy, the revocation lists and the manifest's own end allow it.
    """
    screen = Screen(as_json=as_json)
    standing, sealed = stand(home, env, "host"), Bundle.at(bundle)
    place = place_of(standing.home)
    goes_on = partial(_is_begun, place.keys, sealed, out)
    with screen.resumable(goes_on), screen.progress() as progress:
        contents = unseal_release(
            sealed,
            out,
            situation=standing.situation,
            tpm=open_tpm(tpm),
            place=place,
            event_log=read_event_log(event_log),
            base=base,
            progress=progress,
        )
    screen.result(
        {
            "target": str(out),
            "name": contents.name,
            "version": contents.version,
            "files": len(contents.files),
        },
        lambda: screen.show(
            f"opened   {_words.plain(contents.name)}, version {_words.plain(contents.version)}: "
            f"{len(contents.files)} files, into {out}"
        ),
    )


def _is_begun(keys: KeptKeys, bundle: Bundle, out: Path) -> bool:
    """Tell whether an opening that was stopped has left something to go on from."""
    key = unsealing_key(keys.find(bundle.statement.digest))
    return unfinished_output(out, key) is not None


def forget(
    manifest: Annotated[
        str, typer.Argument(help="The manifest's digest, or how it begins.", metavar="MANIFEST")
    ],
    tpm: TpmOption,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write a statement of it here.", metavar="FILE"),
    ] = None,
    log: LogOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Destroy a kept key: no copy of it opens any more, wherever it lies.

    With --out the TPM certifies it, in a statement for the log and the auditor. What this home
    remembers of keys that died otherwise is dropped too.
    """
    screen = Screen(as_json=as_json)
    if out is not None:
        check_absent(out)
    keys = place_asked_from(open_home(home, "host")).keys
    kept, opened = _find(keys, manifest), open_tpm(tpm)
    tell = None if out is None else partial(_tell, out, kept, opened)
    value = forget_key(kept, opened, keys, tell=tell)
    dropped = tuple(dead.manifest for dead in prune(opened, keys))

    def words() -> None:
        screen.show(f"forgotten {kept.manifest}")
        for dead in dropped:
            screen.show(f"dropped   {dead}: it was dead already")

    screen.result({"manifest": kept.manifest, "counter": value, "dropped": dropped}, words)
    if out is not None:
        offer(screen, None, log, [read_file(out, max_bytes=MAX_STATEMENT_BYTES)])


def _tell(out: Path, kept: Kept, tpm: HostTpm) -> None:
    write_new_file(out, forgotten_statement(kept, tpm, now=utc_now()))


def _find(keys: KeptKeys, beginning: str) -> Kept:
    known = keys.all()
    found = [kept for kept in known if kept.manifest.startswith(beginning.lower())]
    if len(beginning) < _SHORTEST or len(found) != 1:
        raise Incomplete(
            "no key that is kept here is of this manifest"
            if not found
            else "too few digits to say which kept key is meant",
            missing=[kept.manifest for kept in known],
            where=beginning,
            hint="custody host status lists them; 8 digits or more of the manifest name one",
        )
    return found[0]
