"""Which logs and witnesses count.  Format: C2SP tlog-policy; checkpoint.md, "Who counts"."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from custody.crypto.notekeys import KeyKind, NoteKey, parse_vkey
from custody.errors import Incomplete, Malformed, Refused
from custody.formats.checkpoint import SignedCheckpoint, check_signed_by

MAX_POLICY_BYTES = 256 << 10
#: Of logs, of witnesses and of groups, each (tlog-policy asks for 32).
MAX_EACH = 64
NONE = "none"
_FORBIDDEN = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")
_NUMBER = re.compile(r"[1-9][0-9]*", re.ASCII)


class KnownKey(msgspec.Struct, frozen=True):
    """A log or witness: its key, and where it is asked, if it is."""

    key: NoteKey
    url: str | None = None


class Group(msgspec.Struct, frozen=True):
    """So many of these, which are names of witnesses or of groups further up."""

    k: int
    members: tuple[str, ...]


class Vouched(msgspec.Struct, frozen=True):
    """Who stands behind a checkpoint: the log by its key, and witnesses with the times they state.

    ``seconds`` is the POSIX time at which the quorum was full; None where none is demanded.
    """

    log: NoteKey
    witnesses: tuple[tuple[str, int], ...]
    seconds: int | None


class LogPolicy(msgspec.Struct, frozen=True):
    """Whose checkpoints are believed."""

    logs: tuple[KnownKey, ...]
    witnesses: Mapping[str, KnownKey]
    groups: Mapping[str, Group]
    quorum: str

    def satisfied_by(self, cosigned: Collection[str]) -> bool:
        """Whether these witnesses are a quorum."""
        return self.quorum == NONE or self._holds(self.quorum, cosigned)

    def judge(self, signed: SignedCheckpoint) -> Vouched:
        """Say who stands behind a checkpoint; refuse one that this policy does not believe.

        Raises `Refused` (``log.origin``, ``log.signature``, ``note.signature``), and `Incomplete`
        naming the witnesses that have not cosigned where the quorum is not full.
        """
        log = self.log_of(signed)
        # A witness that cosigned twice has seen this tree by the earlier time.
        cosigned = {
            name: min(seconds)
            for name, witness in self.witnesses.items()
            if (seconds := [s for s in signed.note.by(witness.key) if s is not None])
        }
        if not self.satisfied_by(cosigned):
            missing = tuple(name for name in self.witnesses if name not in cosigned)
            raise Incomplete("too few witnesses have cosigned the checkpoint", missing=missing)
        in_order = tuple(sorted(cosigned.items(), key=lambda pair: (pair[1], pair[0])))
        return Vouched(log, in_order, self._full_at(in_order))

    def log_of(self, signed: SignedCheckpoint) -> NoteKey:
        """Return the key by which a log of this policy has signed; raises `Refused` as `judge`."""
        of_origin = [log.key for log in self.logs if log.key.name == signed.checkpoint.origin]
        if not of_origin:
            raise Refused("the checkpoint is of no log that is trusted", check="log.origin")
        # Two keys of one log, while it changes from one to the other: either will do.
        for key in of_origin:
            if signed.note.by(key):
                return key
        check_signed_by(signed, of_origin[0])
        return of_origin[0]

    def _full_at(self, cosigned: tuple[tuple[str, int], ...]) -> int | None:
        if self.quorum == NONE:
            return None
        for count, (_, seconds) in enumerate(cosigned, 1):
            if self.satisfied_by([name for name, _ in cosigned[:count]]):
                return seconds
        return None

    def _holds(self, name: str, cosigned: Collection[str]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in cosigned
        return sum(self._holds(member, cosigned) for member in group.members) >= group.k


def trust_key(key: NoteKey) -> LogPolicy:
    """Trust one log by its key alone, with no witnesses."""
    if key.kind is KeyKind.COSIGNATURE:
        raise Malformed("a witness's key, not a log's")
    return LogPolicy((KnownKey(key),), {}, {}, NONE)


def decode_log_policy(data: bytes) -> LogPolicy:
    """Read a policy file."""
    if len(data) > MAX_POLICY_BYTES:
        raise Malformed(f"larger than the {MAX_POLICY_BYTES} bytes allowed")
    if _FORBIDDEN.search(data) or (data and not data.endswith(b"\n")):
        raise Malformed("has a control character, or a last line without its newline")
    reading = _Reading()
    for number, words in _lines(data):
        try:
            reading.take(words)
        except Malformed as error:
            raise Malformed(f"line {number}: {error.reason}") from error
    return reading.policy()


def canonical_lines(data: bytes) -> tuple[str, ...]:
    """Return what a policy file says line by line: no comments, one space between words."""
    return tuple(" ".join(words) for _, words in _lines(data))


def _lines(data: bytes) -> Iterator[tuple[int, list[str]]]:
    # Bytes above ASCII mean nothing here; only equal ones are equal, which this keeps.
    text = data.decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(" \t")
        if stripped and not stripped.startswith("#"):
            yield number, re.split(r"[ \t]+", stripped)


@dataclass(slots=True)
class _Reading:
    """A policy half read."""

    logs: list[KnownKey] = field(default_factory=list)
    witnesses: dict[str, KnownKey] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    quorum: str | None = None

    def take(self, words: list[str]) -> None:
        match words:
            case ["log", vkey, *url] if len(url) <= 1:
                self._add_log(vkey, url)
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._add_witness(name, vkey, url)
            case ["group", name, k, *members] if members:
                self._add_group(name, k, members)
            case ["quorum", name]:
                self._set_quorum(name)
            case _:
                raise Malformed("not a line of a log policy")

    def policy(self) -> LogPolicy:
        if self.quorum is None:
            raise Malformed("names no quorum")
        if max(len(self.logs), len(self.witnesses), len(self.groups)) > MAX_EACH:
            raise Malformed(f"more than {MAX_EACH} logs, witnesses or groups")
        return LogPolicy(tuple(self.logs), self.witnesses, self.groups, self.quorum)

    def _add_log(self, vkey: str, url: list[str]) -> None:
        key = parse_vkey(vkey)
        if key.kind is KeyKind.COSIGNATURE:
            raise Malformed("a witness's key where a log's is wanted")
        if any(log.key.public == key.public for log in self.logs):
            raise Malformed("the key of a log further up")
        self.logs.append(KnownKey(key, *url))

    def _add_witness(self, name: str, vkey: str, url: list[str]) -> None:
        self._check_new(name)
        key = parse_vkey(vkey)
        if key.kind is not KeyKind.COSIGNATURE:
            raise Malformed("not the key of a witness")
        # One key under two names would fill two places of a quorum.
        if any(witness.key.public == key.public for witness in self.witnesses.values()):
            raise Malformed("the key of a witness further up")
        self.witnesses[name] = KnownKey(key, *url)

    def _add_group(self, name: str, k: str, members: list[str]) -> None:
        self._check_new(name)
        for member in members:
            self._check_known(member)
            if member in self.used:
                raise Malformed("a member of two groups, or twice of one")
            self.used.add(member)
        self.groups[name] = Group(_threshold(k, len(members)), tuple(members))

    def _set_quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise Malformed("a second quorum")
        if name != NONE:
            self._check_known(name)
        self.quorum = name

    def _check_new(self, name: str) -> None:
        if name == NONE or name in self.witnesses or name in self.groups:
            raise Malformed("a name that is taken")

    def _check_known(self, name: str) -> None:
        if name not in self.witnesses and name not in self.groups:
            raise Malformed("a name that no line further up defines")


def _threshold(word: str, members: int) -> int:
    if word in {"any", "all"}:
        return 1 if word == "any" else members
    if not _NUMBER.fullmatch(word) or len(word) > 3 or not 1 <= int(word) <= members:
        raise Malformed("not all, any or a number from 1 to the number of members")
    return int(word)
