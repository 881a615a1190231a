"""A site's half of what a content key is wrapped under, opened in the site's HSM.  Section 3.7."""

from __future__ import annotations

from collections.abc import Sequence

from custody.crypto.keyslots import open as open_slot
from custody.crypto.keyslots import slot_info
from custody.crypto.secret import wipe
from custody.errors import Refused, Unavailable
from custody.formats.manifest import KeySlot, Manifest
from custody.ops.keys import ShareOpener

#: Length of K_site.
SITE_SECRET_BYTES = 32


def check_site_key(manifest: Manifest, site: Sequence[ShareOpener]) -> None:
    """Refuse to begin where a bundle takes a site's HSM and the right key of it is not at hand.

    No key at all: `Unavailable`; another site's: `Refused` (``site.key``).
    """
    if manifest.core.site is not None:
        _slot_and_opener(manifest, site)


def open_site_half(manifest: Manifest, site: Sequence[ShareOpener]) -> bytearray:
    """Open K_site in the site's HSM; empty where the bundle takes none.

    Raises as `check_site_key`, and `Refused` (``slot.open``, ``site.half``) if what is in the slot
    was changed, or is no K_site.
    """
    if manifest.core.site is None:
        return bytearray()
    slot, opener = _slot_and_opener(manifest, site)
    return open_half(slot, opener, manifest.core.binding())


def open_half(slot: KeySlot, opener: ShareOpener, binding: bytes) -> bytearray:
    """Open a site's slot; ``binding`` is the core's C (32 bytes).  Errors as `open_site_half`."""
    info = slot_info(binding, "site", "", slot.recipient)
    half = bytearray(open_slot(slot.suite, opener.key, opener.mlkem_seed, slot.sealed, info=info))
    # R ‖ K_site is cut nowhere, so a half of another length would move the boundary.
    if len(half) != SITE_SECRET_BYTES:
        wipe(half)
        raise Refused("the publisher sealed something else to the site", check="site.half")
    return half


def _slot_and_opener(
    manifest: Manifest, site: Sequence[ShareOpener]
) -> tuple[KeySlot, ShareOpener]:
    if not site:
        raise Unavailable(
            "this bundle opens only with the HSM of the site it was sealed for",
            hint="name the home of the site's keys: --site DIR (custody host site --help)",
        )
    for opener in site:
        for slot in manifest.slots_for(opener.recipient):
            if slot.purpose == "site":
                return slot, opener
    raise Refused("this bundle was sealed for another site's HSM", check="site.key")
