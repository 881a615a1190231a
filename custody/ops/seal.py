"""Seal a model directory into a bundle for one environment.  Protocol section 3."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from custody.crypto.contentbox import seal_contents
from custody.crypto.parts import cek_commitment
from custody.crypto.quorum import tree_digest
from custody.encoding import Digest, check_text, format_time, sha256
from custody.errors import Malformed, Refused, Unavailable
from custody.formats.contents import (
    MAX_NOTES,
    Base,
    Contents,
    decode_padded,
    encode_padded,
    padded_size,
)
from custody.formats.envelope import Statement, decode_statement
from custody.formats.manifest import Core, Manifest
from custody.formats.policy import PartDigest
from custody.ops.ahead import Ahead
from custody.ops.bundle import CONTENTS, MANIFEST
from custody.ops.envelope_seal import check_officers, seal_envelope
from custody.ops.folders import reading
from custody.ops.keys import Signer, TokenRandom
from custody.ops.landing import check_absent
from custody.ops.model_files import Layout, Scan, default_part_size, plan_layout, scan
from custody.ops.model_signature import resources_of, sign_model, verify_model
from custody.ops.payload_seal import PayloadKey, SealedPayload, seal_payload
from custody.ops.progress import Progress, silent
from custody.ops.resume import SealJob, SealKeeper, SealStage, seal_stage
from custody.ops.sealed_model import SealedModel
from custody.rules.holdings import check_held
from custody.rules.manifest import check_manifest
from custody.rules.people import check_key
from custody.rules.site import choose_site, core_site
from custody.rules.situation import Situation
from custody.rules.trust import signatory
from custody.rules.verdicts import require

if TYPE_CHECKING:
    from custody.ops.delta import Known
    from custody.ops.frame_plan import FramePlan

#: Whether a model is compressed: never, or where a sample says that it pays.
Compress = Literal["none", "auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealOrder:
    """What the publisher decides.

    ``name``, ``version`` and ``notes`` are for officers; storage never sees them.
    ``model_signature`` carries an existing ``model.sig`` of the publisher's; without it one is
    made, with ``certificates`` (DER, leaf first) in it where there are any.
    """

    name: str
    version: str
    not_after: datetime
    notes: str = ""
    replaces: Digest | None = None
    site: str | None = None
    """Which of the policy's sites it is for; needed where there are several."""
    part_size_bytes: int | None = None
    model_signature: bytes | None = None
    certificates: tuple[bytes, ...] = ()
    base: Known | None = None
    """What is known of a model that every receiver has, to be carried without what is in it."""
    compress: Compress = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What sealing made."""

    statement: Statement[Manifest]
    files: int
    size_bytes: int
    part_count: int
    kept_parts: int
    """How many were there from an interrupted run."""
    payload_bytes: int
    taken_bytes: int
    """How much of the model the base has; 0 where there is no base, or nothing in common."""
    compressed_bytes: int
    """What the model takes compressed, before it is padded; 0 where it is not."""
    remembered: SealedModel | None
    """What the next update can be made from; nothing of a compressed one."""
    empty_directories: tuple[str, ...]


def seal_model(
    model: Path,
    bundle: Path,
    order: SealOrder,
    *,
    situation: Situation,
    signer: Signer,
    token_random: TokenRandom | None = None,
    keeper: SealKeeper | None = None,
    ahead: Ahead | None = None,
    progress: Progress = silent,
) -> Sealed:
    """Seal ``model`` into the new directory ``bundle``, readable by no one without the quorum.

    ``situation.now`` becomes ``sealedAt``.  With a ``keeper`` an interrupted seal goes on where it
    stopped, if the model is the same; an update and what is compressed start again.  ``ahead`` may
    have memory for the payload already.  Raises `Refused` when the publisher may not seal here, a
    file changes meanwhile or ``bundle`` exists, `Unavailable` when the disk is too small.
    """
    check_order(order, now=situation.now)
    _check_publisher(signer, situation)
    choose_site(situation, order.site)
    check_officers(situation)
    check_absent(bundle)
    _check_outside(bundle, model)
    found = scan(model)
    plan = _compressed(model, found, order, progress)
    layout = plan.layout if plan else _lay_out(model, found, order, progress)
    policy = situation.trusted.policy
    job = SealJob(
        target=bundle,
        layout=layout,
        environment=situation.trusted.genesis,
        part_digest=policy.part_digest,
    )
    again = order.base is not None or plan is not None
    with seal_stage(job, None if again else keeper, token_random) as stage:
        secrets, staging = stage.secrets, stage.directory
        sealed = _payload(model, plan or layout, stage, policy.part_digest, ahead, progress)
        contents = _contents(
            order, sealed, signer, model_name=model.resolve().name, base=layout.base
        )
        box = seal_contents(secrets.contents, stage.payload_id, _padded(contents))
        (staging / CONTENTS).write_bytes(box)
        size = layout.part_size_bytes
        core = _core(order, sealed, box, signer, situation, stage.payload_id, secrets.cek, size)
        envelope = seal_envelope(core, secrets, situation, token_random)
        manifest = Manifest(core=core, envelope=envelope)
        data = signer.statement(manifest)
        statement = decode_statement(Manifest, data)
        # What everybody else will refuse is refused here, before it travels.
        require(check_manifest(statement, situation))
        require(check_held(statement, situation.trusted.versions))
        (staging / MANIFEST).write_bytes(data)
    return Sealed(
        statement=statement,
        files=len(found.files),
        size_bytes=found.size_bytes,
        part_count=sealed.part_count,
        kept_parts=sealed.kept_parts,
        empty_directories=found.empty_directories,
        payload_bytes=sealed.part_count * layout.part_size_bytes,
        taken_bytes=layout.base.size_bytes if layout.base else 0,
        compressed_bytes=contents.stored_bytes if plan else 0,
        remembered=_remembered(statement, sealed, layout) if plan is None else None,
    )


def _remembered(
    statement: Statement[Manifest], sealed: SealedPayload, layout: Layout
) -> SealedModel:
    return SealedModel(
        kind="custody/sealed-model/v1",
        manifest=statement.digest,
        part_size_bytes=layout.part_size_bytes,
        files=sealed.files,
        fingerprint_key=sealed.fingerprint_key,
        fingerprints=sealed.fingerprints,
    )


def _payload(
    model: Path,
    planned: Layout | FramePlan,
    stage: SealStage,
    part_digest: PartDigest,
    ahead: Ahead | None,
    progress: Progress,
) -> SealedPayload:
    """Seal the payload into a stage, as it is or compressed."""
    if isinstance(planned, Layout):
        return seal_payload(
            model,
            planned,
            cek=stage.secrets.cek,
            payload_id=stage.payload_id,
            part_digest=part_digest,
            directory=stage.directory,
            ahead=ahead,
            progress=progress,
        )
    from custody.ops.frame_seal import seal_frames  # noqa: PLC0415 - an extra

    key = PayloadKey(cek=stage.secrets.cek, payload_id=stage.payload_id, part_digest=part_digest)
    return seal_frames(model, planned, key=key, directory=stage.directory, progress=progress)


def _compressed(model: Path, found: Scan, order: SealOrder, progress: Progress) -> FramePlan | None:
    """Plan how to compress a model, where that is asked for and pays."""
    if order.compress == "none":
        return None
    try:
        from custody.ops.frame_plan import plan_frames  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Unavailable(
            f"{error.name} is not installed, which compresses",
            hint="pip install 'custody[compress]'",
        ) from error
    size = order.part_size_bytes or default_part_size(found.size_bytes)
    return plan_frames(model, found.files, part_size_bytes=size, progress=progress)


def _lay_out(model: Path, found: Scan, order: SealOrder, progress: Progress) -> Layout:
    """Place the files of a model, as a delta where a base is known."""
    size = order.part_size_bytes
    if order.base is not None:
        from custody.ops.delta import plan_delta  # noqa: PLC0415 - few seals have a base

        return plan_delta(model, found.files, order.base, part_size_bytes=size, progress=progress)
    return plan_layout(found.files, size or default_part_size(found.size_bytes))


def check_order(order: SealOrder, *, now: datetime) -> None:
    """Refuse what everybody else would refuse once it is sealed; `Malformed` names the field."""
    for field, lines in (
        ("name", [order.name]),
        ("version", [order.version]),
        ("notes", [line for line in order.notes.splitlines() if line.strip()]),
    ):
        with reading(field):
            for line in lines:
                check_text(line)
    if len(order.notes) > MAX_NOTES:
        raise Malformed(f"are longer than {MAX_NOTES} characters", where="notes")
    if order.not_after <= now:
        raise Malformed(f"{format_time(order.not_after)} is over already", where="not_after")
    if order.base is not None and order.compress != "none":
        # Parts of what is compressed say nothing about those of a base.
        raise Malformed("an update to --base is not compressed", where="compress")


def _check_outside(bundle: Path, model: Path) -> None:
    # It would become part of the model that is being read.
    if bundle.resolve().is_relative_to(model.resolve()):
        raise Refused("lies inside the model", check="seal.target", where=str(bundle))


def _contents(
    order: SealOrder,
    sealed: SealedPayload,
    signer: Signer,
    *,
    model_name: str,
    base: Base | None,
) -> Contents:
    """Write the confidential table, with a model signature over exactly these files."""
    return Contents(
        kind="custody/contents/v1",
        name=order.name,
        version=order.version,
        notes=order.notes,
        model_signature=_model_signature(order, sealed, signer, model_name),
        files=sealed.files,
        part_digests=sealed.part_digests,
        base=base,
        frames=sealed.frames,
    )


def _core(
    order: SealOrder,
    sealed: SealedPayload,
    box: bytes,
    signer: Signer,
    situation: Situation,
    payload_id: bytes,
    cek: bytearray,
    part_size_bytes: int,
) -> Core:
    policy = situation.trusted.policy
    return Core(
        payload_id=payload_id.hex(),
        environment=situation.trusted.genesis,
        policy_version=policy.version,
        tree=tree_digest(policy.quorum),
        publisher=signer.key_id,
        part_size_bytes=part_size_bytes,
        part_count=sealed.part_count,
        part_digest=policy.part_digest,
        parts_root=sealed.parts_root,
        cek_commitment=cek_commitment(cek, payload_id).hex(),
        contents=sha256(box).hex(),
        contents_size_bytes=len(box),
        site=core_site(choose_site(situation, order.site)),
        recovery=None if policy.recovery is None else policy.recovery.key_id,
        sealed_at=situation.now,
        not_after=order.not_after,
        replaces=order.replaces,
    )


def _check_publisher(signer: Signer, situation: Situation) -> None:
    policy = situation.trusted.policy
    found = signatory(policy, signer.key_id, "publisher")
    if found is None:
        raise Refused(
            f"this key is no publisher's in {policy.environment}, policy version {policy.version}",
            check="seal.publisher",
            hint="a custodian adds a publisher with: custody custodian policy propose",
        )
    require(check_key(*found, situation))


def _model_signature(
    order: SealOrder, sealed: SealedPayload, signer: Signer, model_name: str
) -> bytes:
    """Sign the model, or carry a signature after verifying that it is over these files."""
    files = resources_of(sealed.files)
    if order.model_signature is not None:
        verify_model(order.model_signature, files, spki=signer.spki)
        return order.model_signature
    return sign_model(files, signer=signer, certificates=order.certificates, model_name=model_name)


def _padded(contents: Contents) -> bytes:
    padded = encode_padded(contents, padded_size(contents))
    # Sealed contents that their readers refuse would be found out by officers, in a meeting.
    decode_padded(padded)
    return padded
