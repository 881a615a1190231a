"""A bundle on disk: what travels.  Format: docs/protocol.md section 3."""

from __future__ import annotations

from pathlib import Path

import msgspec

from custody.crypto.contentbox import open_contents
from custody.crypto.keyslots import open as open_slot
from custody.crypto.keyslots import slot_info, unwrap
from custody.encoding import sha256
from custody.errors import Malformed, Refused, Unavailable
from custody.formats.contents import MAX_CONTENTS_BYTES, Contents, decode_padded
from custody.formats.envelope import Statement
from custody.formats.manifest import Core, Manifest
from custody.ops.folders import read_file, read_statement_file
from custody.ops.keys import ShareOpener
from custody.ops.part_map import PartMap

MANIFEST = "manifest.dsse"
PARTS = "parts"
CONTENTS = "contents.sealed"
PAYLOAD = "payload"


class Bundle(msgspec.Struct, frozen=True):
    """A bundle directory and its manifest.  Nothing is verified yet."""

    path: Path
    statement: Statement[Manifest]

    @classmethod
    def at(cls, path: Path) -> Bundle:
        """Read the manifest of the bundle at ``path``."""
        try:
            return cls(path=path, statement=read_statement_file(Manifest, path / MANIFEST))
        except Unavailable as error:
            error.hint = f"a bundle is named by its folder, in which {MANIFEST} lies"
            raise

    @property
    def core(self) -> Core:
        """The public half of the manifest."""
        return self.statement.predicate.core

    @property
    def payload(self) -> Path:
        """The ciphertext."""
        return self.path / PAYLOAD

    @property
    def parts(self) -> Path:
        """The rows of the parts."""
        return self.path / PARTS

    def sealed_contents(self) -> bytes:
        """Read the sealed contents and hold them against the manifest's digest."""
        file = self.path / CONTENTS
        core = self.core
        if core.contents_size_bytes > MAX_CONTENTS_BYTES:
            raise Malformed("promises contents of an impossible size", where=str(self.path))
        data = read_file(file, max_bytes=core.contents_size_bytes)
        if len(data) != core.contents_size_bytes or sha256(data).hex() != core.contents:
            raise Refused(
                "not the contents this manifest was signed with",
                check="contents.digest",
                where=str(file),
            )
        return data

    def contents_with(self, key: bytes) -> Contents:
        """Open the contents with their key."""
        opened = open_contents(key, bytes.fromhex(self.core.payload_id), self.sealed_contents())
        contents = decode_padded(opened)
        check_contents(contents, self.core)
        return contents

    def contents_for(self, opener: ShareOpener) -> Contents:
        """Open the contents with a person's share key."""
        for slot in self.statement.predicate.slots_for(opener.recipient):
            if slot.purpose == "contents":
                info = slot_info(self.core.binding(), "contents", "", slot.recipient)
                key = open_slot(slot.suite, opener.key, opener.mlkem_seed, slot.sealed, info=info)
                return self.contents_with(key)
        raise Refused(
            "the contents are not sealed to this key",
            check="contents.slot",
            where=str(self.path),
        )

    def contents_under(self, cek: bytes | bytearray) -> Contents:
        """Open the contents with the content encryption key, as a host does."""
        wrap = self.statement.predicate.wrap("contents")
        key = unwrap(cek, wrap.salt, wrap.sealed, C=self.core.binding(), purpose="contents")
        return self.contents_with(key)


def check_contents(contents: Contents, core: Core) -> None:
    """Refuse contents that do not fit the core they came with."""
    PartMap.of(contents, core)
