"""Ceremony scripts: what is done at a table, step by step (TOML).  Format: ceremony.md, version 1.

A script is data: it names people, their tokens and steps of a few known kinds, and can be read by
everybody before anybody meets.  It is not signed; the transcript names its digest.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import msgspec

from custody.crypto.quorum import Node, leaves
from custody.encoding import Digest, Name, Text, check_nesting
from custody.errors import Malformed
from custody.formats.handwritten import decode_toml
from custody.formats.policy import HpkeSuite, Role, SuiteName
from custody.formats.policy_text import parse_quorum

#: A script is read aloud; one that is longer is not.
MAX_SCRIPT_BYTES = 256 << 10
MAX_PEOPLE = 32
MAX_STEPS = 64
MAX_LISTED = 64

Words = Annotated[Text, msgspec.Meta(min_length=1)]
#: A file beside the script, or in the ceremony's folder: no path, nothing hidden.
FileName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")]
#: A key URI as it may be published: who types the PIN is there.
TokenUri = Annotated[
    str, msgspec.Meta(max_length=4096, pattern=r"\A(?:pkcs11|tpm):(?:(?!pin-)[\x21-\x7e])*\Z")
]
#: Which recovery key: 1, then one more each time.
Epoch = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
_Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_PEOPLE)]
#: Whether a vendor has to attest every key that is offered, or may.
Vouching = Literal["required", "accepted"]
#: SHA-256 of vendors' root certificates (DER).
_Roots = Annotated[tuple[Digest, ...], msgspec.Meta(max_length=16)]

#: What the steps of a ceremony call the files that they write into its folder (ceremony.md).
INVITATION = "invitation.json"
AUTHORITY = "authority.cer"
CRL = "authority.crl"
POLICY = "policy-1.dsse"
#: What is in the folder besides: the script, the transcript, the page.
SCRIPT = "ceremony.toml"
TRANSCRIPT = "transcript.jsonl"
PAGE = "ceremony.html"

_ALIKE = str.maketrans({"0": "o", "1": "l", "_": "-", ".": "-"})


def admission_name(person: str) -> str:
    """Name the file of somebody's admission."""
    return f"{person}.admission.dsse"


def attestation_name(person: str) -> str:
    """Name the file of a vendor's certificates that somebody brings for his keys."""
    return f"{person}.attestation.pem"


def challenge_names(person: str) -> tuple[str, str]:
    """Name the files of the challenge to somebody's share key, and of its answer."""
    return f"{person}.challenge.json", f"{person}.answer.json"


def recovery_name(epoch: int) -> str:
    """Name the file of a recovery record."""
    return f"recovery-{epoch}.dsse"


def share_name(epoch: int, holder: str) -> str:
    """Name the file of a share that is sealed to its holder's token."""
    return f"recovery-{epoch}.{holder}.share.json"


def wrapping_name(epoch: int) -> str:
    """Name the file of the key that others leave tokens under."""
    return f"wrapping-{epoch}.dsse"


def folded(text: str) -> str:
    """Return what two labels or file names have in common that people, or disks, take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def looks_like(name: str) -> str:
    """Return what two names have in common that are mistaken for each other on paper."""
    return folded(name).translate(_ALIKE).replace("rn", "m").replace("vv", "w")


def doubled(names: Iterable[str], *, by: Callable[[str], str]) -> tuple[str, str] | None:
    """Return the first two of a list that are one ``by`` that measure; None if all differ."""
    seen: dict[str, str] = {}
    for name in names:
        if by(name) in seen:
            return seen[by(name)], name
        seen[by(name)] = name
    return None


def _distinct(field: str, names: Iterable[str], *, by: Callable[[str], str]) -> None:
    two = doubled(names, by=by)
    if two is None:
        return
    first, second = two
    like = "is there twice" if first == second else f"and {second!r} look the same"
    raise ValueError(f"{field}: {first!r} {like}")


def _pinned(attestation: Vouching | None, roots: tuple[str, ...]) -> None:
    if (attestation is None) != (not roots):
        raise ValueError("attestation, roots: one without the other")
    _distinct("roots", roots, by=str)


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of a script."""


class Seat(_Table, frozen=True, kw_only=True):
    """``[[people]]``: somebody at the table, and the token he brings.

    ``holds`` are labels of objects that may lie in the token when he comes.
    """

    name: Name
    role: Role
    token: TokenUri
    display: Text = ""
    holds: Annotated[tuple[Words, ...], msgspec.Meta(max_length=MAX_LISTED)] = ()

    def __post_init__(self) -> None:
        _distinct("holds", self.holds, by=folded)


class _Step(_Table, frozen=True, kw_only=True, tag_field="do"):
    """One of ``[[steps]]``; ``do`` says of which kind."""


class Invite(_Step, frozen=True, kw_only=True, tag="invite"):
    """A custodian makes the invitation that all admissions of the ceremony answer."""

    by: Name

    @property
    def hands(self) -> tuple[str, ...]:
        """Whose token works in this step."""
        return ()


class Enrol(_Step, frozen=True, kw_only=True, tag="enrol"):
    """Somebody makes his keys in his token and offers them.

    ``suite`` is of his share key: None is the strongest for roles that shares are sealed to, and
    no such key for others.  ``attestation``: his token's vendor attests the keys, by a path to one
    of ``roots``.
    """

    who: Name
    suite: SuiteName | Literal["strongest"] | None = None
    attestation: Vouching | None = None
    roots: _Roots = ()

    def __post_init__(self) -> None:
        _pinned(self.attestation, self.roots)

    @property
    def hands(self) -> tuple[str, ...]:
        """Whose token works in this step."""
        return (self.who,)


class MakeAuthority(_Step, frozen=True, kw_only=True, tag="authority"):
    """The certificate authority's key, certificate and first revocation list are made.

    ``recoverable``: a backup of the key can be made.
    """

    by: Name
    name: Words
    recoverable: bool = False

    @property
    def hands(self) -> tuple[str, ...]:
        """Whose token works in this step."""
        return (self.by,)


class MakeLogKey(_Step, frozen=True, kw_only=True, tag="log-key"):
    """A log's key is made, and the empty log signed by it; ``folder`` is where it lies."""

    by: Name
    origin: Words
    folder: FileName = "log"
    label: Words = "log"

    @property
    def hands(self) -> tuple[str, ...]:
        """Whose token works in this step."""
        return (self.by,)


class MakeKek(_Step, frozen=True, kw_only=True, tag="kek"):
    """A key-encryption key is made; ``recoverable``: a backup of it can be made."""

    by: Name
    label: Words
    recoverable: bool = True

    @property
    def hands(self) -> tuple[str, ...]:
        """Whose token works in this step."""
        return (self.by,)


class Admit(_Step, frozen=True, kw_only=True, tag="admit"):
    """Admissions are checked and certificates issued.

    ``who`` enrolled at this table; ``files`` are admissions brought to it, in the ceremony's
    folder, which answer its invitation as well.  ``attestation`` and ``roots`` are of these, as
    those of `Enrol` are of who enrols.
    """

    by: Name
    who: _Names = ()
    files: Annotated[tuple[FileName, ...], msgspec.Meta(max_length=MAX_LISTED)] = ()
    days: Annotated[int, msgspec.Meta(ge=1, le=397)] = 397
    attestation: Vouching | None = None
    roots: _Roots = ()

    def __post_init__(self) -> None:
        _pinned(self.attestation, self.roots)
        _distinct("who", self.who, by=looks_like)
        _distinct("files", (*map(admission_name, self.who), *self.files), by=folded)

    @property
    def hands(self) -> tuple[str, ...]:
        """Whose token works in this step."""
        return (self.by,)


class SplitRecovery(_Step, frozen=True, kw_only=True, tag="recovery"):
    """A recovery key is made, split, and stated.

    Shares are handed out on paper, but for those of ``seal_to``: to their holders' tokens.
    """

    by: Name
    among: Words
    epoch: Epoch = 1
    suite: HpkeSuite = "MLKEM1024_P384"
    passphrase: bool = False
    seal_to: _Names = ()

    def __post_init__(self) -> None:
        _distinct("seal_to", self.seal_to, by=looks_like)
        _distinct("among", (leaf.principal for leaf in leaves(self.tree)), by=looks_like)

    @property
    def tree(self) -> Node:
        """Whose shares are enough; what is no tree is a `ValueError`, as any field's fault is."""
        try:
            return parse_quorum(self.among)
        except Malformed as error:
            raise ValueError(f"among: {error.reason}") from error

    @property
    def hands(self) -> tuple[str, ...]:
        """Whose token works in this step."""
        return (self.by,)


class MakePolicy(_Step, frozen=True, kw_only=True, tag="policy"):
    """Policy version 1 is made of a draft and all who were admitted, and signed."""

    draft: FileName
    signers: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=MAX_PEOPLE)]

    def __post_init__(self) -> None:
        _distinct("signers", self.signers, by=looks_like)

    @property
    def hands(self) -> tuple[str, ...]:
        """Whose token works in this step."""
        return self.signers


class MakeWrapping(_Step, frozen=True, kw_only=True, tag="wrapping-key"):
    """The key that others leave tokens under is made, by enough shares of a recovery key.

    ``opened`` are holders whose sealed shares are opened by their tokens; others type their words.
    """

    by: Name
    epoch: Epoch = 1
    opened: _Names = ()

    def __post_init__(self) -> None:
        _distinct("opened", self.opened, by=looks_like)

    @property
    def hands(self) -> tuple[str, ...]:
        """Whose token works in this step; who states it comes last."""
        return _last(self.opened, self.by)


class TrustKey(_Step, frozen=True, kw_only=True, tag="trust-key"):
    """A token's security officer types his PIN: the token trusts the wrapping key from then on."""

    who: Name
    epoch: Epoch = 1

    @property
    def hands(self) -> tuple[str, ...]:
        """Whose token works in this step."""
        return (self.who,)


class BackUp(_Step, frozen=True, kw_only=True, tag="backup"):
    """A key is backed up under the wrapping key: the KEK with this label, else the authority's.

    ``who`` has it in his token, ``by`` signs for it.
    """

    who: Name
    by: Name
    file: FileName
    kek: Words | None = None
    epoch: Epoch = 1

    @property
    def hands(self) -> tuple[str, ...]:
        """Whose token works in this step; who signs comes last."""
        return _last((self.who,), self.by)


def _last(names: tuple[str, ...], last: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*(name for name in names if name != last), last)))


Step = (
    Invite
    | Enrol
    | MakeAuthority
    | MakeLogKey
    | MakeKek
    | Admit
    | SplitRecovery
    | MakePolicy
    | MakeWrapping
    | TrustKey
    | BackUp
)


class Script(_Table, frozen=True, kw_only=True):
    """A whole script.  ``others`` says what of objects in a token that nobody expects here.

    "refused": the step is not done.  "named": the transcript lists them, and it is.
    """

    kind: Literal["custody/ceremony/v1"]
    environment: Name
    title: Words
    people: Annotated[tuple[Seat, ...], msgspec.Meta(min_length=1, max_length=MAX_PEOPLE)]
    steps: Annotated[tuple[Step, ...], msgspec.Meta(min_length=1, max_length=MAX_STEPS)]
    others: Literal["refused", "named"] = "refused"

    def seat(self, name: str) -> Seat:
        """Return who is called ``name``; the script's checks have seen that somebody is."""
        return next(seat for seat in self.people if seat.name == name)


def decode_script(data: bytes) -> Script:
    """Read a script; an unknown word in it is `Malformed`, so that no typing error is a default."""
    if len(data) > MAX_SCRIPT_BYTES:
        raise Malformed(f"larger than the {MAX_SCRIPT_BYTES} bytes allowed")
    check_nesting(data)
    return decode_toml(Script, data, what="script")


def encode_script(script: Script) -> bytes:
    """Write a script as people would (TOML), defaults left out."""
    lines = [
        f"kind = {_quoted(script.kind)}",
        f"environment = {_quoted(script.environment)}",
        f"title = {_quoted(script.title)}",
        f"others = {_quoted(script.others)}",
    ]
    for table, rows in (("people", script.people), ("steps", script.steps)):
        for row in rows:
            lines += ["", f"[[{table}]]"]
            for name, value in msgspec.to_builtins(row).items():
                if value != _default(row, name):
                    lines.append(f"{name} = {_written(value)}")
    return "".join(f"{line}\n" for line in lines).encode()


def _default(row: Seat | Step, name: str) -> object:
    field = next((f for f in msgspec.structs.fields(type(row)) if f.name == name), None)
    return None if field is None or field.required else field.default


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    return str(value) if isinstance(value, int) else _quoted(str(value))


def _quoted(text: str) -> str:
    # Nothing in a script holds control characters, which TOML would want escaped too.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
