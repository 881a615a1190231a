"""What was measured on a token, what that lets it be, and where its profile says otherwise.

Pure: the measuring is done by the device's adapter.  Advertised is not the same as works, in both
directions, so every answer here is of something that was done to the token, with throw-away
objects, and of nothing that it claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from custody.encoding import Record
from custody.formats.policy import TokenClass
from custody.keys.profiles import Profile

Answer = Literal["yes", "no", "untested"]
Duty = Literal["officer", "publisher", "site", "ca", "kek"]
Verdict = Literal["can", "cannot", "not-shown"]

#: What is measured, in the order it is shown; "yes" is what we would like to hear.
MEASURES: Mapping[str, str] = MappingProxyType(
    {
        "ec.p256": "makes a P-256 key pair",
        "ec.p384": "makes a P-384 key pair",
        "ec.p521": "makes a P-521 key pair",
        "template.full": "takes a signing key's full template and reads it back unchanged",
        "ecdsa.digest": "signs a digest (CKM_ECDSA)",
        "ecdsa.message": "hashes and signs a message (CKM_ECDSA_SHA256)",
        "eddsa.oid": "makes an Ed25519 key named by its OID (RFC 8410)",
        "eddsa.name": 'makes an Ed25519 key named "edwards25519"',
        "ecdh.raw": "agrees with a point given bare (CKM_ECDH1_DERIVE)",
        "ecdh.der": "agrees with a point given in an OCTET STRING",
        "ecdh.p384": "agrees on P-384",
        "ecdh.kdf-sha256": "derives by the X9.63 function over SHA-256",
        "oaep.sha1": "decrypts RSA-OAEP with SHA-1",
        "oaep.sha256": "decrypts RSA-OAEP with SHA-256",
        "oaep.sha384": "decrypts RSA-OAEP with SHA-384",
        "oaep.sha512": "decrypts RSA-OAEP with SHA-512",
        "oaep.label": "decrypts RSA-OAEP with a label",
        "aes.gcm": "encrypts with AES-GCM",
        "kw": "wraps a 32-byte key and gives it back (AES-KW, RFC 3394)",
        "kwp": "wraps a 32-byte key and gives it back (AES-KWP, RFC 5649)",
        "kwp.length": "gives 33 wrapped bytes back as 33",
        "template.kek": "takes a key-encryption key's full template and reads it back unchanged",
        "enforces.allowed-mechanisms": "refuses a mechanism that a key does not allow",
        "enforces.modifiable": "refuses to change a key that is not MODIFIABLE",
        "enforces.copyable": "refuses to copy a key that is not COPYABLE",
        "enforces.sensitive": "refuses to make a SENSITIVE key readable",
        "enforces.extractable": "refuses to make a key EXTRACTABLE that is not",
        "enforces.wrap-with-trusted": "refuses to wrap a WRAP_WITH_TRUSTED key by an untrusted one",
        "enforces.trusted": "refuses TRUSTED from a user",
        "enforces.unwrap-template": "refuses to unwrap what departs from UNWRAP_TEMPLATE",
        "enforces.wrap-decrypt": "refuses to make a key that may WRAP and DECRYPT",
        "always-authenticate.sign": "asks again before an ALWAYS_AUTHENTICATE key signs",
        "always-authenticate.derive": "asks again before an ALWAYS_AUTHENTICATE key derives",
        "always-authenticate.decrypt": "asks again before an ALWAYS_AUTHENTICATE key decrypts",
        "always-authenticate.unwrap": "asks again before an ALWAYS_AUTHENTICATE key unwraps",
        "kept.sign": "makes and keeps a signing key by its full template, and signs with it",
        "kept.secret": "gives no key away that it keeps, whatever flags are set",
        "kept.oaep-sha256": "makes an RSA share key by its full template, and opens OAEP (SHA-256)",
        "kept.oaep-sha1": "makes an RSA share key by its full template, and opens OAEP (SHA-1)",
        "process.threads": "serves four threads at once without our lock",
        "process.fork": "keeps its login from a forked child",
    }
)


class Measured(Record, frozen=True):
    """One answer."""

    id: str
    answer: Answer
    detail: str
    """What the token said, or why it was not asked; empty where "yes" says it all."""


class Fitness(Record, frozen=True):
    """Whether the token can do one duty, and why."""

    duty: Duty
    verdict: Verdict
    because: tuple[str, ...]


class Difference(Record, frozen=True):
    """Where the token and its profile disagree."""

    id: str
    expected: str
    found: str
    source: str
    """Where the profile has it from."""


class ProbeReport(Record, frozen=True):
    """Everything one probe found.  The same token gives the same report: no time is in it."""

    kind: Literal["custody/token-probe/v1"]
    label: str
    manufacturer: str
    model: str
    serial: str
    firmware: str
    library: str
    profile: str
    token_class: TokenClass
    mechanisms: tuple[str, ...]
    """What it advertises, by name or number, sorted; nothing below relies on it."""
    measured: tuple[Measured, ...]
    fitness: tuple[Fitness, ...]
    differences: tuple[Difference, ...]


def fitness(measured: Mapping[str, Measured], profile: Profile) -> tuple[Fitness, ...]:
    """Say which duties the token can do.  One "no" to what a duty needs is a cannot."""
    agrees = "ecdh.der" if profile.ecdh_point == "der" else "ecdh.raw"
    signs = ("ec.p256", "template.full", "ecdsa.digest")
    holds = ("enforces.sensitive", "enforces.extractable")
    needs: dict[Duty, tuple[str, ...]] = {
        "ca": ("ec.p384", "template.full", "ecdsa.digest", "enforces.extractable"),
        "kek": (
            "template.kek",
            "kwp",
            "enforces.allowed-mechanisms",
            "enforces.modifiable",
            "enforces.sensitive",
            "enforces.extractable",
            "enforces.trusted",
            "enforces.wrap-with-trusted",
        ),
    }
    # A share key agrees on a curve or decrypts; a token that only decrypts shows what it keeps.
    kept = measured["kept.sign"].answer != "untested"
    base = ("kept.sign", "kept.secret") if kept else (*signs, *holds)
    sharing = [(*signs, agrees, *holds)]
    sharing += [(*base, id_) for id_ in ("kept.oaep-sha256", "kept.oaep-sha1")]
    shares = tuple(_fit_best(duty, sharing, measured) for duty in _SHARING)
    return shares + tuple(_fit(duty, wanted, measured) for duty, wanted in needs.items())


_SHARING: tuple[Duty, ...] = ("officer", "publisher", "site")


def _fit_best(
    duty: Duty, ways: Sequence[tuple[str, ...]], measured: Mapping[str, Measured]
) -> Fitness:
    """Take the first way that shows the duty; where none does, say why the first does not.

    A way with nothing to say for it but what was left out shows nothing.
    """
    found = [_fit(duty, way, measured) for way in ways]
    able = [fit for fit in found if fit.verdict == "can"]
    return able[0] if able else found[0]


def _fit(duty: Duty, wanted: tuple[str, ...], measured: Mapping[str, Measured]) -> Fitness:
    answers = [measured[id_] for id_ in wanted]
    refused = [item for item in answers if item.answer == "no"]
    unasked = [item for item in answers if item.answer == "untested"]
    verdict: Verdict = "cannot" if refused else "not-shown" if unasked else "can"
    if verdict == "can":
        return Fitness(duty=duty, verdict=verdict, because=tuple(MEASURES[id_] for id_ in wanted))
    told = [f"not so: {MEASURES[item.id]}{_aside(item)}" for item in refused]
    told += [f"not measured: {MEASURES[item.id]}{_aside(item)}" for item in unasked]
    return Fitness(duty=duty, verdict=verdict, because=tuple(told))


def _aside(item: Measured) -> str:
    return f" ({item.detail})" if item.detail else ""


def differences(
    measured: Mapping[str, Measured], mechanisms: frozenset[str], profile: Profile
) -> tuple[Difference, ...]:
    """List where a profile and the token disagree; what was not measured disagrees with nothing."""
    found = [
        Difference(
            id=f"mechanism.{name}",
            expected="offered",
            found="missing",
            source=profile.mechanisms_source,
        )
        for name in profile.mechanisms
        if name not in mechanisms
    ]
    for claim in profile.behaviour:
        item = measured[claim.id]
        if item.answer not in ("untested", claim.answer):
            found.append(
                Difference(
                    id=claim.id, expected=claim.answer, found=item.answer, source=claim.source
                )
            )
    return tuple(found)
