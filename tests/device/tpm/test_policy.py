"""The calculator against a TPM: every vector's digest, computed by TPM commands."""

from __future__ import annotations

import pytest
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE
from tpm2_pytss.types import (
    TPM2B_DIGEST,
    TPM2B_PUBLIC,
    TPML_DIGEST,
    TPML_PCR_SELECTION,
    TPMT_SIGNATURE,
)

from custody.crypto import tpmpolicy
from custody.crypto.quorum import minimal_sets
from custody.crypto.tpmpolicy import Or, Signed
from custody.formats.evidence import Alg, EcdsaSignature
from custody.formats.tpmwire import sized
from custody.keys.hostapi import HostTpm
from custody.keys.tpm_session import Connection, Tpm, unmarshal
from custody.lab.swtpm import Swtpm
from tests.unit.crypto.policies import COUNTER_INDEX, HEADERS, Case, case, officers_of
from tests.unit.crypto.vectors import Vector, each

#: A trial session looks at no signature, but wants one.
NO_SIGNATURE = EcdsaSignature(hash_alg=Alg.SHA256, r=bytes(31) + b"\1", s=bytes(31) + b"\1").pack()


def trial(link: Connection, known: Case, chosen: frozenset[str]) -> tuple[bytes, bytes]:
    """Return the digests after the quorum and after the whole policy, from a trial session."""
    esys = link.esys
    officers = officers_of(known.tree)
    session = link.keep(
        esys.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.TRIAL, "null", TPM2_ALG.SHA256)
    )
    names = tpmpolicy.key_names(officers)
    for step in tpmpolicy.steps(known.tree, chosen, names=names, ref=known.terms):
        match step:
            case Signed(leaf):
                public = sized(tpmpolicy.officer_key_public(officers[leaf]))
                officer = link.keep(esys.load_external(unmarshal(TPM2B_PUBLIC, public)))
                signature = unmarshal(TPMT_SIGNATURE, NO_SIGNATURE)
                esys.policy_signed(officer, session, signature, b"", b"", known.terms, 0)
                link.drop(officer)
            case Or(branches):
                esys.policy_or(session, TPML_DIGEST([TPM2B_DIGEST(each) for each in branches]))
    quorum = bytes(esys.policy_get_digest(session))
    conditions = known.conditions
    selection = unmarshal(TPML_PCR_SELECTION, tpmpolicy.pcr_selection(conditions.pcrs))
    esys.policy_pcr(session, conditions.pcr_digest, selection)
    counter = esys.tr_from_tpmpublic(COUNTER_INDEX)
    esys.policy_nv(counter, counter, session, conditions.counter_operand, tpmpolicy.EO_EQ)
    esys.policy_counter_timer(session, conditions.deadline_operand, tpmpolicy.EO_UNSIGNED_LT, 8)
    esys.policy_counter_timer(session, conditions.boot_operand, tpmpolicy.EO_EQ, 16)
    whole = bytes(esys.policy_get_digest(session))
    link.drop(session)
    return quorum, whole


@pytest.fixture
def tpm(machine: Swtpm, host: HostTpm) -> Tpm:
    """A TPM in which the vectors' counter exists."""
    host.allocate_counter(())
    return Tpm(machine.tcti)


@each("tpmpolicy/policies.txt", *HEADERS)
def test_a_tpm_computes_the_same_digests(tpm: Tpm, vector: Vector) -> None:
    """A trial session gives each vector's digests, whichever minimal set is shown to it."""
    known = case(vector)
    sets = minimal_sets(known.tree)
    for chosen in (sets[0], sets[len(sets) // 2], sets[-1]):
        with tpm.connect("try a policy") as link:
            assert (known.quorum, known.policy) == trial(link, known, chosen)
