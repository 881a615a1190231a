"""Officers whose tokens only have RSA: through a whole release, and where they are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from custody.crypto.keyslots import SuiteName, seal, slot_info
from custody.errors import Refused, Unavailable
from custody.formats.envelope import decode_statement
from custody.formats.manifest import KeySlot, Manifest
from custody.keys.profiles import library_paths, profile_named
from custody.keys.tpm import open_host
from custody.keys.uri import Pkcs11Uri, TpmUri
from custody.lab.softhsm import create_store, find_library, init_token, write_pin_file
from custody.lab.swtpm import Swtpm
from custody.ops.bundle import Bundle
from custody.ops.policy_words import describe
from custody.rules.manifest import check_manifest
from custody.rules.policy import check_policy
from tests.release.cast import Cast, PersonKeys, spki
from tests.release.conftest import running
from tests.release.test_recovery import broken, found, lose_every_officer, signed, words
from tests.release.test_release import same_tree
from tests.unit.crypto.vectors import ROOT

SHA1: SuiteName = "RSA2048_OAEP_SHA1"
SHA256: SuiteName = "RSA2048_OAEP_SHA256"
_CHIP = "tests.device.tpm.test_tpm2_pkcs11"
PINS = (b"31415926", b"271828")


def officer(name: str, suite: SuiteName) -> PersonKeys:
    """Make an officer with an RSA share key in software."""
    bits = 3072 if "3072" in suite else 2048
    keys = [rsa.generate_private_key(65537, bits)]
    return PersonKeys(name, ("officer",), [ec.generate_private_key(ec.SECP256R1())], keys, suite)


def bring(cast: Cast, *people: PersonKeys, weakest: SuiteName) -> None:
    """Put a policy in force in which these people have these keys."""
    for someone in people:
        cast.people[someone.name] = someone
        cast.certify(someone)
    everybody = sorted((p.principal() for p in cast.people.values()), key=lambda p: p.id)
    cast.refresh()
    cast.next_policy(principals=tuple(everybody), weakest_suite=weakest)


@pytest.fixture
def rsa_cast(cast: Cast) -> Cast:
    """A cast with two officers who only have RSA."""
    bring(cast, officer("sec1", SHA256), officer("lead2", SHA1), weakest=SHA1)
    return cast


def test_a_release_with_rsa_officers(rsa_cast: Cast, tmp_path: Path) -> None:
    """Shares sealed by OAEP open, are approved with and combine with those sealed by HPKE."""
    bundle = rsa_cast.seal()
    suites = {slot.suite for slot in bundle.statement.predicate.envelope.slots}
    assert {SHA1, SHA256, "P256"} == suites
    request = rsa_cast.request(bundle)
    answers = [rsa_cast.approve(bundle, request, who) for who in ("sec1", "sec3", "lead2")]
    opened = rsa_cast.open(bundle, request, answers, tmp_path / "out")
    assert same_tree(tmp_path / "model", tmp_path / "out")
    assert {"sec1", "sec3", "lead2"} == set(opened.officers)


@pytest.mark.parametrize("weakest", ["P256", "RSA3072_OAEP_SHA256", SHA256])
def test_a_policy_takes_no_weaker_suite_than_it_names(cast: Cast, weakest: SuiteName) -> None:
    """An officer with SHA-1 is refused wherever the policy names more, by his name."""
    someone = officer("sec1", SHA1)
    cast.people["sec1"] = someone
    verdicts = check_policy(cast.make_policy(weakest_suite=weakest))
    (fault,) = [v for v in verdicts if v.outcome == "fail"]
    assert ("policy.officers", True) == (fault.check, "sec1" in fault.reason)


@pytest.mark.parametrize(("weakest", "told"), [(SHA1, True), (SHA256, False), ("P256", False)])
def test_a_policy_that_takes_sha1_says_so(cast: Cast, weakest: SuiteName, told: bool) -> None:  # noqa: FBT001
    """Whoever reads a policy before he signs it is told what weak suite it takes."""
    said = "\n".join(describe(cast.make_policy(weakest_suite=weakest)))
    assert f"share keys are {weakest} or stronger" in said
    assert (told, weakest != "P256") == ("SHA-1" in said, "only have RSA" in said)


def test_nobody_is_admitted_to_a_policy_by_a_key_of_another_size(cast: Cast) -> None:
    """A key of 2048 bits is none for a suite of 3072, and one on a curve none for RSA."""
    for suite in ("RSA3072_OAEP_SHA256", "P256"):
        someone = officer("sec1", SHA256)
        someone.suite = suite
        cast.people["sec1"] = someone
        verdicts = check_policy(cast.make_policy(weakest_suite=SHA1))
        assert {"policy.keys-valid"} == {v.check for v in verdicts if v.outcome == "fail"}


def resealed(cast: Cast, bundle: Bundle, slots: list[KeySlot]) -> bytes:
    """Have the publisher sign a manifest with other slots."""
    manifest = bundle.statement.predicate
    ordered = tuple(sorted(slots, key=lambda s: (s.purpose, s.leaf, s.recipient)))
    envelope = msgspec.structs.replace(manifest.envelope, slots=ordered)
    return cast.sign(msgspec.structs.replace(manifest, envelope=envelope), "pub")


def test_a_slot_with_another_hash_than_the_key_s_is_refused(rsa_cast: Cast) -> None:
    """A publisher cannot seal by SHA-1 to who is listed with SHA-256."""
    bundle = rsa_cast.seal()
    slots = [
        msgspec.structs.replace(slot, suite=SHA1) if slot.suite == SHA256 else slot
        for slot in bundle.statement.predicate.envelope.slots
    ]
    manifest = decode_statement(Manifest, resealed(rsa_cast, bundle, slots))
    verdicts = check_manifest(manifest, rsa_cast.situation("sec2"))
    (fault,) = [v for v in verdicts if v.outcome == "fail"]
    assert ("manifest.slots", True) == (fault.check, "another suite" in fault.reason)


def test_an_old_bundle_by_sha1_is_refused_when_the_policy_wants_more(cast: Cast) -> None:
    """A bundle sealed when SHA-1 was taken is weaker than a later policy accepts."""
    bring(cast, officer("sec1", SHA1), weakest=SHA1)
    bundle = cast.seal()
    bring(cast, officer("sec1", SHA256), weakest=SHA256)
    verdicts = check_manifest(bundle.statement, cast.situation("sec2"))
    assert "manifest.slots" in {v.check for v in verdicts if v.outcome == "fail"}


@pytest.mark.parametrize("wrong", ["leaf", "hash", "cut", "nonsense"])
def test_a_bad_rsa_slot_is_no_approval(rsa_cast: Cast, wrong: str) -> None:
    """A slot of another leaf, by another hash inside, cut short or of nonsense opens nothing."""
    bundle = rsa_cast.seal()
    manifest = bundle.statement.predicate
    key, path = rsa_cast.people["sec1"], "0/0"
    slots = list(manifest.envelope.slots)
    (at,) = [n for n, s in enumerate(slots) if (s.purpose, s.suite) == ("share", SHA256)]
    assert path == slots[at].leaf
    info = slot_info(manifest.core.binding(), "share", path, slots[at].recipient)
    other = slot_info(manifest.core.binding(), "share", "0/1", slots[at].recipient)
    public = spki(key.sharing[0])
    sealed = {
        "leaf": seal(SHA256, public, None, bytes(64), info=other),
        "hash": seal(SHA1, public, None, bytes(64), info=info),
        "cut": slots[at].sealed[:-1],
        "nonsense": seal(SHA256, public, None, bytes(64), info=info),
    }[wrong]
    slots[at] = msgspec.structs.replace(slots[at], sealed=sealed)
    (bundle.path / "manifest.dsse").write_bytes(resealed(rsa_cast, bundle, slots))
    bundle = Bundle.at(bundle.path)
    request = rsa_cast.request(bundle)
    with pytest.raises(Refused) as caught:
        rsa_cast.approve(bundle, request, "sec1")
    assert ("share.commitment" if wrong == "nonsense" else "slot.open") == caught.value.check
    # His colleagues' shares are none the worse.
    rsa_cast.approve(bundle, request, "sec2")


def test_an_rsa_officer_reads_the_contents(rsa_cast: Cast) -> None:
    """The contents key is sealed to him as his share is; another's key opens neither."""
    bundle = rsa_cast.seal()
    assert "tiny" == bundle.contents_for(rsa_cast.people["sec1"].opener).name
    with pytest.raises(Refused):
        bundle.contents_for(officer("sec1", SHA256).opener)


def test_the_glass_is_broken_to_rsa_officers(cast: Cast, tmp_path: Path) -> None:
    """Break-glass re-wraps a bundle to officers whose tokens only have RSA."""
    made = found(cast)
    bundle = cast.seal()
    lose_every_officer(cast)
    bring(cast, officer("new1", SHA256), officer("new2", SHA1), weakest=SHA1)
    done = broken(cast, bundle, made, words(made, "cus3", "enr1", "cus1", "enr3"))
    again = signed(cast, bundle, done, tmp_path / "again")
    request = cast.request(again)
    answers = [cast.approve(again, request, who) for who in ("new1", "new2")]
    cast.open(again, request, answers, tmp_path / "out")
    assert same_tree(tmp_path / "model", tmp_path / "out")


# ── real tokens ──────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def tokens(
    manufactured: tuple[Path, Path], tmp_path: Path
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Two tokens that only have RSA for an officer, and the environment in which they are seen.

    tpm2-pkcs11 in front of a TPM does SHA-256; SoftHSM does SHA-1 alone.
    """
    found = [path for path in library_paths(profile_named("tpm2-pkcs11")) if path.is_file()]
    with suppress(Unavailable):
        found.append(find_library())
    if len(found) < 2:
        pytest.skip("tpm2-pkcs11 and SoftHSM are not both installed")
    store = create_store(tmp_path / "softhsm")
    soft = init_token(store, "old", so_pin=PINS[0], user_pin=PINS[1])
    pin = write_pin_file(tmp_path / "pin", PINS[1])
    (tmp_path / "tpm2").mkdir(mode=0o700)
    with running(manufactured) as chip:
        environment = {
            **os.environ,
            **store.environment,
            "TPM2_PKCS11_STORE": str(tmp_path / "tpm2"),
            "TPM2_PKCS11_TCTI": chip.tcti,
            "TPM2_PKCS11_LOG_LEVEL": "0",
            "TSS2_LOG": "all+NONE",
        }
        child(["-c", f"from {_CHIP} import initialise; initialise({str(found[0])!r})"], environment)
        first = Pkcs11Uri(token="tpm", module_name="tpm2-pkcs11", pin_source=str(pin))
        second = Pkcs11Uri(token=soft.token, module_name="softhsm2", pin_source=str(pin))
        yield [str(first), "RSA3072_OAEP_SHA256", str(second), SHA1], environment


def child(words: list[str], environment: dict[str, str]) -> str:
    """Run Python that sees the tokens: their libraries read the environment once per process."""
    done = subprocess.run(
        [sys.executable, *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_a_release_with_officers_in_real_rsa_tokens(
    machine: Swtpm, tokens: tuple[list[str], dict[str, str]], tmp_path: Path
) -> None:
    """Approved with shares opened in tpm2-pkcs11 and in SoftHSM, opened in a TPM, and audited."""
    words, environment = tokens
    folder = tmp_path / "world"
    folder.mkdir()
    said = child(
        ["-m", __name__, str(folder), str(machine.directory), str(machine.vendor), *words],
        environment,
    )
    assert "lead2, sec1, sec3: sound\n" == said


def main(folder: str, directory: str, vendor: str, *words: str) -> None:
    """Play the release; what was wrong is an error."""
    from custody.crypto.oaepslots import parameters_of
    from custody.formats.case import Documents, merge, sort_documents
    from custody.keys.api import KeyRole
    from custody.keys.pkcs11 import open_token
    from custody.keys.uri import parse_key_uri
    from custody.ops.audit import audit_case

    machine = Swtpm(Path(directory), Path(vendor))
    cast = Cast(Path(folder), machine, open_host(TpmUri(tcti=machine.tcti)))
    cast.boot()
    cast.enrol()
    people = []
    for name, uri, suite in zip(("sec1", "sec3"), words[::2], words[1::2], strict=True):
        named = parse_key_uri(uri)
        parameters = parameters_of(suite)
        assert isinstance(named, Pkcs11Uri)
        assert parameters is not None
        token = open_token(named)
        signing = token.make(KeyRole.SIGN, f"{name} sign", ec.SECP256R1())
        sharing = token.decrypting().make(f"{name} share", parameters)
        people.append(PersonKeys(name, ("officer",), [signing], [sharing], suite))  # type: ignore[arg-type]
    bring(cast, *people, weakest=SHA1)
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in ("sec1", "sec3", "lead2")]
    opened = cast.open(bundle, request, answers, Path(folder) / "out")
    assert same_tree(Path(folder) / "model", Path(folder) / "out")
    files = [(f"a{n}.dsse", data) for n, data in enumerate(answers)]
    files += [
        ("receipt.dsse", opened.receipt_data),
        ("burn.dsse", opened.burn_data),
        ("manifest.dsse", (bundle.path / "manifest.dsse").read_bytes()),
    ]
    case = merge(cast.documents, sort_documents(files))
    report = audit_case(merge(case, Documents(requests=(request,))), pin=cast.pin)
    end = "sound" if report.sound else "unsound"
    sys.stdout.write(f"{', '.join(sorted(opened.officers))}: {end}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
