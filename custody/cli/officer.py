"""``custody officer``: review and approve releases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from custody.cli._home import role_app
from custody.cli._later import Verbs

if TYPE_CHECKING:
    import typer


def _enroll(app: typer.Typer) -> None:
    from custody.cli._enroll import add_enroll

    add_enroll(app, "officer")


def _upgrade(app: typer.Typer) -> None:
    from custody.cli._upgrade import add_upgrade

    add_upgrade(app)


def _prove(app: typer.Typer) -> None:
    from custody.cli._prove import add_prove

    add_prove(app, "officer")


def _trust(app: typer.Typer) -> None:
    from custody.cli._trust import add_trust

    add_trust(app, "officer")


def _review(app: typer.Typer) -> None:
    from custody.cli._review import add_review

    add_review(app)


def _consent(app: typer.Typer) -> None:
    from custody.cli._consent import add_consent

    add_consent(app)


app = role_app(
    "officer",
    "custody officer enroll alice --token pkcs11:token=alice --invitation invitation.json \\",
    "    --out alice.admission.dsse",
    "custody officer trust 3f9c…e1 --env ./production",
    verbs=(
        Verbs(("enroll",), _enroll),
        Verbs(("upgrade-slot",), _upgrade),
        Verbs(("prove",), _prove),
        Verbs(("trust",), _trust),
        Verbs(("review", "approve", "deny", "status"), _review),
        Verbs(("consent",), _consent),
    ),
)
