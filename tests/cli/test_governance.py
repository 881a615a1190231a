from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from custody.encoding import encode, utc_now
from custody.formats.admission import InvitationKeys
from tests.cli.transcript import replay
from tests.unit.people import policy, signed, signed_policy


def test_refusals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refusal is one line that names the file, with the right exit code and nothing made."""
    now = utc_now()
    made = replace(policy(), issued_at=now, expires_at=now.replace(year=now.year + 1, day=1))
    statement = signed_policy(made)
    env = tmp_path / "env"
    env.mkdir()
    (env / "policy-1.dsse").write_bytes(signed(made, "ida", "cas"))
    (tmp_path / "half.dsse").write_bytes(signed(made, "ida"))
    (tmp_path / "draft.toml").write_text('treshold = 2\nenvironment = "production"\n')
    keys = InvitationKeys.generate(environment="production", custodian="ida")
    (tmp_path / "invitation.json").write_bytes(encode(keys.invitation))
    before = sorted(tmp_path.iterdir())
    home = tmp_path / "home"
    monkeypatch.setenv("CUSTODY_HOME", str(home))
    monkeypatch.delenv("CUSTODY_ENV", raising=False)
    values = {
        "folder": str(tmp_path),
        "env": str(env),
        "home": str(home),
        "digest": statement.digest,
        "eight": statement.digest[:8],
        "until": f"{made.expires_at:%Y-%m-%d}",
    }
    transcript = Path(__file__).with_name("governance.txt")
    replay(transcript, values, capsys=capsys, monkeypatch=monkeypatch)
    assert sorted([*before, home]) == sorted(tmp_path.iterdir())
