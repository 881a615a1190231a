"""``custody publisher``: seal models for an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from custody.cli._home import role_app
from custody.cli._later import Verbs

if TYPE_CHECKING:
    import typer


def _enroll(app: typer.Typer) -> None:
    from custody.cli._enroll import add_enroll

    add_enroll(app, "publisher")


def _trust(app: typer.Typer) -> None:
    from custody.cli._trust import add_trust

    add_trust(app, "publisher")


def _seal(app: typer.Typer) -> None:
    from custody.cli._seal import add_seal

    add_seal(app)


def _retire(app: typer.Typer) -> None:
    from custody.cli._dispose import add_retire

    add_retire(app)


def _rewrap(app: typer.Typer) -> None:
    from custody.cli._rewrap import add_rewrap

    add_rewrap(app)


def _sign_model(app: typer.Typer) -> None:
    from custody.cli._model import add_sign_model

    add_sign_model(app)


app = role_app(
    "publisher",
    "custody publisher enroll lab --token pkcs11:token=lab --invitation invitation.json \\",
    "    --out lab.admission.dsse",
    "custody publisher trust 3f9c…e1 --env ./production",
    verbs=(
        Verbs(("enroll",), _enroll),
        Verbs(("trust",), _trust),
        Verbs(("seal", "inspect", "check"), _seal),
        Verbs(("retire",), _retire),
        Verbs(("sign-model",), _sign_model),
        Verbs(("rewrap",), _rewrap),
    ),
)
