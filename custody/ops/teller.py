"""Statements of an environment told one by one, each judged under a chain of policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from custody.crypto.certificates import certificate_signed_by, read_certificate, spki_of
from custody.encoding import Digest, format_time, key_id
from custody.errors import CustodyError
from custody.formats.case import Documents
from custody.formats.envelope import Predicate, Statement
from custody.formats.policy import Policy, Role
from custody.formats.policy_text import format_quorum
from custody.ops.account import first_fault
from custody.ops.deeds import SHORT, Deed, DeedId, deeds_of_policies, key_words
from custody.rules.certificates import RevocationList, read_revocation_lists
from custody.rules.disposal import check_disposal
from custody.rules.trust import check_author, count_signers
from custody.rules.verdicts import Verdict, passed

P = TypeVar("P", bound=Predicate)


class Teller:
    """Tells what documents show, under one chain of policies, the oldest first."""

    def __init__(self, documents: Documents, chain: Sequence[Statement[Policy]]) -> None:
        self._documents = documents
        self._chain = chain
        self._policies = [statement.predicate for statement in chain]
        self._ended: dict[str, datetime] = {}
        self._genesis = self._policies[0].genesis or chain[0].digest

    def deeds(self) -> Iterator[Deed]:
        """Give every deed, in no order; of copies of a statement each."""
        yield from deeds_of_policies(self._chain)
        yield from self._strays()
        # First, because nobody is believed by a key after it was revoked.
        yield from self._revoked()
        yield from self._hosts()
        yield from self._bundles()
        yield from self._recovery()
        yield from self._backups()

    # ── people ────────────────────────────────────────────────────────────────────────

    def _strays(self) -> Iterator[Deed]:
        """Tell of versions of this environment that nobody goes on to from the pinned one."""
        known = {statement.digest for statement in self._chain}
        for stray in self._documents.policies:
            policy = stray.predicate
            later = policy.version > self._policies[0].version
            if policy.genesis == self._genesis and later and stray.digest not in known:
                yield Deed(
                    done="policy.stray",
                    at=policy.issued_at,
                    who=(),
                    words=f"policy version {policy.version}, of no chain from the pinned one",
                    shown=stray,
                    fault="it does not follow from the version before it, or another does too",
                )

    def _revoked(self) -> Iterator[Deed]:
        """Tell of certificates by the first list that names them, all of one moment together."""
        listed = dict.fromkeys(a for policy in self._policies for a in policy.authorities)
        holders = dict(self._keys())
        told: set[tuple[str, int]] = set()
        for known in read_revocation_lists(self._documents.crls, authorities=list(listed)):
            fresh: dict[tuple[datetime, str, str], list[str]] = {}
            for serial, entry in known.entries.items():
                if (known.issuer, serial) in told:
                    continue
                told.add((known.issuer, serial))
                key = self._key_of(serial, [a for a in listed if _issues(a, known)])
                ended = min(entry.revoked_at, self._ended.get(key, entry.revoked_at))
                self._ended[key] = ended
                name, what = holders.get(key, ("somebody", f"certificate {serial:x}"))
                fresh.setdefault((entry.revoked_at, entry.reason, name), []).append(what)
            for (at, reason, name), keys in fresh.items():
                yield Deed(
                    done="token.revoked",
                    at=at,
                    who=("the certificate authority",),
                    words=f"{name}: {_several(len(keys), 'certificate')} revoked, "
                    f"{_REASONS.get(reason, reason)}",
                    details=(
                        *sorted(keys),
                        f"so says revocation list {known.number} of {known.this_update:%Y-%m-%d}",
                        "what was sealed to these keys before still opens with them",
                    ),
                )

    def _keys(self) -> Iterator[tuple[str, tuple[str, str]]]:
        for policy in self._policies:
            for person in policy.principals:
                for key in person.keys:
                    yield key.key_id, (person.id, key_words(key))
                    yield key_id(key.spki), (person.id, key_words(key))

    def _key_of(self, serial: int, authorities: Sequence[bytes]) -> str:
        """Return whose key the certificate is of that one of the authorities gave this number."""
        for der in self._documents.certificates:
            try:
                found = read_certificate(der)
                if found.serial_number == serial and any(
                    certificate_signed_by(found, authority) for authority in authorities
                ):
                    return key_id(spki_of(der))
            except CustodyError:
                continue
        return ""

    # ── hosts, bundles ──────────────────────────────────────────────────────────────────────────

    def _hosts(self) -> Iterator[Deed]:
        for record in self._documents.enrolments:
            said = record.predicate
            yield self._vouched(
                record,
                "host.enrolled",
                said.enrolled_at,
                f"{said.host} enrolled, record {said.epoch} of its TPM",
                f"a {said.trust_class} TPM, its EK {said.ek_spki[:SHORT]}…",
            )
        for ended in self._documents.retirements:
            end = ended.predicate
            yield self._vouched(
                ended, "host.retired", end.retired_at, f"{end.host} retired", f"“{end.reason}”"
            )
        for golden in self._documents.golden_sets:
            state = golden.predicate
            yield self._vouched(
                golden,
                "state.approved",
                state.issued_at,
                f"boot state {state.name}, epoch {state.epoch}, approved",
                f"{len(state.pcrs)} registers; the oldest epoch still taken is {state.oldest}",
            )

    def _vouched(
        self, statement: Statement[P], done: DeedId, at: datetime, words: str, detail: str
    ) -> Deed:
        policy = self._at(at)
        needs = policy.thresholds
        needed = needs.golden if done == "state.approved" else needs.enrolment
        signers = self._count(statement, policy, "enroller")
        lack = needed - len(signers)
        return Deed(
            done=done,
            at=at,
            who=signers,
            words=words,
            details=(detail,),
            shown=statement,
            fault=f"{_several(lack, 'more enroller')} had to sign" if lack > 0 else "",
        )

    def _bundles(self) -> Iterator[Deed]:
        manifests = {m.digest: m for m in self._documents.manifests}
        for manifest in self._documents.manifests:
            core = manifest.predicate.core
            yield self._by(
                manifest,
                "publisher",
                "bundle.sealed",
                core.sealed_at,
                f"bundle {manifest.digest[:SHORT]}… sealed",
                f"for policy version {core.policy_version}",
                f"to be released until {core.not_after:%Y-%m-%d}",
                *([f"replaces {core.replaces[:SHORT]}…"] if core.replaces else []),
            )
        yield from self._withdrawn()
        for disposal in self._documents.disposals:
            gone = disposal.predicate
            told = self._by(
                disposal,
                "publisher",
                "bundle.destroyed",
                gone.disposed_at,
                f"bundle {gone.manifest[:SHORT]}… destroyed by its publisher, he says",
                "copies elsewhere are not his to destroy",
            )
            target = manifests.get(gone.manifest)
            if target is not None and not told.fault:
                tried = [check_disposal(disposal, target, p) for p in reversed(self._policies)]
                if not any(map(passed, tried)):
                    told = replace(told, fault=first_fault(tried[0], ""))
            yield told

    def _withdrawn(self) -> Iterator[Deed]:
        for before, statement in zip((None, *self._policies), self._chain, strict=False):
            policy = statement.predicate
            for digest in policy.withdrawn:
                if before is None or digest not in before.withdrawn:
                    yield Deed(
                        done="bundle.withdrawn",
                        at=policy.issued_at,
                        who=self._count(statement, policy, "custodian"),
                        words=f"bundle {digest[:SHORT]}… withdrawn by version {policy.version}",
                        details=(
                            "no officer's tool approves it any more",
                            "enough old shares together still open it outside these tools",
                        ),
                        shown=statement,
                    )

    # ── recovery ────────────────────────────────────────────────────────────────────────────────

    def _recovery(self) -> Iterator[Deed]:
        named = {p.recovery.record: p.version for p in reversed(self._policies) if p.recovery}
        for record in self._documents.recovery_records:
            made = record.predicate
            version = named.get(record.digest)
            yield self._by(
                record,
                "custodian",
                "recovery.made",
                made.made_at,
                f"recovery key {made.epoch} made and split",
                f"it takes {format_quorum(made.among)}",
                f"shares handed to {', '.join(share.holder for share in made.shares)}",
                f"in force from policy version {version}" if version else "no policy here names it",
            )
        for glass in self._documents.broken:
            done = glass.predicate
            yield self._by(
                glass,
                "custodian",
                "recovery.used",
                done.opened_at,
                f"the glass was broken: bundle {done.manifest[:SHORT]}… sealed anew",
                f"“{done.reason}”",
                f"by the shares of {', '.join(share.holder for share in done.shares)}",
            )

    def _backups(self) -> Iterator[Deed]:
        for wrapping in self._documents.wrapping_keys:
            key = wrapping.predicate
            yield self._by(
                wrapping,
                "custodian",
                "backup.key-made",
                key.made_at,
                "a key made that others leave tokens under",
                f"wrapping key {key.key.key_id[:SHORT]}…",
                "it opens by shares of the recovery key only",
            )
        last: dict[Digest, tuple[str, str]] = {}
        for backup in sorted(self._documents.backups, key=lambda s: s.predicate.made_at):
            said = backup.predicate
            where = (said.held_in.label, said.held_in.serial)
            kind = "key-encryption key" if said.role == "kek" else "authority's key"
            told = self._by(
                backup,
                "custodian",
                "backup.made",
                said.made_at,
                f"{kind} “{said.label}” backed up",
                f"out of token {where[0]}, serial {where[1]}",
                f"check value {said.check[:SHORT]}…",
            )
            if not told.fault:
                label, serial = before = last.get(said.check, where)
                last[said.check] = where
                if before != where:
                    came = f"it was in token {label}, serial {serial}, before: it came back"
                    told = replace(
                        told,
                        words=f"{told.words}, out of another token",
                        details=(f"{came} from a backup", *told.details),
                    )
            yield told

    def _by(
        self,
        statement: Statement[P],
        role: Role,
        done: DeedId,
        at: datetime,
        words: str,
        *details: str,
    ) -> Deed:
        """Tell of a statement by one author, in the role that he must have."""
        who, fault = self._author(statement, role, at)
        return Deed(
            done=done,
            at=at,
            who=who,
            words=words,
            details=details,
            shown=statement,
            fault=fault,
        )

    # ── judging ─────────────────────────────────────────────────────────────────────────────────

    def _at(self, moment: datetime) -> Policy:
        """Return the policy that was newest at a moment."""
        issued = [policy for policy in self._policies if policy.issued_at <= moment]
        return issued[-1] if issued else self._policies[0]

    def _count(self, statement: Statement[P], policy: Policy, role: Role) -> tuple[str, ...]:
        return count_signers(statement.envelope, policy, role=role, needed=1).signers

    def _author(
        self, statement: Statement[P], role: Role, at: datetime
    ) -> tuple[tuple[str, ...], str]:
        """Return who signed, by the newest policy that knows him, or why nobody is believed."""
        ended = self._ended.get(statement.envelope.signatures[0].keyid)
        if ended is not None and ended <= at:
            return (), f"signed by a key that was revoked at {format_time(ended)}"
        verdicts: tuple[Verdict, ...] = ()
        for policy in reversed(self._policies):
            _, name, verdicts = check_author(statement, policy, role=role, check=role, subject=role)
            if passed(verdicts):
                return (name,), ""
            if name:
                # What his key did not sign by one version, it did not sign by another.
                break
        return (), first_fault(verdicts, "not signed by anybody whom the policies know")


def _several(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _issues(authority: bytes, known: RevocationList) -> bool:
    return key_id(spki_of(authority)) == known.issuer


_REASONS = {
    "keyCompromise": "as their keys may be in other hands",
    "superseded": "as others take their place",
    "cessationOfOperation": "as he left",
    "affiliationChanged": "as he left",
    "unspecified": "no reason given",
}
