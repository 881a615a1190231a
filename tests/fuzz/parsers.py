"""Every reader of bytes or text that strangers write, and good input for each to begin from."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from custody.crypto import (
    certificate_reader,
    notekeys,
    oaepslots,
    pivattestation,
    signature,
    slip39,
    wrappingkey,
)
from custody.crypto.parts import ROW_BYTES
from custody.encoding import Record, check_nesting, check_text, decode, encode, parse_time, sha256
from custody.errors import CustodyError, Malformed, Refused
from custody.formats import (
    case,
    casefile,
    ceremony,
    checkpoint,
    contents,
    envelope,
    eventlog,
    eventwords,
    evidence,
    frames,
    logentry,
    logpolicy,
    logproof,
    model,
    note,
    parts,
    policy_draft,
    policy_text,
    safetensors,
    tiles,
    timestamp,
    tpmek,
    transcript,
    witnessing,
)
from custody.formats.admission import Admission, Invitation, InvitationKeys
from custody.formats.enrolling import Refusal, Waiting
from custody.formats.enrolment import Answer, Challenge, EnrolmentRequest
from custody.formats.envelope import Predicate
from custody.formats.hostcertificate import TlsRequest
from custody.formats.keybackup import KeyBackup, WrappingKey
from custody.formats.logproof import LogProof
from custody.formats.manifest import Core
from custody.formats.measurement import Measurement
from custody.formats.possession import KeptChallenge, ShareAnswer, ShareChallenge
from custody.formats.recovery import SealedShare
from custody.formats.state import Identity, Memory
from custody.formats.vendor import KeptAttestations, KeyAttestation
from custody.keys import profiles, uri
from tests.unit.crypto.vectors import ROOT, VECTORS
from tests.unit.formats import (
    ceremony_example,
    keybackup_examples,
    log_examples,
    spec_examples,
)
from tests.unit.formats.test_contents import _contents

#: The largest good input to begin from, and how many of them: small ones are mutated most often.
_MAX_SEED_BYTES = 64 << 10
_MAX_SEEDS = 24
_SIGNATURES = [{"keyid": "ab" * 32, "sig": "MQ=="}]


@dataclass(frozen=True)
class Parser:
    """A reader: it returns, or raises `Malformed` or one of ``also``, whatever it is given.

    ``write`` writes what was read; where there is one, a reader that takes two spellings of one
    thing is at fault as well.
    """

    read: Callable[[bytes], Any]
    also: tuple[type[CustodyError], ...] = ()
    write: Callable[[Any], bytes] | None = None
    examples: tuple[bytes, ...] = ()

    def seeds(self) -> tuple[bytes, ...]:
        """Return good input: of all that the vectors hold, what this reader takes."""
        found = [*self.examples]
        for data in sorted(blobs(), key=lambda blob: (len(blob), blob)):
            if len(found) >= _MAX_SEEDS:
                break
            try:
                self.read(data)
            except CustodyError:
                continue
            found.append(data)
        return tuple(found)


def text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """Read text as UTF-8, as whoever calls the reader has."""

    def reader(data: bytes) -> Any:
        try:
            words = data.decode()
        except UnicodeDecodeError as error:
            raise Malformed("not UTF-8") from error
        return read(words)

    return reader


def record(kind: type[Record], *examples: Record) -> Parser:
    """Read one kind of record."""
    return Parser(
        lambda data: decode(kind, data), write=encode, examples=tuple(map(encode, examples))
    )


def statement(kind: type[Predicate]) -> Parser:
    """Read the payload of one kind of statement, in a good envelope."""

    def read(payload: bytes) -> envelope.Statement[Any]:
        file = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": envelope.PAYLOAD_TYPE,
            "signatures": _SIGNATURES,
        }
        return envelope.decode_statement(kind, json.dumps(file, separators=(",", ":")).encode())

    return Parser(read, write=lambda found: envelope.payload_of(found.predicate))


def _described(data: bytes) -> Any:
    log = eventlog.parse_event_log(data)
    for event in log.events:
        eventwords.describe(event)
    return log


def _case_file(data: bytes) -> Any:
    # Its last 32 bytes are the digest of the rest: without it right, nothing else is looked at.
    whole = data[:-32] + sha256(data[:-32])
    return casefile.decode_case_file(whole)


def _header(data: bytes) -> Any:
    # One tensor of 16 bytes behind the header; what says otherwise does not fit its file.
    return safetensors.decode_header(data, file_size_bytes=8 + len(data) + 16)


def _frames(rows: bytes) -> Any:
    # A table is checked as a field of a record, whose faults are ValueError.
    try:
        return frames.FrameTable(rows)
    except ValueError as error:
        raise Malformed(str(error)) from error


def _rsa_keys() -> tuple[bytes, ...]:
    bob = (ROOT / "tests/vectors/admission/bob.dsse").read_bytes()
    return tuple(s.spki for s in envelope.decode_statement(Admission, bob).predicate.shares)


def _entry_proof() -> bytes:
    proof = LogProof(2, (bytes(32), bytes(32)), log_examples.cosigned(), log_examples.entries()[2])
    return proof.encode()


#: One share of a secret of zeros, which two of three open.
_MNEMONIC = (
    "mason desert academic acid calcium junior wrist talent acid luxury "
    "kernel hospital welcome discuss move album pumps overall estimate adjust"
)
_SIGNATURE_LINES = log_examples.cosigned().encode().decode().partition("\n\n")[2].encode()
_REFUSAL = Refusal(
    kind="custody/enrolment-refusal/v1", check="enrolment.class", reason="no", hint=None
)
_ATTESTED = KeptAttestations(
    kind="custody/attestations-kept/v1",
    admission="ab" * 32,
    keys=(
        KeyAttestation(
            key="cd" * 32,
            slot="9c",
            serial=13078782,
            firmware="5.2.6",
            pin="always",
            touch="cached",
            root="ef" * 32,
        ),
    ),
)
_SEALED_SHARE = SealedShare(
    kind="custody/sealed-share/v1",
    record="ab" * 32,
    group=0,
    member=1,
    holder="ida",
    suite="P256",
    recipient="cd" * 32,
    sealed=bytes(200),
)
_WAITING = Waiting(kind="custody/enrolment-waiting/v1", request="ab" * 32)


_KINDS: tuple[type[Predicate], ...] = (Admission, KeyBackup, WrappingKey, *case._KINDS)
_RECORDS: tuple[type[Record], ...] = (
    *(Answer, Challenge, EnrolmentRequest, TlsRequest),
    *(Identity, Invitation, InvitationKeys, Measurement, Memory),
    *(KeptChallenge, ShareAnswer, ShareChallenge),
)
_DRAFT = b"""environment = "production"
expires = 2027-11-01
quorum = "all(dora, emil)"
authorities = ["authority.cer"]
token_classes = ["software"]
[thresholds]
root = 2
enrolment = 2
golden = 2
[host]
pcrs = [0, 4, 7]
trust_classes = ["software"]
vendor_roots = ["root.pem"]
"""

#: By module and function.
PARSERS: Mapping[str, Parser] = {
    **{f"envelope.decode_statement[{k.__name__}]": statement(k) for k in _KINDS},
    **{f"encoding.decode[{k.__name__}]": record(k) for k in _RECORDS},
    "encoding.decode[Waiting]": record(Waiting, _WAITING),
    "encoding.decode[Refusal]": record(Refusal, _REFUSAL),
    "encoding.decode[KeptAttestations]": record(KeptAttestations, _ATTESTED),
    "encoding.decode[SealedShare]": record(SealedShare, _SEALED_SHARE),
    "encoding.decode[Core]": record(Core, spec_examples.manifest().core),
    "encoding.check_nesting": Parser(check_nesting, examples=(b"[[[]]]",)),
    "encoding.check_text": Parser(text(check_text), examples=(b"words",)),
    "encoding.parse_time": Parser(text(parse_time), examples=(b"2027-01-05T12:00:00Z",)),
    "envelope.decode_envelope": Parser(envelope.decode_envelope, write=encode),
    "case.read_statement": Parser(case.read_statement),
    "case.read_entry_proof": Parser(case.read_entry_proof, examples=(_entry_proof(),)),
    "casefile.decode_case_file": Parser(_case_file, also=(Refused,)),
    "checkpoint.decode_checkpoint": Parser(checkpoint.decode_checkpoint),
    "checkpoint.parse_checkpoint": Parser(
        text(checkpoint.parse_checkpoint),
        examples=(log_examples.cosigned().checkpoint.text().encode(),),
    ),
    "checkpoint.parse_size": Parser(text(checkpoint.parse_size), examples=(b"1234",)),
    "checkpoint.parse_hash": Parser(
        text(checkpoint.parse_hash), examples=(base64.b64encode(bytes(32)),)
    ),
    "ceremony.decode_script": Parser(ceremony.decode_script, examples=(ceremony_example.SCRIPT,)),
    "contents.decode_padded": Parser(
        contents.decode_padded, examples=(contents.encode_padded(_contents(), 1 << 15),)
    ),
    "eventlog.parse_event_log": Parser(_described, write=lambda log: log.pack()),
    "evidence.attest_kind": Parser(evidence.attest_kind),
    "evidence.parse_attest": Parser(evidence.parse_attest, write=lambda found: found.pack()),
    "evidence.parse_creation_data": Parser(
        evidence.parse_creation_data, write=lambda found: found.pack()
    ),
    "evidence.unpack_quote": Parser(evidence.unpack_quote),
    "evidence.unpack_certified": Parser(evidence.unpack_certified),
    "evidence.unpack_key_certified": Parser(evidence.unpack_key_certified),
    "evidence.cut_quote": Parser(evidence.cut_quote),
    "tpmpublic.parse_public": Parser(evidence.parse_public, write=lambda found: found.pack()),
    "tpmnv.parse_nv_public": Parser(evidence.parse_nv_public, write=lambda found: found.pack()),
    "tpmsignature.parse_signature": Parser(
        evidence.parse_signature, write=lambda found: found.pack()
    ),
    "tpmek.ek_publics": Parser(tpmek.ek_publics, also=(Refused,)),
    "frames.read_frames": Parser(_frames),
    "logentry.decode_entry": Parser(logentry.decode_entry, examples=tuple(log_examples.entries())),
    "logpolicy.decode_log_policy": Parser(logpolicy.decode_log_policy),
    "logproof.decode_proof": Parser(logproof.decode_proof),
    "model.decode_model_signature": Parser(model.decode_model_signature),
    "model.read_model_signature": Parser(model.read_model_signature),
    "note.decode_note": Parser(note.decode_note),
    "note.decode_text": Parser(note.decode_text),
    "note.decode_signatures": Parser(text(note.decode_signatures), examples=(_SIGNATURE_LINES,)),
    "parts.decode_parts": Parser(
        lambda data: parts.decode_parts(data, part_count=2, parts_root="00" * 32),
        also=(Refused,),
        examples=(bytes(2 * ROW_BYTES),),
    ),
    "policy_draft.decode_draft": Parser(policy_draft.decode_draft, examples=(_DRAFT,)),
    "policy_text.parse_quorum": Parser(
        text(policy_text.parse_quorum),
        examples=(b"all(2 of (sec1, sec2, sec3), 1 of (lead1, lead2))",),
    ),
    "safetensors.decode_header": Parser(
        _header,
        examples=(b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}      ',),
    ),
    "tiles.parse_path": Parser(text(tiles.parse_path), examples=(b"tile/0/x001/234.p/5",)),
    "timestamp.decode_token": Parser(timestamp.decode_token),
    "transcript.decode_transcript": Parser(
        transcript.decode_transcript,
        write=transcript.encode_transcript,
        examples=(transcript.encode_transcript(ceremony_example.lines()),),
    ),
    "witnessing.decode_cosign_request": Parser(witnessing.decode_cosign_request),
    "certificate_reader.read_certificate": Parser(certificate_reader.read_certificate),
    "certificate_reader.read_csr": Parser(certificate_reader.read_csr, also=(Refused,)),
    "certificate_reader.read_crl": Parser(certificate_reader.read_crl),
    "pivattestation.read_piv_attestation": Parser(pivattestation.read_piv_attestation),
    "signature.load_ec_public": Parser(signature.load_ec_public, also=(Refused,)),
    "wrappingkey.load_wrapping_public": Parser(
        wrappingkey.load_wrapping_public, examples=(keybackup_examples.wrapping().spki,)
    ),
    "oaepslots.load_rsa_public": Parser(
        oaepslots.load_rsa_public, write=signature.public_bytes, examples=_rsa_keys()
    ),
    "notekeys.parse_vkey": Parser(text(notekeys.parse_vkey)),
    "slip39.read_mnemonic": Parser(
        text(slip39.read_mnemonic),
        also=(Refused,),
        examples=(_MNEMONIC.encode(),),
    ),
    "uri.parse_key_uri": Parser(
        text(uri.parse_key_uri),
        also=(Refused,),
        examples=(b"pkcs11:token=dora;object=sign?module-name=softhsm2", b"tpm:swtpm:path=/a"),
    ),
    "profiles.parse_profile": Parser(
        lambda data: profiles.parse_profile(data, where="here"),
        examples=tuple(path.read_bytes() for path in (ROOT / "hsm_profiles").glob("*.toml")),
    ),
}


@cache
def blobs() -> frozenset[bytes]:
    """Return everything in the vectors that may be input of some reader."""
    found: set[bytes] = set()
    for path in sorted(VECTORS.rglob("*")):
        if path.is_file() and path.suffix not in {".py", ".md", ".pyc"}:
            found.update(_of_file(path))
    return frozenset(blob for blob in found if 0 < len(blob) <= _MAX_SEED_BYTES)


def _of_file(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield data
    yield from _of_json(data)
    if path.suffix != ".txt":
        return
    for line in data.decode(errors="replace").splitlines():
        value = line.partition(":")[2].strip()
        for word in {value, *value.split()}:
            yield from _of_words(word)


def _of_words(word: str) -> Iterator[bytes]:
    """Return what a word of a vector may stand for: itself, hexadecimal, base64, JSON."""
    yield word.encode()
    yield from _of_json(word.encode())
    for decoded in (bytes.fromhex, _base64):
        try:
            data = decoded(word)
        except (ValueError, binascii.Error):
            continue
        yield data
        yield from _of_json(data)


def _base64(word: str) -> bytes:
    return base64.b64decode(word, validate=True)


def _of_json(data: bytes) -> Iterator[bytes]:
    """Return what strings within JSON stand for, at any depth."""
    if not data.startswith((b"{", b"[")):
        return
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            todo += each.values()
        elif isinstance(each, list):
            todo += each
        elif isinstance(each, str) and len(each) > 8:
            try:
                inner = _base64(each)
            except (ValueError, binascii.Error):
                continue
            yield inner
            yield from _of_json(inner)
