"""What a recovery made of a bundle, signed by its publisher.  Protocol section 7."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from custody.crypto.quorum import tree_digest
from custody.encoding import decode
from custody.errors import Incomplete, Refused
from custody.formats.envelope import Statement, decode_statement
from custody.formats.logentry import entry_of
from custody.formats.manifest import Manifest
from custody.formats.policy import Role
from custody.formats.recovery import BreakGlass, Rewrapped
from custody.ops.bundle import CONTENTS, MANIFEST, PARTS, PAYLOAD, Bundle
from custody.ops.folders import read_file, reading
from custody.ops.keys import Signer
from custody.ops.landing import check_absent, disk_errors, new_directory
from custody.rules.broken import check_broken
from custody.rules.holdings import check_held
from custody.rules.manifest import check_manifest
from custody.rules.people import check_key
from custody.rules.situation import Situation
from custody.rules.trust import check_author, require_signatory
from custody.rules.verdicts import require

#: The files that `break_glass` makes for a publisher.
REWRAPPED = "rewrapped.json"
STATEMENT = "break-glass.dsse"

_MAX_BYTES = 16 << 20
#: What a re-wrapped core may have of its own; all else is the old core's.
_NEW = ("policy_version", "tree", "site", "recovery", "sealed_at", "replaces")


def read_rewrapped(path: Path) -> Rewrapped:
    """Read what a custodian made for its publisher."""
    with reading(path):
        return decode(Rewrapped, read_file(path, max_bytes=_MAX_BYTES), max_bytes=_MAX_BYTES)


def check_rewrapped(
    old: Statement[Manifest],
    new: Rewrapped,
    broken: Statement[BreakGlass],
    situation: Situation,
) -> None:
    """Refuse to sign anything but the same payload, for the people of the policy in force.

    A custodian's statement must speak of exactly this envelope.  That its shares are those of the
    content key shows when officers and host open them; what is wrong then hurts this bundle alone.
    Where the policy demands a log, one whose statement is not shown to be in it is `Incomplete`.
    """
    policy = situation.trusted.policy
    keyid, _, verdicts = check_author(
        broken, policy, role="custodian", check="recovery", subject="break-glass"
    )
    require(verdicts)
    require(
        check_key(
            *require_signatory(policy, keyid, role="custodian", check="recovery.signer"), situation
        )
    )
    said = broken.predicate
    if (said.manifest, said.replacement, said.environment) != (
        old.digest,
        new.core.binding().hex(),
        situation.trusted.genesis,
    ):
        raise Refused(
            "the custodian's statement is about another bundle or envelope", check="recovery.other"
        )
    kept = {name: getattr(old.predicate.core, name) for name in _NEW}
    if msgspec.structs.replace(new.core, **kept) != old.predicate.core:
        raise Refused("the new core is not of the same payload", check="recovery.core")
    if new.core.replaces != old.digest:
        raise Refused("the new core replaces another manifest", check="recovery.core")
    _check_recipients(new, situation)
    _check_logged(broken, situation)


def _check_recipients(new: Rewrapped, situation: Situation) -> None:
    """Refuse an envelope for anybody but the officers in force, by keys whose certificates hold.

    Bundles of earlier versions are good as long as their officers are; one that is made today, by
    a custodian who knows no newer policy or none of who was revoked, would bring back who left.
    """
    policy, core = situation.trusted.policy, new.core
    if (core.policy_version, core.tree) != (policy.version, tree_digest(policy.quorum)):
        raise Refused(
            f"is sealed to the officers of policy version {core.policy_version}, and version"
            f" {policy.version} is in force",
            check="recovery.policy",
            hint="the glass is broken again, by a custodian who has the newest policy",
        )
    for slot in new.envelope.slots:
        holder = policy.holder(slot.recipient)
        if slot.purpose == "recovery" or holder is None:
            continue  # whose these are, and that they are nobody's, is judged with the manifest
        key = next(key for key in holder.keys if key.key_id == slot.recipient)
        require(check_key(holder, key, situation))


def _check_logged(broken: Statement[BreakGlass], situation: Situation) -> None:
    """Refuse what no log that the policy demands was told of: nobody else would hear of it."""
    verdicts = check_broken(broken, situation.trusted.policy, situation)
    failed = [verdict for verdict in verdicts if verdict.outcome == "fail"]
    if not failed:
        return
    entry = entry_of(broken.envelope)
    if any(given.entry == entry for given in situation.documents.proofs):
        # A proof is here: why it is none says more than that one is missing.
        require(failed)
    raise Incomplete(
        failed[0].reason,
        missing=("the log's proof of it",),
        where=STATEMENT,
        hint=f"custody log append LOG {STATEMENT} --proofs DIR (logged already: custody log prove);"
        " put the .tlog-proof file beside it",
    )


def sign_rewrapped(
    bundle: Bundle,
    new: Rewrapped,
    broken: Statement[BreakGlass],
    target: Path,
    *,
    situation: Situation,
    signer: Signer,
) -> Statement[Manifest]:
    """Sign a re-wrapped manifest as its publisher, and lay the new bundle beside the old one.

    Ciphertext is the same, byte for byte: files are linked where the disk can, else copied.
    """
    check_absent(target)
    check_rewrapped(bundle.statement, new, broken, situation)
    check_signer(signer, situation, role="publisher")
    if signer.key_id != new.core.publisher:
        # The model signature in the contents is by that key, and judges compare them.
        raise Refused(
            "another key published this bundle", check="manifest.publisher", where=str(bundle.path)
        )
    bundle.sealed_contents()
    data = signer.statement(Manifest(core=new.core, envelope=new.envelope))
    statement = decode_statement(Manifest, data)
    require(check_manifest(statement, situation))
    require(check_held(statement, situation.trusted.versions))
    with new_directory(target, mode=0o755) as folder:
        for name in (CONTENTS, PARTS, PAYLOAD):
            with disk_errors(folder):
                _link(bundle.path / name, folder / name)
        (folder / MANIFEST).write_bytes(data)
    return statement


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def check_signer(signer: Signer, situation: Situation, *, role: Role) -> None:
    """Refuse a signer who is not in that role, or whose certificate does not hold."""
    found = require_signatory(
        situation.trusted.policy, signer.key_id, role=role, check="recovery.signer"
    )
    require(check_key(*found, situation))
