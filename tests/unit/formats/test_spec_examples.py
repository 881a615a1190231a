"""The documents of one release: their examples are what they say, and do what they say."""

from __future__ import annotations

import re

import pytest

from custody.crypto.bind import bind
from custody.crypto.keyslots import approval_info, commitment, slot_info, unwrap
from custody.crypto.keyslots import open as open_slot
from custody.crypto.parts import check_cek
from custody.crypto.quorum import combine
from custody.crypto.signature import verify
from custody.encoding import encode, key_id, sha256
from custody.formats.approval import Approval, Denial
from custody.formats.authorisation import Authorisation
from custody.formats.burn import Burn
from custody.formats.envelope import (
    Predicate,
    Statement,
    decode_statement,
    encode_statement,
    payload_of,
    statement_digest,
)
from custody.formats.evidence import EccPublic, parse_public
from custody.formats.goldenset import GoldenSet, PcrValue
from custody.formats.logged import Logged
from custody.formats.manifest import Manifest
from custody.formats.policy import (
    HostRequirements,
    Limits,
    Policy,
    Principal,
    ShareKey,
    SigningKey,
    Thresholds,
)
from custody.formats.receipt import Receipt
from custody.formats.request import Request
from custody.rules.attestation import check_evidence
from custody.rules.burn import check_burn
from custody.rules.receipt import check_receipt
from custody.rules.verdicts import passed
from tests.unit.formats import spec_examples as examples
from tests.unit.formats.fixed import key, octets, spki
from tests.unit.formats.test_specs import SECTIONS

SPECS = {
    name: (examples.SPECS / f"{name}.md").read_text(encoding="utf-8")
    for name in (
        "manifest",
        "request",
        "approval",
        "logged",
        "receipt",
        "burn",
        "authorisation",
        "model",
    )
}
FILES: dict[str, type[Predicate]] = {
    "manifest/example.dsse": Manifest,
    "request/example.dsse": Request,
    "approval/alice.dsse": Approval,
    "approval/bob.dsse": Approval,
    "approval/denial.dsse": Denial,
    "logged/example.dsse": Logged,
    "receipt/example.dsse": Receipt,
    "burn/example.dsse": Burn,
    "authorisation/example.dsse": Authorisation,
}


def _read(place: str) -> Statement[Predicate]:
    return decode_statement(FILES[place], (examples.VECTORS / place).read_bytes())


@pytest.mark.parametrize("place", examples.EXAMPLES)
def test_the_files_are_what_the_generator_writes(place: str) -> None:
    """Every example file comes out the same again, byte for byte."""
    assert examples.EXAMPLES[place] == (examples.VECTORS / place).read_bytes()


@pytest.mark.parametrize("place", FILES)
def test_an_example_is_read_and_written_again(place: str) -> None:
    """Every example statement is its own canonical form."""
    statement = _read(place)
    written = encode_statement(statement.predicate, statement.envelope.signatures)
    assert (examples.VECTORS / place).read_bytes() == written


@pytest.mark.parametrize("name", SPECS)
def test_the_documents_print_the_examples(name: str) -> None:
    """Without its layout, every example printed is byte for byte what is signed."""
    shown = examples.printed(SPECS[name])
    assert shown
    assert {block: examples.PRINTED[block] for block in shown} == shown
    assert SPECS[name] == examples.written(SPECS[name])


def test_every_example_is_printed() -> None:
    """Nothing that is made for printing is left out of the documents."""
    shown = {block for text in SPECS.values() for block in examples.printed(text)}
    assert examples.PRINTED.keys() == shown


@pytest.mark.parametrize("name", SPECS)
def test_a_document_shows_before_it_rules(name: str) -> None:
    """A format document has its sections in their order, the example first."""
    places = [SPECS[name].find(f"\n{section}\n") for section in SECTIONS]
    assert -1 not in places
    assert sorted(places) == places


def test_the_values_in_the_documents_are_computed() -> None:
    """Every digest that a document tells of its example is what the program computes."""
    core = examples.manifest().core
    request = statement_digest(examples.request())
    alice_share, alice = key_id(spki("alice share")), key_id(spki("alice sign"))
    host_key = parse_public(examples.request().key.public)
    assert isinstance(host_key, EccPublic)
    told = {
        "manifest": (
            statement_digest(examples.manifest()),
            core.binding().hex(),
            alice_share,
            slot_info(core.binding(), "share", "0", alice_share).hex(),
            f"{len(payload_of(examples.manifest()))} bytes",
            f"{len(encode(core))} bytes",
        ),
        "request": (
            request,
            examples.terms().digest().hex(),
            host_key.auth_policy.hex(),
            key_id(spki("ak")),
            bind("request", bytes.fromhex(request)).hex(),
            f"{len(payload_of(examples.request()))} bytes",
        ),
        "approval": (
            statement_digest(examples.approval()),
            statement_digest(examples.denial()),
            approval_info(request, "0", alice).hex(),
        ),
        "logged": (statement_digest(examples.logged()),),
        "receipt": (
            statement_digest(examples.receipt()),
            bind("receipt", bytes.fromhex(statement_digest(examples.receipt()))).hex(),
        ),
        "burn": (
            statement_digest(examples.burn()),
            bind("burn", bytes.fromhex(statement_digest(examples.burn()))).hex(),
        ),
        "authorisation": (
            statement_digest(examples.authorisation()),
            examples.authorised_state()[:32].hex(),
            examples.authorised_state()[32:].hex(),
            sha256(examples.authorised_state()).hex(),
        ),
        "model": (
            f"{len(examples.model_statement())} bytes",
            f"{len(examples.model_signature())}\nbytes",
        ),
    }
    for name, values in told.items():
        for value in values:
            assert value in SPECS[name]


def test_the_example_manifest_opens() -> None:
    """Each officer's slots open with his key; together the shares give R, and R the rest."""
    manifest = examples.manifest()
    binding, shares = manifest.core.binding(), {}
    for leaf, who in examples.OFFICERS.items():
        for slot in manifest.slots_for(key_id(spki(f"{who} share"))):
            info = slot_info(binding, slot.purpose, slot.leaf, slot.recipient)
            secret = open_slot("P256", key(f"{who} share"), None, slot.sealed, info=info)
            if slot.purpose == "contents":
                assert octets("CK") == secret
                continue
            x, share, salt = int(leaf) + 1, secret[:32], secret[32:]
            assert manifest.commitment(leaf) == commitment(binding, leaf, x, share, salt).hex()
            assert share.hex() in SPECS["manifest"]
            shares[leaf] = share
    release = combine(examples.TREE, shares)
    assert release.hex() in SPECS["manifest"]
    cek, contents = manifest.wrap("cek"), manifest.wrap("contents")
    opened = unwrap(release, cek.salt, cek.sealed, C=binding, purpose="cek")
    check_cek(opened, examples.PAYLOAD_ID, bytes.fromhex(manifest.core.cek_commitment))
    assert octets("CK") == unwrap(
        opened, contents.salt, contents.sealed, C=binding, purpose="contents"
    )
    assert octets("CK").hex() in SPECS["manifest"]


def test_the_example_share_is_sealed_to_h() -> None:
    """What alice's approval carries is her share and salt, sealed to H and bound to the request."""
    approval = examples.approval("0")
    info = approval_info(approval.request, "0", key_id(spki("alice sign")))
    opened = open_slot("P256", key("h"), None, approval.sealed_share, info=info)
    assert opened[:32].hex() in SPECS["manifest"]
    assert opened[32:].hex() in SPECS["manifest"]
    verify(spki("alice sign"), bytes(4) + examples.terms().digest(), approval.terms_signature)


def _policy() -> Policy:
    """The policy that the example's documents name by a digest only."""

    def officer(who: str) -> Principal:
        keys = (
            SigningKey(spki=spki(f"{who} sign"), token_class="software"),
            ShareKey(spki=spki(f"{who} share"), suite="P256", mlkem=None, token_class="software"),
        )
        return Principal(id=who, name=who, roles=("officer",), keys=keys)

    return Policy(
        environment="production",
        genesis=None,
        version=1,
        issued_at=examples.NOW,
        expires_at=examples.NOW,
        principals=(officer("alice"), officer("bob")),
        token_classes=("software",),
        authorities=(b"-",),
        quorum=examples.TREE,
        thresholds=Thresholds(root=2, enrolment=2, golden=2),
        host=HostRequirements(
            bank="sha256",
            pcrs=examples.PCRS,
            trust_classes=("virtual",),
            vendor_roots=(b"-",),
            event_log="optional",
            vendor_crls=(),
            further=(),
        ),
        limits=Limits(
            request_window_seconds=30 * 86400, approval_seconds=86400, crl_max_age_seconds=86400
        ),
        modes=("once",),
        part_digest="blake3",
        weakest_suite="P256",
        self_approval=False,
        withdrawn=(),
        logged=None,
        recovery=None,
    )


def test_every_check_of_the_example_request_holds() -> None:
    """The example's evidence passes every check there is, authPolicy recomputed."""
    golden = GoldenSet(
        environment=examples.request().environment,
        name="lab-6.1",
        notes="",
        epoch=1,
        oldest=1,
        bank="sha256",
        pcrs=tuple(PcrValue(pcr=n, value=v.hex()) for n, v in examples.REGISTERS.items()),
        issued_at=examples.NOW,
    )
    verdicts = check_evidence(
        decode_statement(Request, examples.EXAMPLES["request/example.dsse"]),
        enrolment=examples.ENROLMENT,
        golden=golden,
        policy=_policy(),
        remembered=None,
    )
    assert passed(verdicts), [v for v in verdicts if v.outcome == "fail"]


def test_every_check_of_the_example_receipt_holds() -> None:
    """The example's receipt is quoted by the AK of the example's request."""
    verdicts = check_receipt(
        decode_statement(Receipt, examples.EXAMPLES["receipt/example.dsse"]),
        decode_statement(Request, examples.EXAMPLES["request/example.dsse"]),
    )
    assert passed(verdicts), [v for v in verdicts if v.outcome == "fail"]


def test_every_check_of_the_example_burn_holds() -> None:
    """The example's counter is certified by the AK of the example's request."""
    verdicts = check_burn(
        decode_statement(Burn, examples.EXAMPLES["burn/example.dsse"]),
        decode_statement(Request, examples.EXAMPLES["request/example.dsse"]),
    )
    assert passed(verdicts), [v for v in verdicts if v.outcome == "fail"]


@pytest.mark.parametrize("name", SPECS)
def test_documents_name_checks_that_exist(name: str) -> None:
    """Every check id a document names is one that the program reports."""
    rules = examples.SPECS.parent
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("rules", "crypto", "ops")
        for path in sorted((rules / folder).glob("*.py"))
    )
    named = set(
        re.findall(
            r"`((?:manifest|request|approval|logged|denial|receipt|burn|enrolment|golden|model)\.[a-z-]+)`",
            SPECS[name],
        )
    )
    assert named
    named = {check for check in named if not check.endswith((".md", ".dsse", ".sig"))}
    for check in named:
        word = check.partition(".")[2]
        assert f'"{check}"' in code or f'f"{{check}}.{word}"' in code, check
