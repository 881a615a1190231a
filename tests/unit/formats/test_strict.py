"""What no reader takes, as data; and the largest and deepest inputs, too large to store."""

from __future__ import annotations

import base64

import msgspec
import pytest

from custody.encoding import MAX_NESTING, MAX_STATEMENT_BYTES
from custody.errors import Malformed
from custody.formats.approval import Approval, Denial
from custody.formats.authorisation import Authorisation
from custody.formats.burn import Burn
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Predicate, decode_statement, encode_statement, payload_of
from custody.formats.logged import Logged
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy
from custody.formats.receipt import Receipt
from custody.formats.request import Request
from tests.unit.crypto.vectors import Vector, read
from tests.unit.formats import spec_examples as examples
from tests.vectors.envelope import make

KINDS: dict[str, type[Predicate]] = {
    "denial": Denial,
    "approval": Approval,
    "manifest": Manifest,
    "request": Request,
    "receipt": Receipt,
    "burn": Burn,
    "enrolment": EnrolmentRecord,
    "authorisation": Authorisation,
    "logged": Logged,
}
FOLDERS = (
    "envelope",
    "manifest",
    "request",
    "approval",
    "logged",
    "receipt",
    "burn",
    "authorisation",
)
CASES = [
    pytest.param(vector, id=f"{folder}: {vector['comment']}")
    for folder in FOLDERS
    for vector in read(f"{folder}/malformed.txt", "kind", "reason", "file")
]


@pytest.mark.parametrize("vector", CASES)
def test_what_no_reader_takes(vector: Vector) -> None:
    """A vector is malformed for its reason, said in one printable line."""
    with pytest.raises(Malformed, match=vector["reason"]) as error:
        decode_statement(KINDS[vector["kind"]], base64.b64decode(vector["file"]))
    assert error.value.reason.isprintable()


@pytest.mark.parametrize("kind", KINDS)
def test_the_vectors_begin_from_good_files(kind: str) -> None:
    """What the vectors change is read without a complaint, so that the change is the reason."""
    assert KINDS[kind].PREDICATE_TYPE == (
        decode_statement(KINDS[kind], make.GOOD[kind]).predicate.PREDICATE_TYPE
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_vectors_are_what_their_generator_writes(folder: str) -> None:
    """Each file has exactly the generator's cases, no comment twice."""
    stored = read(f"{folder}/malformed.txt", "kind", "reason", "file")
    made = make.FILES[folder]
    assert [(c.comment, base64.b64encode(c.file).decode()) for c in made] == [
        (vector["comment"], vector["file"]) for vector in stored
    ]
    assert len({case.comment for case in made}) == len(made)


def _denial_with(reason: bytes) -> bytes:
    payload = make.replaced(make.payload_of("denial"), b'"reason":"', b'"reason":' + reason)
    return make.around(payload, "denial")


@pytest.mark.parametrize("depth", [MAX_NESTING + 1, 1_000, 1_000_000])
@pytest.mark.parametrize("bracket", [b"[", b'{"a":', b'[{"a":'])
def test_deep_nesting_is_malformed(depth: int, bracket: bytes) -> None:
    """Lists and objects in each other are malformed at any depth, in file and payload alike."""
    for data in (_denial_with(bracket * depth), bracket * depth):
        with pytest.raises(Malformed):
            decode_statement(Denial, data)


@pytest.mark.parametrize("depth", [MAX_NESTING, MAX_NESTING + 1, 400])
def test_trees_nest_to_a_depth_of_ours(depth: int) -> None:
    """How deep a quorum tree is read does not depend on how much stack the reader has left."""
    tree = b'{"k":1,"node":"threshold","of":['
    data = tree * depth + b'{"node":"person","principal":"a"}' + b"]}" * depth
    payload = b'{"predicate":{"quorum":%b},"predicateType":"urn:custody:policy:v1"}' % data
    reason = "deep" if depth > MAX_NESTING else "missing required field"
    with pytest.raises(Malformed, match=reason):
        decode_statement(Policy, make.around(payload, "enrolment"))


def test_a_file_over_the_limit_is_malformed() -> None:
    """16 MiB and a byte are refused before a byte of them is read."""
    with pytest.raises(Malformed, match="larger than"):
        decode_statement(Denial, b" " * (MAX_STATEMENT_BYTES + 1))
    with pytest.raises(Malformed, match="larger than the 100 bytes"):
        decode_statement(Denial, examples.EXAMPLES["approval/denial.dsse"], max_bytes=100)


def test_the_longest_lists_and_bytes() -> None:
    """As many entries or bytes as the document allows are read, and one more is not."""
    digests = tuple(f"{n:064x}" for n in range(513))
    log = b"e" * ((1 << 20) + 1)
    long: list[Receipt | Request] = [
        msgspec.structs.replace(examples.receipt(), approvals=digests),
        msgspec.structs.replace(examples.request(), event_log=log),
    ]
    for broken in long:
        with pytest.raises(Malformed, match="length"):
            payload_of(broken)
    longest: list[Receipt | Request] = [
        msgspec.structs.replace(examples.receipt(), approvals=digests[1:]),
        msgspec.structs.replace(examples.request(), event_log=log[1:]),
    ]
    signature = decode_statement(Denial, make.GOOD["denial"]).envelope.signatures[0]
    for good in longest:
        assert good == decode_statement(type(good), encode_statement(good, [signature])).predicate
