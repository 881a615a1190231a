"""The examples of ceremony.md and transcript.md: two people, five steps.

Everything follows from words (`fixed`), so that ``python -m tests.unit.formats.ceremony_example``
writes the same files and the same blocks wherever it runs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from msgspec.structs import replace

from custody import formats
from custody.encoding import encode, sha256
from custody.formats.ceremony import Script, decode_script
from custody.formats.envelope import Signature, signing_bytes
from custody.formats.transcript import (
    Begun,
    CeremonyRecord,
    Closed,
    Done,
    Event,
    FoundObject,
    KeyUse,
    Line,
    MadeKey,
    NamedFile,
    Opened,
    Told,
    UsedToken,
    encode_transcript,
)
from custody.formats.vendor import KeyAttestation
from custody.rules.ceremony import TokenName, progress_of
from tests.unit.formats.examples import lay_out
from tests.unit.formats.fixed import octets, sign, spki

DOCUMENTS = Path(formats.__file__).parent
VECTORS = Path(__file__).parents[2] / "vectors" / "ceremony"
BLOCK = re.compile(r"^```(\w+) ceremony=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
AT = datetime(2027, 1, 5, 12, 0, tzinfo=UTC)

SCRIPT = b"""\
kind = "custody/ceremony/v1"
environment = "production"
title = "The first keys of production"

[[people]]
name = "ida"
role = "custodian"
token = "pkcs11:token=ida;serial=0a11?module-name=softhsm2"

[[people]]
name = "alice"
role = "officer"
display = "Alice of the night shift"
token = "pkcs11:token=alice?module-name=softhsm2"
holds = ["X.509 Certificate for PIV Attestation"]

[[steps]]
do = "invite"
by = "ida"

[[steps]]
do = "enrol"
who = "ida"

[[steps]]
do = "enrol"
who = "alice"
suite = "P256"
attestation = "required"
roots = ["%b"]

[[steps]]
do = "authority"
by = "ida"
name = "production authority"

[[steps]]
do = "admit"
by = "ida"
who = ["ida", "alice"]
""" % octets("vendor's root").hex().encode()
DIGEST = sha256(SCRIPT).hex()
TOKENS = {
    "ida": TokenName(label="ida", serial="0a11", manufacturer=None, model=None),
    "alice": TokenName(label="alice", serial=None, manufacturer=None, model=None),
}
#: Whose keys sign which record, as the rules of transcript.md have it.
HANDS = ((), ("ida",), ("alice",), ("ida",), ("ida",))


def script() -> Script:
    """The script."""
    return decode_script(SCRIPT)


def token(person: str, serial: str) -> UsedToken:
    """A token as it describes itself."""
    return UsedToken(
        person=person,
        label=person,
        manufacturer="SoftHSM project",
        model="SoftHSM v2",
        serial=serial,
        firmware="2.6",
        library="Implementation of PKCS11 2.6",
        profile="softhsm2",
        token_class="software",
    )


IDA = token("ida", "0a11")
ALICE = replace(
    token("alice", "13078782"),
    manufacturer="Yubico (www.yubico.com)",
    model="YubiKey YK5",
    firmware="5.26",
    library="PKCS#11 PIV Library (SP-800-73) 2.30",
    profile="ykcs11",
    token_class="self-asserted",
)


def made(person: str, use: KeyUse, label: str) -> MadeKey:
    """A key in somebody's token."""
    return MadeKey(
        person=person,
        use=use,
        label=label,
        id=f"{use}-{label}".encode().hex(),
        spki=spki(f"{person} {use}"),
        check=None,
    )


def lies(*keys: MadeKey) -> tuple[FoundObject, ...]:
    """What keys look like when a token is looked into."""
    return tuple(
        FoundObject(person=key.person, kind=kind, label=key.label, id=key.id)
        for key in keys
        for kind in ("private", "public")
    )


def file(name: str) -> NamedFile:
    """A file that is not part of the example."""
    return NamedFile(name=name, sha256=octets(name).hex())


IDA_SIGN = made("ida", "sign", "production ida sign")
ALICE_SIGN = made("alice", "sign", "production alice sign")
ALICE_SHARE = made("alice", "share", "production alice share")
AUTHORITY = made("ida", "ca", "production authority")
ATTESTATION = FoundObject(
    person="alice", kind="certificate", label="X.509 Certificate for PIV Attestation", id="19"
)


def by_vendor(key: MadeKey, slot: str) -> KeyAttestation:
    """What a vendor attests of a key of Alice's."""
    return KeyAttestation(
        key=key.key_id,
        slot=slot,
        serial=13078782,
        firmware="5.2.6",
        pin="always" if slot == "9c" else "once",
        touch="cached",
        root=octets("vendor's root").hex(),
    )


def done(step: int, do: str, **more: object) -> Done:
    """A step that was done."""
    empty = Done(
        step=step,
        do=do,
        asked=True,
        tokens=(),
        found=(),
        keys=(),
        attested=(),
        files=(),
        told=(),
        said=(),
    )
    return replace(empty, **more)


def events() -> tuple[Event, ...]:
    """All that happened."""
    words = "software token, not attested by its vendor"
    attested = (by_vendor(ALICE_SIGN, "9c"), by_vendor(ALICE_SHARE, "9d"))
    steps = (
        done(
            1,
            "invite",
            files=(file("invitation.json"),),
            told=(Told(what="the invitation", digest=octets("invitation").hex()),),
        ),
        done(
            2,
            "enrol",
            tokens=(IDA,),
            keys=(IDA_SIGN,),
            files=(file("ida.admission.dsse"),),
            told=(Told(what="the admission of ida", digest=octets("ida").hex()),),
            said=(words,),
        ),
        done(
            3,
            "enrol",
            tokens=(ALICE,),
            found=(ATTESTATION,),
            keys=(ALICE_SIGN, ALICE_SHARE),
            attested=attested,
            files=(file("alice.admission.dsse"),),
            told=(Told(what="the admission of alice", digest=octets("alice").hex()),),
            said=(
                "self-asserted token, by its own word",
                *(f"key {key.key[:16]}… is {key.words()}, by its vendor" for key in attested),
            ),
        ),
        done(
            4,
            "authority",
            tokens=(IDA,),
            found=lies(IDA_SIGN),
            keys=(AUTHORITY,),
            files=(file("authority.cer"), file("authority.crl")),
            told=(Told(what="the authority's certificate", digest=octets("authority.cer").hex()),),
        ),
        done(
            5,
            "admit",
            tokens=(IDA,),
            found=lies(IDA_SIGN, AUTHORITY),
            attested=attested,
            files=(file("alice.sign.cer"), file("ida.sign.cer")),
            said=("ida is admitted as custodian", "alice is admitted as officer"),
        ),
    )
    opened = Opened(
        title="The first keys of production", people=("ida", "alice"), program="custody 0.1"
    )
    files = sorted((f for step in steps for f in step.files), key=lambda f: f.name)
    inner = [event for step in steps for event in (Begun(step=step.step), step)]
    return (opened, *inner, Closed(policy=None, files=tuple(files)))


def chained(
    happened: Sequence[Event], signers: Callable[[int, Event], Sequence[str]] | None = None
) -> tuple[Line, ...]:
    """Chain events as records, each signed by who has to, or by others who are named."""
    lines: list[Line] = []
    for number, event in enumerate(happened):
        record = CeremonyRecord(
            environment="production",
            script=DIGEST,
            number=number,
            previous=lines[-1].digest if lines else DIGEST,
            at=AT + timedelta(minutes=number),
            event=event,
        )
        names = (signers or who)(number, event)
        lines.append(signed(record, names))
    return tuple(lines)


def who(number: int, event: Event) -> Sequence[str]:
    """Name who has to sign."""
    match event:
        case Done():
            return HANDS[event.step - 1]
        case Closed():
            return ("ida", "alice")
        case _:
            return ()


def signed(record: CeremonyRecord, names: Sequence[str]) -> Line:
    """Sign a record by the signing keys of people."""
    signatures = (
        Signature(
            keyid=made(name, "sign", "").key_id, sig=sign(f"{name} sign", signing_bytes(record))
        )
        for name in names
    )
    return Line(record=record, signatures=tuple(sorted(signatures, key=lambda s: s.keyid)))


@cache
def lines() -> tuple[Line, ...]:
    """The transcript."""
    return chained(events())


def files() -> dict[str, str]:
    """The files that its steps wrote."""
    return dict(progress_of(lines()).files)


def examples() -> dict[str, bytes]:
    """The files of the example."""
    return {"example.toml": SCRIPT, "example.jsonl": encode_transcript(lines())}


def malformed() -> Iterator[tuple[str, str, str, bytes]]:
    """What no reader takes: the kind of file, why, a comment, the file."""

    def text(old: str, new: str) -> bytes:
        assert old in SCRIPT.decode()
        return SCRIPT.decode().replace(old, new, 1).encode()

    yield "script", "titel is not known", "a misspelt word is no default", text("title", "titel")
    yield (
        "script",
        "not the form",
        "where a PIN is read from",
        text("=softhsm2", "=x&pin-source=fd:3"),
    )
    yield "script", "not the form", "a PIN itself", text("=softhsm2", "=x&pin-value=1234")
    yield "script", "cannot be 'run'", "a step nobody knows", text('"authority"', '"run"')
    yield (
        "script",
        "not the form",
        "a file elsewhere",
        text('who = ["ida", "alice"]', 'files = ["../a.dsse"]'),
    )
    yield "script", "one line of words", "a title that turns direction", text("keys", "\u202e")
    yield "script", "not a valid script", "not TOML", b"kind: custody"
    yield "script", "steps is missing", "no steps", SCRIPT.partition(b"[[steps]]")[0]
    yield "script", "not a valid script", "no UTF-8", SCRIPT.replace(b"Alice", b"\xff")
    root = octets("vendor's root").hex()
    for reason, comment, old, new in (
        ("attestation, roots: one without", "no root to attest by", f'roots = ["{root}"]', ""),
        ("attestation, roots: one without", "a root that attests nothing", "attestation =", "# "),
        ("64 lower-case hexadecimal", "a root that is no digest", root, root[:-1]),
        ("roots: .* is there twice", "a root twice", f'"{root}"', f'"{root}", "{root}"'),
        ("'any'", "an attestation nobody knows", '"required"', '"any"'),
    ):
        yield "script", reason, comment, text(old, new)
    yield from _doubled()
    whole = encode_transcript(lines())
    one = whole.partition(b"\n")[0] + b"\n"
    yield "transcript", "whole line", "the last line is cut off", whole[:-1]
    yield "transcript", "whole line", "nothing", b""
    yield "transcript", "line 2", "an empty line", one + b"\n"
    yield "transcript", "line 1.*canonical", "white space", one.replace(b":", b": ", 1)
    yield (
        "transcript",
        "line 1.*unknown field",
        "a word more",
        one.replace(b'{"record"', b'{"a":1,"record"'),
    )
    yield "transcript", "line 1", "a line ending of Windows", one.replace(b"\n", b"\r\n")
    last = whole.splitlines()[-1] + b"\n"
    pair = json.loads(last)["signatures"]
    turned = encode(pair[::-1])
    yield (
        "transcript",
        "keyid order",
        "signers in another order",
        last.replace(encode(pair), turned),
    )
    twice = encode([pair[0], pair[0]])
    yield "transcript", "keyid order", "a signer twice", last.replace(encode(pair), twice)
    both = whole.replace(b'"check":null', b'"check":"%b"' % (b"ab" * 32))
    yield "transcript", "spki, check", "a public key and a check value", both
    for reason, comment, was, instead in (
        ("missing required field .attested", "no word on vendors", b'"attested":[],', b""),
        ("Invalid enum value", "a PIN policy nobody knows", b'"pin":"always"', b'"pin":"often"'),
        ("matching regex", "a slot in capitals", b'"slot":"9c"', b'"slot":"9C"'),
    ):
        yield "transcript", reason, comment, whole.replace(was, instead)


def _doubled() -> Iterator[tuple[str, str, str, bytes]]:
    """Lists in which one stands twice, or two that are taken for one; trees that are none."""

    def step(words: str) -> bytes:
        return SCRIPT + f"\n[[steps]]\n{words}\n".encode()

    twice = (
        ("admits somebody twice", "who", 'do = "admit"\nby = "ida"\nwho = ["ida", "ida"]'),
        (
            "admits one file twice",
            "files",
            'do = "admit"\nby = "ida"\nfiles = ["a.dsse", "a.dsse"]',
        ),
        (
            "is brought what was made at the table",
            "files",
            'do = "admit"\nby = "ida"\nwho = ["ida"]\nfiles = ["ida.admission.dsse"]',
        ),
        ("one signs twice", "signers", 'do = "policy"\ndraft = "d.toml"\nsigners = ["ida", "ida"]'),
        ("opens one share twice", "opened", 'do = "wrapping-key"\nby = "ida"\nopened = ["a", "a"]'),
        (
            "seals to one twice",
            "seal_to",
            'do = "recovery"\nby = "ida"\namong = "2 of (a, b)"\nseal_to = ["a", "a"]',
        ),
        (
            "one person holds two shares",
            "among",
            'do = "recovery"\nby = "ida"\namong = "2 of (anna, albert, albert)"',
        ),
        (
            "one person holds shares in two groups",
            "among",
            'do = "recovery"\nby = "ida"\namong = "all(2 of (a, b), 2 of (c, a))"',
        ),
    )
    for comment, field, words in twice:
        yield "script", f"{field}: .* is there twice", comment, step(words)
    alike = (
        ("a digit for a letter", "who", 'do = "admit"\nby = "ida"\nwho = ["a1ex", "alex"]'),
        ("a naught for an o", "signers", 'do = "policy"\ndraft = "d"\nsigners = ["b0b", "bob"]'),
        (
            "another dash",
            "among",
            'do = "recovery"\nby = "ida"\namong = "2 of (a-b, a_b, c)"',
        ),
        (
            "two letters for one",
            "among",
            'do = "recovery"\nby = "ida"\namong = "2 of (emma, ernma, c)"',
        ),
        ("a capital", "files", 'do = "admit"\nby = "ida"\nfiles = ["Bob.dsse", "bob.dsse"]'),
    )
    for comment, field, words in alike:
        yield "script", f"{field}: .* look the same", comment, step(words)
    label = b'"X.509 Certificate for PIV Attestation"'
    held = SCRIPT.replace(label, label + b", " + label.upper())
    yield "script", "holds: .* look the same", "one label in capitals", held
    for comment, tree, reason in (
        ("a threshold above its members", "3 of (a, b)", "3 of 2"),
        ("a threshold of none", "0 of (a, b)", "0 of 2"),
        ("a tree that does not end", "2 of (a, b", "expected"),
        ("more after the tree", "2 of (a, b) c", "more after the end"),
        ("a name in capitals", "2 of (a, B)", "cannot read"),
    ):
        words = f'do = "recovery"\nby = "ida"\namong = "{tree}"'
        yield "script", f"among: quorum: .*{reason}", comment, step(words)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def vectors() -> str:
    """Write what no reader takes as a vector file."""
    head = "# What no reader of scripts and transcripts takes, and why: ceremony_example.py.\n"
    rows = [
        f"comment: {comment}\nkind: {kind}\nreason: {reason}\nfile: {_text(data)}\n"
        for kind, reason, comment, data in malformed()
    ]
    return "\n".join([head, *rows])


def block(name: str) -> str:
    """Write a block of the documents."""
    if name == "example.toml":
        return SCRIPT.decode()
    number = int(name.partition("#")[2])
    return lay_out(json.loads(encode(lines()[number]))) + "\n"


def filled(text: str) -> str:
    """Put the examples into a document."""
    return BLOCK.sub(lambda m: f"```{m[1]} ceremony={m[2]}\n{block(m[2])}```", text)


def main() -> None:
    """Write vectors and documents."""
    for name, data in examples().items():
        (VECTORS / name).write_bytes(data)
    (VECTORS / "malformed.txt").write_text(vectors())
    for name in ("ceremony.md", "transcript.md"):
        path = DOCUMENTS / name
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
