"""``custody host``: enrol a machine, ask for models, open them."""

from __future__ import annotations

from custody.cli._home import role_app
from custody.cli._host_enroll import add_host_enroll
from custody.cli._open import add_open
from custody.cli._predict import add_predict
from custody.cli._read import add_read
from custody.cli._requests import add_requests
from custody.cli._trust import add_trust
from custody.cli._unseal import add_unseal

app = role_app(
    "host",
    "custody host enroll gpu-7 --tpm tpm: --out gpu-7.enrolment.json",
    "custody host trust 3f9c…e1 --env ./production",
)
add_host_enroll(app)
add_trust(app, "host")
add_open(app)
add_requests(app)
add_read(app)
add_unseal(app)
add_predict(app)
