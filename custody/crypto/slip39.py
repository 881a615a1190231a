"""Mnemonics for paper: a secret split into words, in groups.  SLIP-0039 (SatoshiLabs).

The library splits and combines; what people need when it fails is here: which word is wrong, which
share is of another set, how many are still missing.  The library is a reference, with look-up
tables that a neighbour on the machine could time: it runs in ceremonies, on a machine that does
nothing else.

A mnemonic of a 32-byte secret is 33 words of 10 bits: 15 bits set id, 1 bit extendable, 4 bits
iteration exponent, 5 × 4 bits places and thresholds, the value, and 3 words of checksum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shamir_mnemonic import combine_mnemonics, generate_mnemonics
from shamir_mnemonic.share import Share
from shamir_mnemonic.utils import MnemonicError
from shamir_mnemonic.wordlist import WORDLIST

from custody.crypto.secret import Octets
from custody.errors import Incomplete, Malformed, Refused

#: Words of a mnemonic of a 32-byte secret.
WORDS = 33
#: 2 to the iteration exponent times 10 000 rounds of PBKDF2 stand between shares and secret.
ITERATION_EXPONENT = 1
MAX_PASSPHRASE_CHARS = 256

_RADIX_BITS = 10
#: The generator of the checksum RS1024, as SLIP-0039 gives it: BCH over GF(1024), distance 4.
_GENERATOR = (
    0x00E0E040,
    0x01C1C080,
    0x03838100,
    0x07070200,
    0x0E0E0009,
    0x1C0C2412,
    0x38086C24,
    0x3090FC48,
    0x21B1F890,
    0x03F3F120,
)
_CUSTOMIZATION = {False: b"shamir", True: b"shamir_extendable"}
#: Where the bit of an extendable set is: the word, from 0, and the bit in it.
_EXTENDABLE = (1, 4)
_INDEX = {word: number for number, word in enumerate(WORDLIST)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mnemonic:
    """One share, with its place in the set; ``group`` and ``member`` count from 0."""

    set_id: int
    extendable: bool
    iteration_exponent: int
    group: int
    group_threshold: int
    group_count: int
    member: int
    member_threshold: int
    words: str = field(repr=False)

    @property
    def of_set(self) -> tuple[int, bool, int, int, int]:
        """What all mnemonics of one set have in common."""
        return (
            self.set_id,
            self.extendable,
            self.iteration_exponent,
            self.group_threshold,
            self.group_count,
        )

    @property
    def place(self) -> str:
        """Its place, as people count."""
        return f"group {self.group + 1}, share {self.member + 1}"


def split_seed(
    seed: Octets,
    *,
    group_threshold: int,
    groups: Sequence[tuple[int, int]],
    passphrase: bytes = b"",
) -> tuple[tuple[str, ...], ...]:
    """Split a secret into mnemonics, group by group; ``groups`` are (threshold, count) pairs.

    A threshold of one among several, which SLIP-0039 cannot say, and a passphrase that is not
    printable ASCII are `Malformed`.
    """
    check_passphrase(passphrase)
    try:
        made = generate_mnemonics(
            group_threshold,
            groups,
            bytes(seed),
            passphrase,
            extendable=True,
            iteration_exponent=ITERATION_EXPONENT,
        )
    except ValueError as error:
        raise Malformed("no shares can be made of these groups and thresholds") from error
    return tuple(tuple(group) for group in made)


def check_passphrase(passphrase: bytes) -> None:
    """Refuse what SLIP-0039 has no passphrase for: printable ASCII only."""
    if len(passphrase) > MAX_PASSPHRASE_CHARS or not all(32 <= char <= 126 for char in passphrase):
        raise Malformed(
            f"a passphrase has at most {MAX_PASSPHRASE_CHARS} printable ASCII characters"
        )


def unknown_word(words: Sequence[str]) -> int | None:
    """Return where, from 0, the first word is that is in no list; None if all are."""
    return next((at for at, word in enumerate(words) if word.lower() not in _INDEX), None)


def read_mnemonic(text: str) -> Mnemonic:
    """Read one share; where a word is wrong its position is named, from 1.

    `Refused`: ``recovery.word`` for a word of no list, ``recovery.length``, ``recovery.checksum``.
    """
    words = text.lower().split()
    unknown = unknown_word(words)
    if unknown is not None:
        raise Refused(
            f"word {unknown + 1} is no word of the list",
            check="recovery.word",
            hint="all words of the list differ in their first four letters",
        )
    try:
        share = Share.from_mnemonic(" ".join(words))
    except MnemonicError as error:
        raise _fault(words) from error
    return Mnemonic(
        set_id=share.identifier,
        extendable=share.extendable,
        iteration_exponent=share.iteration_exponent,
        group=share.group_index,
        group_threshold=share.group_threshold,
        group_count=share.group_count,
        member=share.index,
        member_threshold=share.member_threshold,
        words=" ".join(words),
    )


def combine_seed(mnemonics: Sequence[Mnemonic], passphrase: bytes = b"") -> bytearray:
    """Give the secret back from exactly as many shares as it needs.

    A passphrase that is wrong gives another secret and no error: compare what is made of it.
    `Incomplete` says what is missing; `Refused`: ``recovery.set``, ``recovery.duplicate``,
    ``recovery.too-many``, ``recovery.combine`` (shares that do not fit together).
    """
    check_passphrase(passphrase)
    check_together(mnemonics)
    short = missing_shares(mnemonics)
    if short:
        raise Incomplete("more shares are needed", missing=short)
    try:
        return bytearray(combine_mnemonics([m.words for m in mnemonics], passphrase))
    except MnemonicError as error:
        raise Refused(
            "the shares do not fit together", check="recovery.combine", hint="check each by itself"
        ) from error


def check_together(mnemonics: Sequence[Mnemonic]) -> None:
    """Refuse shares of several sets, a share given twice, and more than are needed."""
    for number, one in enumerate(mnemonics):
        if one.of_set != mnemonics[0].of_set:
            raise Refused(f"{one.place} is of another set", check="recovery.set")
        for other in mnemonics[:number]:
            if (one.group, one.member) == (other.group, other.member):
                raise Refused(f"{one.place} is here twice", check="recovery.duplicate")
            if one.group == other.group and one.member_threshold != other.member_threshold:
                raise Refused(f"{one.place} is of another set", check="recovery.set")
    if not mnemonics:
        return
    have = _counts(mnemonics)
    over = [group + 1 for group, (count, needed) in sorted(have.items()) if count > needed]
    if over:
        raise Refused(
            f"group {over[0]} has more shares than it needs",
            check="recovery.too-many",
            hint="leave one out: with shares to spare nothing shows which one is wrong",
        )
    if len(have) > mnemonics[0].group_threshold:
        raise Refused("there are shares of more groups than needed", check="recovery.too-many")


def missing_shares(mnemonics: Sequence[Mnemonic]) -> tuple[str, ...]:
    """Say what a list of shares of one set still lacks; empty if it is whole."""
    if not mnemonics:
        return ("a first share",)
    have = _counts(mnemonics)
    lacking = [
        f"{needed - count} more of group {group + 1}"
        for group, (count, needed) in sorted(have.items())
        if count < needed
    ]
    groups = mnemonics[0].group_threshold - len(have)
    if groups > 0:
        lacking.append(f"shares of {groups} more group{'s' if groups > 1 else ''}")
    return tuple(lacking)


def _counts(mnemonics: Sequence[Mnemonic]) -> dict[int, tuple[int, int]]:
    """Return how many of a group there are, and how many are needed."""
    found: dict[int, tuple[int, int]] = {}
    for one in mnemonics:
        count, _ = found.get(one.group, (0, 0))
        found[one.group] = count + 1, one.member_threshold
    return found


def _fault(words: Sequence[str]) -> Refused:
    """Say why the library does not take these words of the list."""
    if len(words) != WORDS:
        return Refused(
            f"has {len(words)} words, and a share has {WORDS}",
            check="recovery.length",
            hint="one may be left out, or there twice",
        )
    numbers = [_INDEX[word] for word in words]
    if (_remainder(numbers) ^ 1) == 0:
        return Refused("says something that no share says", check="recovery.checksum")
    position = _wrong_word(numbers)
    if position:
        return Refused(
            f"the checksum fails: read word {position} again",
            check="recovery.checksum",
            hint="if one word alone is wrong, it is that one",
        )
    swapped = _swapped_words(numbers)
    if swapped:
        return Refused(
            f"the checksum fails: words {swapped} and {swapped + 1} may have changed places",
            check="recovery.checksum",
        )
    return Refused(
        "the checksum fails: more than one word is wrong",
        check="recovery.checksum",
        hint="read them all again",
    )


def _wrong_word(numbers: Sequence[int]) -> int:
    """Return the position, from 1, of the one word whose change mends the checksum, or 0.

    The checksum is linear over GF(2): a change of a word adds to the remainder what the changed
    bits alone would.  With distance 4, two wrong words look like one at no position.
    """
    syndrome = _remainder(numbers) ^ 1
    for position in range(len(numbers)):
        bits = [bit for bit in range(_RADIX_BITS) if (position, bit) != _EXTENDABLE]
        basis = [_response(len(numbers) - position - 1, bit) for bit in bits]
        if _in_span(syndrome, basis):
            return position + 1
    # One bit says by which name the checksum is begun, and so changes more than itself.
    word, bit = _EXTENDABLE
    turned = [number ^ (at == word) << bit for at, number in enumerate(numbers)]
    rest = [
        _response(len(numbers) - word - 1, other) for other in range(_RADIX_BITS) if other != bit
    ]
    return word + 1 if _in_span(_remainder(turned) ^ 1, rest) else 0


def _swapped_words(numbers: Sequence[int]) -> int:
    for at in range(len(numbers) - 1):
        tried = list(numbers)
        tried[at], tried[at + 1] = tried[at + 1], tried[at]
        if _remainder(tried) == 1:
            return at + 1
    return 0


def _remainder(numbers: Sequence[int]) -> int:
    """Return RS1024 over customization and words: 1 where the checksum is right."""
    extendable = bool((numbers[0] << _RADIX_BITS | numbers[1]) >> 4 & 1)
    state = 1
    for value in (*_CUSTOMIZATION[extendable], *numbers):
        state = _step(state, value)
    return state


def _response(after: int, bit: int) -> int:
    """Return what one bit of a word adds to the remainder, ``after`` words from the end."""
    state = 1 << bit
    for _ in range(after):
        state = _step(state, 0)
    return state


def _step(state: int, value: int) -> int:
    top = state >> 20
    state = (state & 0xFFFFF) << _RADIX_BITS ^ value
    for bit, term in enumerate(_GENERATOR):
        if top >> bit & 1:
            state ^= term
    return state


def _in_span(target: int, basis: Sequence[int]) -> bool:
    """Say whether ``target`` is a sum (XOR) of some of ``basis``."""
    reduced: list[int] = []
    for vector in basis:
        for other in reduced:
            vector = min(vector, vector ^ other)  # noqa: PLW2901 - elimination
        if vector:
            reduced.append(vector)
    for vector in sorted(reduced, reverse=True):
        target = min(target, target ^ vector)
    return target == 0
