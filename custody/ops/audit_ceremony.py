"""Judging a ceremony's folder again, offline: nothing but its files is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from custody.crypto.certificates import read_csr
from custody.crypto.signature import verify
from custody.encoding import Digest
from custody.errors import Refused
from custody.formats.admission import Admission
from custody.formats.ceremony import Admit, MakePolicy, Script
from custody.formats.envelope import decode_statement
from custody.formats.policy import Policy
from custody.formats.transcript import Line
from custody.ops.ceremony_place import POLICY, check_of_table
from custody.ops.folders import read_file
from custody.ops.transcript import (
    MAX_FILE_BYTES,
    SCRIPT,
    HeldScript,
    digests_of,
    read_script_file,
    read_transcript,
)
from custody.rules.ceremony import Progress, progress_of
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
    """Judge a ceremony's folder; ``pin`` is its policy's or its last record's digest."""
    held = read_script_file(folder / SCRIPT)
    lines = read_transcript(folder)
    progress = progress_of(lines)
    verdicts = judge_transcript(
        held.script,
        held.digest,
        lines,
        held.tokens,
        files=digests_of(folder, tuple(progress.files)),
        pin=pin,
    )
    ledger = Ledger(subject=f"ceremony of {held.script.environment}")
    ledger.extend(verdicts)
    check_admissions(folder, progress, ledger)
    if progress.policy is not None:
        with ledger.failing("ceremony.policy"):
            check_policy_made(folder, held.script, progress, ledger)
    return JudgedCeremony(held=held, lines=lines, progress=progress, verdicts=ledger.done())


def check_admissions(folder: Path, progress: Progress, ledger: Ledger) -> None:
    """Check that everybody's admission offers the very keys that the transcript says he made."""
    for name in progress.signers:
        with ledger.failing("ceremony.admission"):
            path = folder / f"{name}.admission.dsse"
            if not path.is_file():
                raise Refused(f"the admission of {name} is not here", check="ceremony.admission")
            statement = decode_statement(Admission, read_file(path, max_bytes=MAX_FILE_BYTES))
            said, signature = statement.predicate, statement.envelope.signatures[0]
            spki = read_csr(said.csr).spki
            verify(spki, statement.envelope.signed_bytes(), signature.sig)
            made = {key.spki for key in progress.keys if key.person == name}
            offered = {spki, *(share.spki for share in said.shares)}
            ledger.add(
                "ceremony.admission",
                said.principal == name and offered <= made,
                f"{name} offered the keys that were made here",
                otherwise=f"the admission of {name} offers other keys than were made here",
            )


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
