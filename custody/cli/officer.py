"""``custody officer``: review and approve releases."""

from __future__ import annotations

from custody.cli._enroll import add_enroll
from custody.cli._home import role_app
from custody.cli._review import add_review
from custody.cli._trust import add_trust

app = role_app(
    "officer",
    "custody officer enroll alice --token pkcs11:token=alice --invitation invitation.json \\",
    "    --out alice.admission.dsse",
    "custody officer trust 3f9c…e1 --env ./production",
)
add_enroll(app, "officer")
add_trust(app, "officer")
add_review(app)
