"""Two requests of one host on one set of terms: to the TPM, and so to us, they are one."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from custody.crypto.keyslots import approval_info
from custody.crypto.keyslots import open as open_slot
from custody.crypto.tpmpolicy import host_policy
from custody.errors import Refused
from custody.formats.approval import Approval
from custody.formats.envelope import Statement
from custody.formats.request import Creation, Request
from custody.keys.hostapi import HostKey, HostPolicyPlan
from custody.ops.bundle import Bundle
from custody.rules.attestation import conditions_of
from custody.rules.quorum import signing_path, signing_tree
from tests.release.cast import PCRS, Cast, as_approval
from tests.release.expect import QUORUM, requoted, share_in, tallied


def twin(cast: Cast, request: Statement[Request]) -> tuple[HostKey, Statement[Request]]:
    """Make another H, and so another request, for the terms of this one."""
    tree, officers = signing_tree(cast.situation("host").trusted.policy)
    (golden,) = cast.documents.golden_sets
    terms = request.predicate.terms
    conditions = conditions_of(terms, golden.predicate)
    policy = host_policy(tree, officers, terms=terms.digest(), conditions=conditions)
    made = cast.tpm.create_host_key(policy, PCRS)
    attested = cast.tpm.certify_creation(made, terms.digest())
    key = Creation(
        public=made.public,
        parent_public=made.parent_public,
        creation_data=made.creation_data,
        attest=attested.attest,
        signature=attested.signature,
    )
    return made, requoted(cast, request, key=key)


def plan_of(
    cast: Cast, request: Statement[Request], answers: Mapping[str, Statement[Approval]]
) -> HostPolicyPlan:
    """Show the TPM the signatures of these answers, whichever request each is to."""
    policy = cast.situation("host").trusted.policy
    tree, officers = signing_tree(policy)
    (golden,) = cast.documents.golden_sets
    terms = request.predicate.terms
    signatures = {
        signing_path(policy, cast.people[who].signer.key_id) or "": said.predicate.terms_signature
        for who, said in answers.items()
    }
    return HostPolicyPlan(
        tree=tree,
        officers=officers,
        signatures=signatures,
        terms=terms.digest(),
        conditions=conditions_of(terms, golden.predicate),
        counter_index=cast.place.ledger.find(request.digest).counter_index,
    )


def share_from(
    cast: Cast, key: HostKey, plan: HostPolicyPlan, answer: Statement[Approval], who: str
) -> bytes:
    """Open the share ‖ salt in an approval in the TPM."""
    said = answer.predicate
    info = approval_info(said.request, said.leaf, cast.people[who].signer.key_id)
    opened = cast.tpm.open_host_key(key, plan)
    return open_slot("P384", opened, None, said.sealed_share, info=info)


def split_quorum(
    cast: Cast, bundle: Bundle
) -> tuple[Statement[Request], dict[str, HostKey], dict[str, Statement[Approval]]]:
    """Have a quorum approve, one officer this request and the others its twin."""
    request = cast.request(bundle)
    other, again = twin(cast, request)
    asked = dict.fromkeys(QUORUM, (other, again))
    asked[QUORUM[0]] = (cast.place.ledger.find(request.digest).host_key, request)
    answers = {who: as_approval(cast.approve(bundle, to, who)) for who, (_, to) in asked.items()}
    return request, {who: key for who, (key, _) in asked.items()}, answers


def test_one_set_of_terms_is_one_question(cast: Cast) -> None:
    """Approvals of two requests on the same terms add up: all of them said yes to those terms."""
    bundle = cast.seal()
    request, keys, answers = split_quorum(cast, bundle)
    plan = plan_of(cast, request, answers)
    for who in QUORUM:
        wanted = share_in(cast, bundle, who)
        assert wanted == share_from(cast, keys[who], plan, answers[who], who)


def test_one_burn_burns_both(cast: Cast) -> None:
    """However many keys were made for one set of terms, its one counter ends them all."""
    request, keys, answers = split_quorum(cast, cast.seal())
    plan = plan_of(cast, request, answers)
    cast.tpm.increment(plan.counter_index)
    for who in QUORUM:
        with pytest.raises(Refused) as caught:
            share_from(cast, keys[who], plan, answers[who], who)
        assert "tpm.counter" == caught.value.check


def test_a_no_is_to_the_terms(cast: Cast) -> None:
    """Who denied a request cannot be made to approve another one on the same terms."""
    bundle = cast.seal()
    request = cast.request(bundle)
    _, again = twin(cast, request)
    assert request.digest != again.digest
    answer = cast.approve(bundle, again, "sec1")
    denial = cast.deny(bundle, request, "sec1")
    tally = tallied(cast, bundle, again, answer, denial)
    assert () == tally.counted
    assert ["sec1"] == [denied.officer for denied in tally.denials]
    assert msgspec.structs.asdict(request.predicate.terms) == msgspec.structs.asdict(
        again.predicate.terms
    )
