"""Open the confidential half of an audited bundle, for whoever holds a share key."""

from __future__ import annotations

from dataclasses import dataclass

from custody.encoding import Digest
from custody.errors import Refused
from custody.formats.case import Documents, find
from custody.formats.contents import Contents
from custody.ops.bundle import Bundle
from custody.ops.keys import ShareOpener
from custody.ops.model_signature import judge_contents
from custody.rules.verdicts import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedContents:
    """What a manifest of the case seals, and whether its publisher signed exactly these files."""

    manifest: Digest
    contents: Contents
    verdicts: tuple[Verdict, ...]


def open_contents(bundle: Bundle, opener: ShareOpener, documents: Documents) -> OpenedContents:
    """Open a bundle's contents; its manifest must be one of the case's, which the audit judges."""
    if find(documents.manifests, bundle.statement.digest) is None:
        raise Refused(
            "this bundle's manifest is not in the case",
            check="contents.case",
            where=str(bundle.path),
        )
    contents = bundle.contents_for(opener)
    # A key id is its key's digest: every policy that lists it lists the same key.
    keys = (p.predicate.signing_key(bundle.core.publisher) for p in documents.policies)
    key = next((found for found in keys if found is not None), None)
    return OpenedContents(
        manifest=bundle.statement.digest,
        contents=contents,
        verdicts=judge_contents(contents, key.spki if key else None),
    )
