"""``custody auditor verify-ceremony``: judge a ceremony's transcript again, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from custody.cli._home import JsonOption, example, read_digest
from custody.cli._ui import EXIT_REFUSED, Screen
from custody.encoding import Digest, Record
from custody.errors import Incomplete
from custody.rules.verdicts import Verdict


class CeremonyView(Record, frozen=True, kw_only=True):
    """What ``verify-ceremony --json`` shows."""

    sound: bool
    """Every check holds, and what people wrote down was among them."""
    script: Digest
    last: Digest
    policy: Digest | None
    signed: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


def add_verify_ceremony(app: typer.Typer) -> None:
    """Add ``verify-ceremony`` to the auditor's commands."""
    app.command(
        "verify-ceremony",
        epilog=example(
            "custody auditor verify-ceremony production-start --digest 3f9c…e1",
        ),
    )(verify_ceremony)


def verify_ceremony(
    folder: Annotated[
        Path,
        typer.Argument(
            help="The ceremony's folder, whole: ceremony.toml, transcript.jsonl, what was written.",
            metavar="DIR",
            show_default=False,
        ),
    ],
    digest: Annotated[
        str | None,
        typer.Option(
            "--digest",
            help="What was written down: the digest of the last record, or of the policy.",
            metavar="DIGEST",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the record as a page too.", metavar="FILE.html"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a ceremony by its files: script, order, tokens, signatures, and what was written down.

    Each file that a step wrote is verified by its signer's key and held to its record: admissions,
    certificates, the policy, recovery records, wrapping keys, backups.

    Exit code 0 only if every check holds. Without --digest the files can only agree with each
    other, and may all be somebody else's: exit code 4.
    """
    from custody.ops.audit_ceremony import judge_ceremony
    from custody.ops.landing import check_absent, write_new_file

    if out is not None:
        check_absent(out)
    screen = Screen(as_json=as_json)
    pin = None if digest is None else read_digest(digest, option="--digest")
    judged = judge_ceremony(folder, pin=pin)
    if out is not None:
        from custody.report.ceremony import render_ceremony

        write_new_file(out, render_ceremony(judged))
    view = CeremonyView(
        sound=judged.sound and pin is not None,
        script=judged.held.digest,
        last=judged.lines[-1].digest,
        policy=judged.progress.policy,
        signed=judged.progress.signers,
        verdicts=judged.verdicts,
    )

    def words() -> None:
        screen.verdicts(view.verdicts)
        if judged.sound and pin is None:
            screen.show("its files agree with each other, and nothing says whose they are")
        else:
            screen.show("sound" if view.sound else "NOT SOUND")
        screen.show(f"its last record: {view.last}")

    screen.result(view, words)
    if not judged.sound:
        raise typer.Exit(EXIT_REFUSED)
    if pin is None:
        raise Incomplete(
            "there is nothing to judge by",
            missing=("the digest that people wrote down: of the last record, or of the policy",),
            hint="ask somebody who was there, not the folder, and give it with --digest",
        )
