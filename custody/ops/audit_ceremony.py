"""Judging a ceremony's folder again, offline: nothing but its files is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from custody.crypto.signature import verify
from custody.encoding import Digest, sha256
from custody.errors import Refused, Unavailable
from custody.formats.ceremony import (
    PAGE,
    POLICY,
    SCRIPT,
    TRANSCRIPT,
    Admit,
    MakePolicy,
    Script,
)
from custody.formats.envelope import decode_statement
from custody.formats.policy import Policy
from custody.formats.transcript import Line
from custody.ops.ceremony_place import check_of_table
from custody.ops.folders import read_file
from custody.ops.transcript import (
    MAX_FILE_BYTES,
    HeldScript,
    contents_of,
    read_script_file,
    read_transcript,
)
from custody.rules.ceremony import Progress, progress_of
from custody.rules.ceremony_script import written_by
from custody.rules.ceremony_statements import judge_statements
from custody.rules.transcript import judge_transcript
from custody.rules.verdicts import Ledger, Verdict, passed


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCeremony:
    """A ceremony, and every check of it."""

    held: HeldScript
    lines: tuple[Line, ...]
    progress: Progress
    verdicts: tuple[Verdict, ...]

    @property
    def script(self) -> Script:
        """Its script."""
        return self.held.script

    @property
    def sound(self) -> bool:
        """Whether every check holds."""
        return passed(self.verdicts)


def judge_ceremony(folder: Path, *, pin: Digest | None) -> JudgedCeremony:
    """Judge a ceremony's folder; ``pin`` is its policy's or its last record's digest.

    A folder that is no ceremony's is `Unavailable`, and what one holds is said.
    """
    _check_folder(folder)
    held = read_script_file(folder / SCRIPT)
    lines = read_transcript(folder)
    progress = progress_of(lines)
    # Read once: what is judged are the bytes whose digests were compared.
    contents = contents_of(folder, tuple(progress.files))
    verdicts = judge_transcript(
        held.script,
        held.digest,
        lines,
        held.tokens,
        files={name: sha256(data).hex() for name, data in contents.items()},
        pin=pin,
    )
    ledger = Ledger(subject=f"ceremony of {held.script.environment}")
    ledger.extend(verdicts)
    _check_unrecorded(folder, held.script, progress, ledger)
    ledger.extend(judge_statements(held.script, lines, contents))
    if progress.policy is not None:
        with ledger.failing("ceremony.policy"):
            check_policy_made(folder, held.script, progress, ledger)
    return JudgedCeremony(held=held, lines=lines, progress=progress, verdicts=ledger.done())


def _check_folder(folder: Path) -> None:
    missing = [name for name in (SCRIPT, TRANSCRIPT) if not (folder / name).is_file()]
    if missing:
        raise Unavailable(
            f"is no ceremony's folder: {' and '.join(missing)} not here",
            where=str(folder),
            hint=f"it holds {SCRIPT}, the script; {TRANSCRIPT}, what was done; {PAGE}, and what the"
            " steps wrote: the folder that custodian init --out or ceremony --out made, whole",
        )


def _check_unrecorded(folder: Path, script: Script, progress: Progress, ledger: Ledger) -> None:
    """Say what lies here of steps that are not on record: a transcript that was cut, or a kill."""
    coming = (name for step in script.steps[progress.done :] for name in written_by(step))
    here = sorted({name for name in coming if name not in progress.files} & _listed(folder))
    if here:
        ledger.add(
            "ceremony.files",
            False,
            f"here, but the steps that write them are not on record: {', '.join(here[:5])}",
        )


def _listed(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def check_policy_made(folder: Path, script: Script, progress: Progress, ledger: Ledger) -> None:
    """Check that a policy is theirs who were at the table: signed by keys that sign here as well.

    Anybody can lay a policy that others made into a folder of his own, whose transcript is signed
    by strangers under the same names; so what is asked is that these keys signed the policy, and
    that it lists those of everybody who was admitted.
    """
    if not (folder / POLICY).is_file():
        raise Refused("the policy is not here", check="ceremony.policy")
    statement = decode_statement(Policy, read_file(folder / POLICY, max_bytes=MAX_FILE_BYTES))
    policy, envelope = statement.predicate, statement.envelope
    if statement.digest != progress.policy or policy.environment != script.environment:
        raise Refused("the policy is another one", check="ceremony.policy")
    check_of_table(policy, script, progress, folder)
    signed = {signature.keyid: signature.sig for signature in envelope.signatures}
    for name in progress.signers:
        key = progress.signing_key(name)
        if key is None or key.spki is None:
            raise AssertionError("internal: who signs has a key")
        holder = policy.holder(key.key_id)
        admitted = any(isinstance(step, Admit) and name in step.who for step in script.steps)
        if (holder is not None or admitted) and (holder is None or holder.id != name):
            raise Refused(
                f"the policy does not say that the key of {name} is his", check="ceremony.policy"
            )
        if any(isinstance(step, MakePolicy) and name in step.signers for step in script.steps):
            if key.key_id not in signed:
                raise Refused(f"the policy is not signed by {name}", check="ceremony.policy")
            verify(key.spki, envelope.signed_bytes(), signed[key.key_id])
    ledger.add(
        "ceremony.policy", True, "the policy is signed by keys that were made here, and lists them"
    )
