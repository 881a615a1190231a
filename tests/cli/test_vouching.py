"""What an enroller is told before he vouches for a host."""

from __future__ import annotations

from datetime import timedelta

import pytest

from custody.cli._ui import Screen
from custody.cli._vouching import say_whom
from custody.encoding import format_time
from custody.ops.enroll import ask
from tests.unit.machine import EkCertificate, SoftTpm
from tests.unit.ops.test_retire import EK, FIRST, enrolled, retired, standing
from tests.unit.people import NOW


def test_another_tpm_of_that_name_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """A machine that asks under another's name is not vouched for without that being said."""
    first = enrolled(FIRST)
    asked = ask(SoftTpm(certificate=EkCertificate(key="other").issue()), host="gpu-1")
    say_whom(Screen(), asked, "software", standing([first]))
    said = " ".join(capfd.readouterr().err.split())
    assert f"another TPM is gpu-1 since {format_time(NOW)}: EK {EK}" in said
    say_whom(Screen(), FIRST, "software", standing([first]))
    assert "another TPM" not in capfd.readouterr().err
    ended = retired(first, "esme", [first], onto=retired(first, "erik", [first]))
    say_whom(Screen(), asked, "software", standing([first, ended], timedelta(days=1)))
    assert "another TPM" not in capfd.readouterr().err
