"""``custody publisher``: seal models for an environment."""

from __future__ import annotations

from custody.cli._enroll import add_enroll
from custody.cli._home import role_app
from custody.cli._model import add_sign_model
from custody.cli._seal import add_seal
from custody.cli._trust import add_trust

app = role_app(
    "publisher",
    "custody publisher enroll lab --token pkcs11:token=lab --invitation invitation.json \\",
    "    --out lab.admission.dsse",
    "custody publisher trust 3f9c…e1 --env ./production",
)
add_enroll(app, "publisher")
add_trust(app, "publisher")
add_seal(app)
add_sign_model(app)
