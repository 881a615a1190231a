"""``custody token make-kek``."""

from __future__ import annotations

from typing import Annotated

import typer

from custody.cli._home import JsonOption, PinFdOption, example
from custody.cli._ui import Screen
from custody.cli._wiring import open_token
from custody.encoding import Digest, Record
from custody.keys.wrapapi import KekInfo, wrapping_of

LabelOption = Annotated[
    str, typer.Option("--label", help="What to call it, as site.", metavar="LABEL")
]


class KekView(Record, frozen=True, kw_only=True):
    """What ``make-kek --json`` shows."""

    label: str
    uri: str
    check: Digest
    """Its check value: what names it, as a digest names a public key."""
    mechanism: str
    recoverable: bool
    restored: bool


def kek_view(info: KekInfo) -> KekView:
    """Say of a key-encryption key what can be seen of it."""
    return KekView(
        label=info.label,
        uri=str(info.uri),
        check=info.check,
        mechanism=info.mechanism,
        recoverable=info.recoverable,
        restored=info.restored,
    )


def add_kek(app: typer.Typer) -> None:
    """Add the verb to those of tokens."""
    app.command(
        "make-kek",
        epilog=example(
            "custody token make-kek pkcs11:token=site?module-name=softhsm2 --label site"
        ),
    )(make_kek)


def make_kek(
    uri: Annotated[
        str, typer.Argument(help="The token: a pkcs11: URI that one token matches.", metavar="URI")
    ],
    label: LabelOption,
    recoverable: Annotated[
        bool,
        typer.Option(
            "--recoverable", help="May leave under a wrapping key that the token's SO trusts."
        ),
    ] = False,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key-encryption key: AES-256, wraps and unwraps in its token, and does nothing else.

    Without --recoverable it never leaves, and is lost with its token.
    """
    screen = Screen(as_json=as_json)
    with open_token(uri, pin_fd=pin_fd) as token, token.session():
        keks = wrapping_of(token)
        keks.check_free(label)
        made = keks.make_kek(label, recoverable=recoverable)
    view = kek_view(made.info)

    def words() -> None:
        screen.show(f"{view.label}: {view.uri}")
        screen.show("its check value, to be written down:")
        screen.speak(view.check)

    screen.result(view, words)
