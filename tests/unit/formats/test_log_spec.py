"""checkpoint.md shows what the code does."""

from __future__ import annotations

from custody.crypto.merkle import root, verify_consistency
from custody.formats.logentry import decode_entry
from custody.formats.logpolicy import decode_log_policy
from custody.formats.logproof import decode_proof
from custody.formats.witnessing import decode_cosign_request
from tests.unit.formats import log_examples as example
from tests.unit.formats.test_specs import SECTIONS


def test_the_document_shows_the_vectors() -> None:
    """Every block is byte for byte a file that follows from the words it is made of."""
    made = example.examples()
    shown = dict(example.BLOCK.findall(example.DOCUMENT.read_text()))
    assert made == {name: text.encode() for name, text in shown.items()}
    for name, data in made.items():
        assert data == (example.VECTORS / "checkpoint" / f"example.{name}").read_bytes()


def test_the_document_shows_before_it_rules() -> None:
    """It has the sections of every format document, in their order."""
    text = example.DOCUMENT.read_text()
    places = [text.find(f"\n{section}\n") for section in SECTIONS]
    assert -1 not in places
    assert places == sorted(places)


def test_the_examples_fit_together() -> None:
    """The proof is good by the policy, for the entry, at the time that the document says."""
    made = example.examples()
    proof = decode_proof(made["denial.tlog-proof"])
    vouched = decode_log_policy(made["logs.policy"]).judge(proof.signed)
    assert example.SECONDS == vouched.seconds
    entry = example.entries()[2]
    proof.check_entry(entry)
    assert "denial" == decode_entry(entry).kind
    request = decode_cosign_request(made["add-checkpoint"])
    head = request.signed.checkpoint
    old = root(example.leaves()[:1])
    verify_consistency(1, old, head.size, head.root, proof=request.proof)
