"""The numbers of the TCG's EK templates follow from their words."""

from __future__ import annotations

import hashlib

import pytest

from custody.formats.evidence import Alg
from custody.formats.tpmek import EK_TEMPLATES, POLICY_NV, POLICY_SECRET, EkTemplate
from custody.formats.tpmwire import sized, u16, u32

HASHES = {Alg.SHA256: "sha256", Alg.SHA384: "sha384"}
#: TPM2_PolicySecret, TPM2_PolicyAuthorizeNV and TPM2_PolicyOR (part 2 section 6.5.2).
SECRET, AUTHORIZE_NV, OR = 0x151, 0x192, 0x171
RH_ENDORSEMENT = 0x4000000B
#: The indexes of the profile for PolicyAuthorizeNV, and their attributes: written, policy to
#: write, to read and to delete, owner's and own authorisation to read, no dictionary attack.
POLICY_INDEXES = {Alg.SHA256: 0x01C07F01, Alg.SHA384: 0x01C07F02}
POLICY_ATTRIBUTES = 0x220F1008


def hashed(alg: Alg, *parts: bytes) -> bytes:
    """Hash as a template of this name hash does."""
    return hashlib.new(HASHES[alg], b"".join(parts)).digest()


def start(alg: Alg) -> bytes:
    """Return what every policy digest begins with."""
    return bytes(hashlib.new(HASHES[alg]).digest_size)


@pytest.mark.parametrize("alg", HASHES)
def test_policy_a_is_the_secret_of_the_endorsement_hierarchy(alg: Alg) -> None:
    """PolicyA is extended by the command, the hierarchy's Name and an empty policyRef."""
    inner = hashed(alg, start(alg), u32(SECRET), u32(RH_ENDORSEMENT))
    assert POLICY_SECRET[alg] == hashed(alg, inner)


@pytest.mark.parametrize("alg", HASHES)
def test_policy_c_is_the_index_that_the_profile_sets_aside(alg: Alg) -> None:
    """PolicyC names an index whose public area the profile gives."""
    size = len(start(alg)) + 2
    public = (
        u32(POLICY_INDEXES[alg])
        + u16(alg)
        + u32(POLICY_ATTRIBUTES)
        + sized(POLICY_SECRET[alg])
        + u16(size)
    )
    name = u16(alg) + hashed(alg, public)
    assert POLICY_NV[alg] == hashed(alg, start(alg), u32(AUTHORIZE_NV), name)


@pytest.mark.parametrize("template", EK_TEMPLATES, ids=lambda template: template.label)
def test_a_template_has_the_policy_of_its_range(template: EkTemplate) -> None:
    """Low templates have PolicyA; high ones PolicyB, which PolicyOR of its branches gives."""
    alg, policy = template.public.name_alg, template.public.auth_policy
    if template.label.startswith("L"):
        assert (POLICY_SECRET[alg], None) == (policy, template.branches)
        return
    assert template.branches is not None
    assert policy == hashed(alg, start(alg), u32(OR), *template.branches)


def test_every_template_has_a_place_of_its_own() -> None:
    """No two templates share an NV index or a handle."""
    places = [t.certificate for t in EK_TEMPLATES] + [t.persistent for t in EK_TEMPLATES]
    places += [t.nonce for t in EK_TEMPLATES if t.nonce is not None]
    assert len(places) == len(set(places))
