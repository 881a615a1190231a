"""``custody host``: enrol a machine, ask for models, open them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from custody.cli._home import role_app
from custody.cli._later import Verbs

if TYPE_CHECKING:
    import typer


def _enroll(app: typer.Typer) -> None:
    from custody.cli._host_enroll import add_host_enroll

    add_host_enroll(app)


def _trust(app: typer.Typer) -> None:
    from custody.cli._trust import add_trust

    add_trust(app, "host")


def _request(app: typer.Typer) -> None:
    from custody.cli._open import add_request

    add_request(app)


def _open(app: typer.Typer) -> None:
    from custody.cli._opening import add_opening

    add_opening(app)


def _requests(app: typer.Typer) -> None:
    from custody.cli._requests import add_requests

    add_requests(app)


def _read(app: typer.Typer) -> None:
    from custody.cli._read import add_read

    add_read(app)


def _unseal(app: typer.Typer) -> None:
    from custody.cli._unseal import add_unseal

    add_unseal(app)


def _predict(app: typer.Typer) -> None:
    from custody.cli._predict import add_predict

    add_predict(app)


def _tls(app: typer.Typer) -> None:
    from custody.cli._host_tls import add_host_tls

    add_host_tls(app)


def _site(app: typer.Typer) -> None:
    from custody.cli._site import add_site

    add_site(app)


def _keyhost(app: typer.Typer) -> None:
    from custody.cli._keyhost import add_keyhost

    add_keyhost(app)


def _prove(app: typer.Typer) -> None:
    from custody.cli._prove import add_prove

    add_prove(app, "host")


app = role_app(
    "host",
    "custody host enroll gpu-7 --tpm tpm: --out gpu-7.enrolment.json",
    "custody host trust 3f9c…e1 --env ./production",
    verbs=(
        Verbs(("enroll", "measure"), _enroll),
        Verbs(("trust",), _trust),
        Verbs(("request",), _request),
        Verbs(("open",), _open),
        Verbs(("status", "cancel", "receipt"), _requests),
        Verbs(("read",), _read),
        Verbs(("unseal", "forget"), _unseal),
        Verbs(("predict",), _predict),
        Verbs(("tls",), _tls),
        Verbs(("site",), _site),
        Verbs(("admit", "request-by-key", "open-by-key", "end-by-key"), _keyhost),
        Verbs(("prove",), _prove),
    ),
)
