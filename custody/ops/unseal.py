"""Open a bundle again with the key that is kept of it.  Protocol section 6, "Sealed".

The order is that of `ops.open`: every rule first, by the newest policy and revocation lists here,
then the TPM, which by itself refuses another boot state, a retired one and a key that was
forgotten, then the commitment, then every part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from custody.crypto import shamir
from custody.crypto.parts import check_cek
from custody.crypto.secret import wipe
from custody.encoding import sha256
from custody.errors import CustodyError, Refused
from custody.formats.contents import Contents
from custody.formats.envelope import Statement
from custody.formats.goldenset import GoldenSet
from custody.formats.policy import Mode
from custody.formats.receipt import Receipt
from custody.formats.request import Request
from custody.keys.hostapi import AuthorisedState, HostTpm, Life, RetainedUpdates
from custody.ops.bundle import Bundle
from custody.ops.folders import read_statement_file
from custody.ops.kept import Kept, drop_leavers, unsealing_key
from custody.ops.landing import check_absent, resumable_directory
from custody.ops.model_signature import judge_contents
from custody.ops.payload_open import open_into
from custody.ops.progress import Progress, silent
from custody.ops.receipts import HostPlace
from custody.rules.authorisation import JudgedAuthorisation, authorised_by
from custody.rules.eventlog import explain
from custody.rules.request import endorsement_key, enrolment_of, golden_of, oldest_epoch
from custody.rules.retained import (
    LaterState,
    check_kept,
    check_retained,
    followers,
    later_states,
)
from custody.rules.situation import Situation
from custody.rules.verdicts import require

_LIVES: dict[Life, str] = {
    "alive": "",
    "forgotten": "it was forgotten: its counter has moved on",
    "cleared": "it was kept by another TPM, or before this one was cleared",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """The boot state a host is in, by which of the key's two forms is to open.

    ``shown`` is what the TPM must be shown of later states; empty in the state the key was kept in.
    """

    golden: Statement[GoldenSet]
    later: LaterState | None
    shown: tuple[AuthorisedState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStanding:
    """A kept key, and whether it would open now.  ``opens`` None: there is nothing to judge it by.

    ``golden`` and ``epoch`` name the boot state it was kept in, where a file tells; ``oldest`` is
    the oldest epoch that its TPM lets it open in, where it can follow updates.
    """

    kept: Kept
    mode: Mode
    golden: str | None
    epoch: int | None
    oldest: int | None
    life: Life
    opens: bool | None
    reason: str


def unseal_release(
    bundle: Bundle,
    target: Path,
    *,
    situation: Situation,
    tpm: HostTpm,
    place: HostPlace,
    event_log: bytes = b"",
    base: Path | None = None,
    progress: Progress = silent,
    workers: int | None = None,
) -> Contents:
    """Open ``bundle`` into the new directory ``target`` with the key that is kept of it.

    As often as asked, while the policy in force, the manifest's own end, the revocation lists and
    the boot state allow it.  What golden sets here retire is first retired in the TPM too, for
    good.  ``event_log`` only helps to name what changed; ``base`` is the directory of the model
    that a delta is to.  Raises `Incomplete` where nothing is kept, `Refused` with the first check
    that fails.
    """
    check_absent(target)
    kept = place.keys.find(bundle.statement.digest)
    with _unsealed(bundle, kept, situation, tpm, place, event_log) as cek:
        contents = bundle.contents_under(cek)
        publisher = situation.trusted.policy.signing_key(bundle.core.publisher)
        require(judge_contents(contents, publisher.spki if publisher else None))
        place.keys.begin(kept, target)
        with resumable_directory(target, unsealing_key(kept)) as staging:
            open_into(
                bundle.path,
                staging,
                core=bundle.core,
                contents=contents,
                cek=cek,
                base=base,
                progress=progress,
                workers=workers,
            )
        place.keys.landed(kept)
    return contents


def kept_standing(
    kept: Kept, *, tpm: HostTpm, place: HostPlace, situation: Situation | None
) -> KeptStanding:
    """Say whether a kept key would open now, changing nothing: by the TPM, and the rules if known.

    What only the bundle can tell (its own end, its publisher) is judged when it is unsealed.
    """
    request = place.keys.request(kept)
    standing = tpm.retained_standing(kept.key)
    updates = kept.key.updates
    golden = situation and situation.documents.golden(request.predicate.golden)
    opens: bool | None = None
    reason = _LIVES[standing.life]
    if standing.life != "alive":
        opens = False
    elif situation is not None:
        try:
            _check_receipt(kept, place)
            own = tpm.salted_to(kept.endorsement_key)
            state = _state_of(kept, request, situation, own, b"")
            require(
                check_kept(
                    request,
                    enrolment=enrolment_of(request, situation),
                    golden=state.golden,
                    pcr_digest=kept.key.pcr_digest,
                    later=state.later,
                    situation=situation,
                )
            )
            _check_values(state.golden.predicate, tpm, b"")
            opens, reason = True, f"{state.golden.predicate.name}, epoch {_epoch(state)}"
        except CustodyError as error:
            opens, reason = False, error.reason
    return KeptStanding(
        kept=kept,
        mode=request.predicate.terms.mode,
        golden=updates.name if updates else golden.predicate.name if golden else None,
        epoch=updates.epoch if updates else golden.predicate.epoch if golden else None,
        oldest=standing.oldest,
        life=standing.life,
        opens=opens,
        reason=reason,
    )


def _epoch(state: _State) -> int:
    return state.golden.predicate.epoch


@contextmanager
def _unsealed(
    bundle: Bundle,
    kept: Kept,
    situation: Situation,
    tpm: HostTpm,
    place: HostPlace,
    event_log: bytes,
) -> Iterator[bytearray]:
    """Give the content key for the block, after every rule and then the TPM have agreed."""
    # First of all, and whatever is refused next: states that were retired must not open again,
    # for whoever starts one of them later and asks none of these rules.
    _raise_epoch(kept, situation, tpm.salted_to(kept.endorsement_key))
    _check_receipt(kept, place)
    request = place.keys.request(kept)
    enrolment = enrolment_of(request, situation)
    state = _state_of(kept, request, situation, tpm, event_log)
    require(
        check_retained(
            request,
            bundle.statement,
            enrolment=enrolment,
            golden=state.golden,
            pcr_digest=kept.key.pcr_digest,
            later=state.later,
            situation=situation,
        )
    )
    _check_values(state.golden.predicate, tpm, event_log)
    salted = tpm.salted_to(endorsement_key(enrolment.predicate))
    cek = _ask_tpm(kept, state, salted)
    try:
        core = bundle.core
        check_cek(cek, bytes.fromhex(core.payload_id), bytes.fromhex(core.cek_commitment))
        with place.ledger.lock():
            keys = place.keys
            drop_leavers(keys.find(kept.manifest), cek, tpm=salted, keys=keys, situation=situation)
        yield cek
    finally:
        wipe(cek)


def _ask_tpm(kept: Kept, state: _State, tpm: HostTpm) -> bytearray:
    """Unseal the whole key, or the shares that enrollers authorised, and put these together."""
    if state.later is None:
        return tpm.unseal_retained(kept.key)
    shown = state.shown[: state.later.needed]
    shares = tpm.unseal_shares(kept.key, shown)
    try:
        return shamir.combine(
            [(each.share + 1, share) for each, share in zip(shown, shares, strict=True)]
        )
    finally:
        wipe(*shares)


def _check_receipt(kept: Kept, place: HostPlace) -> None:
    """Refuse a key whose opening was never accounted for: it is on no record that it is kept."""
    path = place.receipt_path(kept.request)
    if not path.exists() or read_statement_file(Receipt, path).predicate.outcome != "retained":
        raise Refused(
            "there is no receipt that says it is kept: its opening did not come to an end",
            check="retained.receipt",
            where=f"request {kept.request[:16]}",
            hint="custody host open finishes it, custody host forget destroys the key",
        )


def _raise_epoch(kept: Kept, situation: Situation, tpm: HostTpm) -> None:
    updates = kept.key.updates
    if updates is None:
        return
    oldest = oldest_epoch(updates.name, situation)
    if oldest > updates.epoch and tpm.retained_standing(kept.key).life == "alive":
        tpm.raise_epoch(kept.key, oldest)


def _state_of(
    kept: Kept,
    request: Statement[Request],
    situation: Situation,
    tpm: HostTpm,
    event_log: bytes,
) -> _State:
    """Find the boot state this host is in: the one the key was kept in, or one that follows."""
    updates = kept.key.updates
    if updates is None:
        return _State(golden=golden_of(request, situation), later=None, shown=())
    in_first = sha256(*tpm.pcr_values(kept.key.pcrs)).hex() == kept.key.pcr_digest
    if in_first and updates.epoch >= oldest_epoch(updates.name, situation):
        return _State(golden=golden_of(request, situation), later=None, shown=())
    values = tpm.pcr_values(situation.trusted.policy.host.pcrs)
    states = [
        _later(updates, golden, situation)
        for golden in later_states(updates.line, sha256(*values).hex(), situation)
    ]
    if states:
        # Of several epochs of one state, the newest that is authorised; else the newest.
        return next((state for state in states if _is_authorised(state)), states[0])
    known = sorted(followers(updates.line, situation), key=lambda golden: golden.predicate.epoch)
    if in_first or not known:
        return _State(golden=golden_of(request, situation), later=None, shown=())
    _check_values(known[-1].predicate, tpm, event_log)
    return _later(updates, known[-1], situation)


def _is_authorised(state: _State) -> bool:
    return state.later is not None and len(state.shown) >= state.later.needed


def _later(updates: RetainedUpdates, golden: Statement[GoldenSet], situation: Situation) -> _State:
    """Lay out what the TPM must be shown of a later state: one authorisation for each share."""
    good = authorised_by(golden, situation)
    shown = tuple(
        AuthorisedState(
            share=position,
            spki=found.spki,
            epoch=golden.predicate.epoch,
            pcrs=golden.predicate.selection(),
            pcr_digest=bytes.fromhex(golden.predicate.pcr_digest()),
            signature=found.statement.predicate.state_signature,
        )
        for position, share in enumerate(updates.shares)
        if (found := _of_share(good, share.principal, share.keys)) is not None
    )
    return _State(
        golden=golden,
        later=LaterState(
            line=updates.line,
            needed=updates.needed,
            among=tuple(share.principal for share in updates.shares),
            enrollers=tuple(updates.shares[state.share].principal for state in shown),
        ),
        shown=shown,
    )


def _of_share(
    good: Sequence[JudgedAuthorisation], principal: str, keys: Sequence[bytes]
) -> JudgedAuthorisation | None:
    return next((each for each in good if each.enroller == principal and each.spki in keys), None)


def _check_values(golden: GoldenSet, tpm: HostTpm, event_log: bytes) -> None:
    """Say which register is not as it was; the TPM by itself would only say no."""
    values = tpm.pcr_values(golden.selection())
    changed = differing(golden, values)
    if not changed:
        return
    named = explain(event_log, golden) if event_log else ""
    raise Refused(
        f"the key is kept for {golden.name}, epoch {golden.epoch}: "
        f"pcr {', '.join(map(str, changed))} differ" + (f"; by its log {named}" if named else ""),
        check="tpm.pcr",
        hint="boot that system, or ask anew: custody host request --mode",
    )


def differing(golden: GoldenSet, values: Sequence[bytes]) -> tuple[int, ...]:
    """Return the registers whose values are not a golden set's."""
    return tuple(
        expected.pcr
        for expected, value in zip(golden.pcrs, values, strict=True)
        if expected.value != value.hex()
    )
