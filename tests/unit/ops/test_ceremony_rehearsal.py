"""Whether a policy that would lock everybody out is refused before a ceremony makes any key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from custody.errors import Incomplete, Malformed, Refused, Unavailable
from custody.formats.ceremony import (
    Admit,
    Enrol,
    Invite,
    MakeAuthority,
    MakePolicy,
    Script,
    Seat,
    SplitRecovery,
    Step,
    Vouching,
    encode_script,
)
from custody.formats.policy import Role, SuiteName
from custody.ops.ceremony_rehearsal import rehearse
from custody.ops.transcript import read_script
from tests.unit.people import NOW, PEOPLE, authority

DRAFT = """\
environment = "production"
expires = 2027-12-01
quorum = "2 of (sec1, sec2, sec3)"
authorities = ["table/authority.cer"]
token_classes = ["software"]
[thresholds]
root = 2
enrolment = 2
golden = 2
[host]
pcrs = [0, 2, 4, 7]
trust_classes = ["software"]
vendor_roots = ["vendor.pem"]
"""
RECOVERY = 'recovery = "table/recovery-1.dsse"\n'
HOST: dict[str, Role] = {**PEOPLE, "mainframe": "host"}


def script(
    people: dict[str, Role],
    *more: Step,
    signers: Sequence[str] = ("ida", "cas"),
    suites: dict[str, SuiteName] | None = None,
    files: tuple[str, ...] = (),
) -> Script:
    """A script by which all of these people are admitted, and a policy made of them."""
    chosen = suites or {}
    return Script(
        kind="custody/ceremony/v1",
        environment="production",
        title="The first keys of production",
        people=tuple(
            Seat(name=name, role=role, token=f"pkcs11:token={name}")
            for name, role in people.items()
        ),
        steps=(
            Invite(by="ida"),
            *(Enrol(who=name, suite=chosen.get(name)) for name in people),
            MakeAuthority(by="ida", name="production authority"),
            Admit(by="ida", who=tuple(people), files=files),
            *more,
            MakePolicy(draft="draft.toml", signers=tuple(signers)),
        ),
    )


def vouched(who: str, *, attestation: Vouching) -> Script:
    """A script by which a vendor has to attest somebody's keys, or may."""
    held = script(PEOPLE)
    steps = (
        replace(step, attestation=attestation, roots=("ab" * 32,))
        if isinstance(step, Enrol) and who in (step.who, "everybody")
        else step
        for step in held.steps
    )
    return replace(held, steps=tuple(steps))


def brought(attestation: Vouching) -> Script:
    """A script by which a vendor has to attest the keys of an admission that is brought."""
    held = script(PEOPLE, files=("bob.dsse",))
    steps = (
        replace(step, attestation=attestation, roots=("ab" * 32,))
        if isinstance(step, Admit)
        else step
        for step in held.steps
    )
    return replace(held, steps=tuple(steps))


def tried(folder: Path, held: Script, draft: str = DRAFT) -> str:
    """Lay a draft beside a script, and try its policy out."""
    (folder / "draft.toml").write_text(draft)
    root = x509.load_der_x509_certificate(authority())
    (folder / "vendor.pem").write_bytes(root.public_bytes(Encoding.PEM))
    return rehearse(read_script(encode_script(held)), beside=folder, now=NOW)


def test_a_sound_policy_can_be_made(tmp_path: Path) -> None:
    """By its script and draft alone; neither token nor file of the ceremony is there."""
    assert "it can be signed" in tried(tmp_path, script(PEOPLE))
    split = SplitRecovery(by="ida", among="2 of (ida, cas, cyd)")
    assert "it can be signed" in tried(tmp_path, script(PEOPLE, split), RECOVERY + DRAFT)
    strong = DRAFT.replace('"software"]\n[', '"software"]\nweakest_suite = "MLKEM1024_P384"\n[', 1)
    assert "it can be signed" in tried(tmp_path, script(PEOPLE), strong)


def test_keys_that_vendors_attest_are_taken_as_such(tmp_path: Path) -> None:
    """Where the draft takes such keys beside others, or nothing else and all are."""
    both = DRAFT.replace('["software"]\n[t', '["software", "vendor-attested"]\n[t')
    alone = DRAFT.replace('["software"]\n[t', '["vendor-attested"]\n[t')
    for held, draft in (
        (vouched("sec1", attestation="required"), both),
        (vouched("sec1", attestation="accepted"), both),
        (vouched("everybody", attestation="required"), alone),
    ):
        assert "it can be signed" in tried(tmp_path, held, draft)


def test_a_host_without_a_tpm_is_listed_as_it_enrols(tmp_path: Path) -> None:
    """Its keys are in the policy, so a ceremony makes them; the policy must take such hosts."""
    takes = DRAFT.replace('trust_classes = ["software"]', 'trust_classes = ["software", "hsm-key"]')
    assert "it can be signed" in tried(tmp_path, script(HOST), takes)
    with pytest.raises(Refused, match="takes no hosts by keys in an HSM"):
        tried(tmp_path, script(HOST), DRAFT)


LOCKED: dict[str, tuple[Script, str, str]] = {
    "one officer alone": (
        script(PEOPLE),
        DRAFT.replace("2 of (sec1, sec2, sec3)", "sec1"),
        "single",
    ),
    "an officer who does not come": (
        script(PEOPLE),
        DRAFT.replace("sec3", "sec4"),
        "sec4 is in the quorum tree but is not an",
    ),
    "an officer who is none": (
        script(PEOPLE),
        DRAFT.replace("sec3", "erik"),
        "erik is in the quorum tree but is not an",
    ),
    "an officer twice": (script(PEOPLE), DRAFT.replace("sec3", "sec1"), "sec1 holds 2 leaves"),
    "a root threshold of all": (
        script(PEOPLE, signers=("ida", "cas", "cyd")),
        DRAFT.replace("root = 2", "root = 3"),
        "needs 3 of 3 custodians",
    ),
    "a root threshold that nobody meets": (
        script(PEOPLE, signers=("ida",)),
        DRAFT,
        "needs 2 custodians, and 1 sign it",
    ),
    "an enrolment threshold of all": (
        script(PEOPLE),
        DRAFT.replace("enrolment = 2", "enrolment = 3"),
        "needs 3 of 3 enrollers",
    ),
    "a golden threshold above all": (
        script(PEOPLE),
        DRAFT.replace("golden = 2", "golden = 9"),
        "needs 9 of 3 enrollers",
    ),
    "another environment": (
        script(PEOPLE),
        DRAFT.replace('"production"', '"staging"'),
        "is of staging",
    ),
    "a share key that is too weak": (
        script(PEOPLE, suites={"sec1": "P256"}),
        DRAFT.replace("[thresholds]", 'weakest_suite = "P384"\n[thresholds]'),
        "officer sec1 has a share key weaker than P384",
    ),
    "a recovery key that it does not name": (
        script(PEOPLE, SplitRecovery(by="ida", among="2 of (ida, cas, cyd)")),
        DRAFT,
        "names no recovery key, and one is made before it",
    ),
    "shares of who is not there": (
        script(PEOPLE, SplitRecovery(by="ida", among="2 of (ida, eve, eva)")),
        RECOVERY + DRAFT,
        "more shares than its holders who are still here have",
    ),
    "shares of which each is needed": (
        script(PEOPLE, SplitRecovery(by="ida", among="2 of (ida, cas, eve)")),
        RECOVERY + DRAFT,
        "without him the recovery key is lost",
    ),
    "shares of those who approve": (
        script(PEOPLE, SplitRecovery(by="ida", among="2 of (sec1, sec2, ida)")),
        RECOVERY + DRAFT,
        "sec1, sec2 can approve a release, and all hold recovery shares",
    ),
    "a recovery key that is too weak": (
        script(PEOPLE, SplitRecovery(by="ida", among="2 of (ida, cas, cyd)", suite="P256")),
        RECOVERY + DRAFT.replace("[thresholds]", 'weakest_suite = "P384"\n[thresholds]'),
        "the recovery key is weaker than P384",
    ),
    "attested keys that it does not take": (
        vouched("sec1", attestation="required"),
        DRAFT,
        "takes no key that a vendor attests .vendor-attested., as the script has it of sec1",
    ),
    "keys that may be attested, and that it does not take": (
        vouched("sec2", attestation="accepted"),
        DRAFT,
        "takes no key that a vendor attests .vendor-attested., as the script has it of sec2",
    ),
    "attested keys alone, where one need not be": (
        vouched("sec1", attestation="required"),
        DRAFT.replace('["software"]\n[t', '["vendor-attested"]\n[t'),
        "takes only keys that vendors attest, which the script does not require of",
    ),
    "attested keys alone, where they may be": (
        vouched("everybody", attestation="accepted"),
        DRAFT.replace('["software"]\n[t', '["vendor-attested"]\n[t'),
        "takes only keys that vendors attest, which the script does not require of",
    ),
    "attested keys that are brought, and that it does not take": (
        brought("required"),
        DRAFT,
        "takes no key that a vendor attests .vendor-attested., as the script has it of bob.dsse",
    ),
    "years too long": (script(PEOPLE), DRAFT.replace("2027-12", "2029-12"), "thirteen months"),
}


@pytest.mark.parametrize(("held", "draft", "why"), LOCKED.values(), ids=LOCKED)
def test_what_would_lock_everybody_out_is_refused_first(
    tmp_path: Path, held: Script, draft: str, why: str
) -> None:
    """By the check that the policy's own step would fail, with not one key made."""
    with pytest.raises(Refused, match=why):
        tried(tmp_path, held, draft)


def test_what_cannot_be_tried_is_said(tmp_path: Path) -> None:
    """A draft or a root that is not there, one that is none, people who are to be brought."""
    assert "when all admissions" in tried(tmp_path, script(PEOPLE, files=("bob.dsse",)))
    with pytest.raises(Malformed, match="quorum"):
        tried(
            tmp_path,
            script(PEOPLE, files=("bob.dsse",)),
            DRAFT.replace("2 of (sec1, sec2, sec3)", "3 of (sec1, bob)"),
        )
    with pytest.raises(Malformed, match="not a valid draft"):
        tried(tmp_path, script(PEOPLE), "environment = 1")
    held = read_script(encode_script(script(PEOPLE)))
    (tmp_path / "draft.toml").write_text(DRAFT)
    (tmp_path / "vendor.pem").unlink()
    with pytest.raises(Unavailable):
        rehearse(held, beside=tmp_path, now=NOW)
    (tmp_path / "draft.toml").unlink()
    with pytest.raises(Incomplete, match="not here yet"):
        rehearse(held, beside=tmp_path, now=NOW)
    brought = read_script(encode_script(script(PEOPLE, files=("bob.dsse",))))
    assert "it is judged at its step" in rehearse(brought, beside=tmp_path, now=NOW)
