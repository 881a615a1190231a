"""A log whose key is in a SoftHSM token."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from custody.encoding import key_id
from custody.formats.logpolicy import trust_key
from custody.formats.logstate import SeenLogs
from custody.keys.pkcs11 import open_token
from custody.keys.uri import Pkcs11Uri
from custody.log.reader import Followed, follow
from custody.ops import logs
from custody.ops.home import Home
from custody.transports.store import DirectoryStore

NOW = datetime(2027, 1, 5, 12, 0, tzinfo=UTC)


def test_a_log_is_kept_by_a_token(uri: Pkcs11Uri, tmp_path: Path) -> None:
    """The key is made in the token, found again by its digest, and signs every checkpoint."""
    home, store = Home(tmp_path / "home"), DirectoryStore(tmp_path / "log")
    origin = "log.example.com/models"
    with open_token(uri) as token:
        made = logs.init_log(home, store, token, uri=str(uri), origin=origin, label="log")
        (key,) = token.keys()
        assert key_id(made.public) == key.key_id
    with open_token(uri) as token:
        logs.open_writer(home, store, token, now=NOW).append([b"one", b"two"])
    with open_token(uri) as token:
        logs.open_writer(home, store, token, now=NOW).append([b"three"])
    followed = follow(store, trust_key(made), SeenLogs(kind="custody/logs-seen/v1", logs=()))
    assert isinstance(followed, Followed)
    assert [b"one", b"two", b"three"] == [entry for _, entry in followed.new_entries()]
