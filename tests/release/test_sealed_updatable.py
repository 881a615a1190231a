"""A key that is kept over updates: who lets it open in what, and how that ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.certificates import spki_of
from custody.errors import Refused
from custody.formats.authorisation import Authorisation
from custody.formats.case import merge, sort_documents
from custody.formats.envelope import Statement, decode_statement
from custody.formats.evidence import ek_public, name
from custody.formats.goldenset import GoldenSet
from custody.formats.policy import Mode, Role, Thresholds
from custody.keys import tpm_session
from custody.keys.hostapi import AuthorisedState
from custody.keys.tpm import open_host
from custody.keys.uri import TpmUri
from custody.lab import bootlog
from custody.ops.bundle import Bundle
from custody.ops.golden import approve_state, authorise_state, measure
from custody.ops.kept import Kept, _end, forget, prune
from custody.ops.keys import Signer
from custody.ops.predict import predict
from custody.ops.unseal import KeptStanding, kept_standing
from tests.release.cast import NOW, PCRS, Cast
from tests.release.conftest import fresh
from tests.release.expect import QUORUM, audit, case_of, failed, refused
from tests.release.test_release import same_tree
from tests.release.test_sealed import TAKEN_BACK, only, restart, unseal

MODE: Mode = "sealed-updatable"
UPDATED = bootlog.BootState(loader="lab boot loader 2.07")
NEXT = bootlog.BootState(loader="lab boot loader 2.08")
EVIL = bootlog.BootState(loader="evil loader")


@pytest.fixture
def cast(cast: Cast) -> Cast:
    """Give a cast whose policy lets hosts keep keys over updates."""
    cast.next_policy(modes=("once", "sealed", MODE))
    return cast


def kept(cast: Cast, label: str = "model") -> Bundle:
    """Release a bundle to a host that keeps its key."""
    bundle = cast.seal(label)
    request = cast.request(bundle, mode=MODE)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.open(bundle, request, answers, cast.folder / f"{label}.first")
    return bundle


def vouch(
    cast: Cast,
    state: bootlog.BootState,
    epoch: int,
    *,
    oldest: int = 1,
    who: tuple[str, ...] = ("enr1", "enr2", "enr3"),
) -> Statement[GoldenSet]:
    """Have enrollers who measured a machine in that state sign it as the next epoch."""
    log = bootlog.record(state)
    values = bootlog.pcrs(log)

    class Machine:
        def pcr_values(self, pcrs: tuple[int, ...]) -> tuple[bytes, ...]:
            return tuple(values[pcr] for pcr in pcrs)

    measurement = measure(Machine(), pcrs=PCRS, now=NOW, event_log=log)
    made: Statement[GoldenSet] | None = None
    data = b""
    for one in who:
        data = approve_state(
            measurement,
            signer=cast.people[one].signer,
            situation=cast.situation(one),
            name="lab-6.1",
            notes="",
            epoch=epoch,
            oldest=oldest,
            onto=made,
        )
        made = decode_statement(GoldenSet, data)
    assert made is not None
    add(cast, data)
    return made


def add(cast: Cast, *files: bytes) -> None:
    """Put statements into the environment's folder."""
    found = sort_documents([(f"{n}.dsse", data) for n, data in enumerate(files)])
    cast.documents = merge(cast.documents, found)


def authorise(cast: Cast, golden: Statement[GoldenSet], *who: str) -> None:
    """Have enrollers authorise a golden set that they signed."""
    for one in who:
        signer, situation = cast.people[one].signer, cast.situation(one)
        add(cast, authorise_state(golden, signer=signer, situation=situation))


def standing(cast: Cast) -> KeptStanding:
    """Say how the one kept key stands."""
    return kept_standing(
        only(cast), tpm=cast.tpm, place=cast.place, situation=cast.situation("host")
    )


def test_a_kept_key_follows_an_update(cast: Cast) -> None:
    """In a new state it opens once two enrollers authorised it, without a new release."""
    bundle = kept(cast)
    restart(cast, UPDATED)
    with refused(cast, "tpm.pcr"):
        unseal(cast, bundle, cast.folder / "unknown")
    golden = vouch(cast, UPDATED, 2)
    with refused(cast, "retained.authorised"):
        unseal(cast, bundle, cast.folder / "vouched")
    authorise(cast, golden, "enr1")
    with pytest.raises(Refused, match="by enr1; it needs 2 of enr1, enr2, enr3"):
        unseal(cast, bundle, cast.folder / "one")
    authorise(cast, golden, "enr2")
    for turn in range(2):
        unseal(cast, bundle, cast.folder / f"out-{turn}")
        assert same_tree(cast.folder / "model", cast.folder / f"out-{turn}")
        restart(cast, UPDATED)
    # The update goes round: the state before it is in use until a golden set ends it.
    restart(cast)
    unseal(cast, bundle, cast.folder / "back")


def test_it_follows_update_after_update(cast: Cast) -> None:
    """Each golden set retires the one before; what was kept once goes on."""
    bundle = kept(cast)
    for epoch, state in ((2, UPDATED), (3, NEXT)):
        authorise(cast, vouch(cast, state, epoch, oldest=epoch), "enr1", "enr2")
        restart(cast, state)
        unseal(cast, bundle, cast.folder / f"out-{epoch}")
        assert same_tree(cast.folder / "model", cast.folder / f"out-{epoch}")
        assert epoch == standing(cast).oldest


def test_a_retired_state_is_dead_in_the_tpm(cast: Cast) -> None:
    """Once a host has seen a golden set retire a state, its TPM opens nothing in it, ever."""
    bundle = kept(cast)
    second = vouch(cast, UPDATED, 2)
    authorise(cast, second, "enr1", "enr2")
    restart(cast, UPDATED)
    unseal(cast, bundle, cast.folder / "second")
    before = cast.documents
    authorise(cast, vouch(cast, NEXT, 3, oldest=3), "enr2", "enr3")
    restart(cast, NEXT)
    unseal(cast, bundle, cast.folder / "third")

    cast.documents = before
    for state, check in ((UPDATED, "golden.epoch"), (None, "golden.epoch")):
        restart(cast, state)
        # By what this host remembers, though the newer golden set is taken out of the folder.
        with refused(cast, check):
            unseal(cast, bundle, cast.folder / "old")
    # With every check of ours left out the TPM says no by itself.
    with pytest.raises(Refused) as caught:
        cast.tpm.unseal_retained(only(cast).key)
    assert "tpm.epoch" == caught.value.check
    restart(cast, UPDATED)
    with pytest.raises(Refused) as caught:
        cast.tpm.unseal_shares(only(cast).key, shown_of(cast, second))
    assert "tpm.epoch" == caught.value.check


def shown_of(cast: Cast, golden: Statement[GoldenSet]) -> tuple[AuthorisedState, ...]:
    """Return what a program without any rule would show the TPM of a golden set."""
    updates = only(cast).key.updates
    assert updates is not None
    holders = {key: n for n, share in enumerate(updates.shares) for key in share.keys}
    policy = cast.situation("host").trusted.policy
    shown = []
    for statement in cast.documents.authorisations:
        key = policy.signing_key(statement.envelope.signatures[0].keyid)
        if statement.predicate.golden == golden.digest and key is not None:
            shown.append(
                AuthorisedState(
                    share=holders[key.spki],
                    spki=key.spki,
                    epoch=golden.predicate.epoch,
                    pcrs=golden.predicate.selection(),
                    pcr_digest=bytes.fromhex(golden.predicate.pcr_digest()),
                    signature=statement.predicate.state_signature,
                )
            )
    return tuple(shown)


def test_a_state_is_retired_though_the_host_may_not_open(cast: Cast) -> None:
    """A refusal comes after the counter is raised: later nobody can leave the new set out."""
    bundle = kept(cast)
    vouch(cast, UPDATED, 2, oldest=2)
    with refused(cast, "golden.epoch"):
        unseal(cast, bundle, cast.folder / "out")
    with pytest.raises(Refused) as caught:
        cast.tpm.unseal_retained(only(cast).key)
    assert "tpm.epoch" == caught.value.check


def test_a_state_is_retired_in_the_enrolled_tpm(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever certificate the bus shows, sessions are salted to the EK that was enrolled.

    Somebody on the bus with a TPM of his own could else say there that the counter was raised.
    """
    bundle = kept(cast)
    vouch(cast, UPDATED, 2, oldest=2)
    (record,) = cast.documents.enrolments
    enrolled = ek_public(spki_of(record.predicate.ek_certificate))
    with fresh(cast.machine.vendor) as other:
        stranger = open_host(TpmUri(tcti=other.tcti)).ek_certificate()
    salted: list[bytes] = []
    real = tpm_session.Connection.salted_session

    def watched(link: tpm_session.Connection, **how: Any) -> Any:
        salted.append(link.endorsement_key.public)
        return real(link, **how)

    monkeypatch.setattr(tpm_session, "read_ek_certificate", lambda _link: stranger)
    monkeypatch.setattr(tpm_session.Connection, "salted_session", watched)
    cast.tpm = open_host(TpmUri(tcti=cast.machine.tcti))
    with refused(cast, "golden.epoch"):
        unseal(cast, bundle, cast.folder / "out")
    assert {enrolled} == set(salted)
    with pytest.raises(Refused) as caught:
        open_host(TpmUri(tcti=cast.machine.tcti)).salted_to(
            spki_of(record.predicate.ek_certificate)
        ).unseal_retained(only(cast).key)
    assert "tpm.epoch" == caught.value.check


def test_the_same_state_under_a_new_epoch(cast: Cast) -> None:
    """A state that is vouched for again needs authorisations for its new epoch, and has them."""
    bundle = kept(cast)
    golden = vouch(cast, bootlog.BootState(), 2, oldest=2)
    with refused(cast, "retained.authorised"):
        unseal(cast, bundle, cast.folder / "out")
    authorise(cast, golden, "enr1", "enr3")
    restart(cast)
    unseal(cast, bundle, cast.folder / "out")


def test_another_state_is_refused_by_register_and_component(cast: Cast) -> None:
    """After an update too, what differs from the newest golden set is named."""
    bundle = kept(cast)
    authorise(cast, vouch(cast, UPDATED, 2), "enr1", "enr2")
    restart(cast, EVIL)
    with pytest.raises(Refused, match=r"epoch 2: pcr 4 differ.*by its log") as caught:
        unseal(cast, bundle, cast.folder / "out")
    assert "tpm.pcr" == caught.value.check


def test_a_draft_hides_no_golden_set(cast: Cast) -> None:
    """A newer set for the same state that one enroller signed is not what is asked of others."""
    bundle = kept(cast)
    authorise(cast, vouch(cast, UPDATED, 2), "enr1", "enr2")
    vouch(cast, UPDATED, 3, who=("enr3",))
    restart(cast, UPDATED)
    unseal(cast, bundle, cast.folder / "out")


def test_an_old_golden_set_need_not_be_carried_for_ever(cast: Cast) -> None:
    """In a later state the one it was released to is in nobody's folder any more, and it opens."""
    bundle = kept(cast)
    golden = vouch(cast, UPDATED, 2, oldest=2)
    authorise(cast, golden, "enr1", "enr2")
    cast.documents = replace(cast.documents, golden_sets=(golden,))
    restart(cast, UPDATED)
    unseal(cast, bundle, cast.folder / "out")
    assert ("lab-6.1", 1, True) == (
        standing(cast).golden,
        standing(cast).epoch,
        standing(cast).opens,
    )


def test_before_the_update_it_is_told_who_authorised_it(cast: Cast) -> None:
    """`predict` says of a state to come whether kept keys would open, where the policy has them."""
    golden = vouch(cast, UPDATED, 2)

    def told() -> tuple[tuple[str, ...], int | None]:
        (found,) = predict(
            [golden],
            tpm=cast.tpm,
            event_log=cast.event_log,
            situation=cast.situation("host"),
        )
        return found.authorised, found.needed

    assert ((), 2) == told()
    authorise(cast, golden, "enr2", "enr1")
    assert (("enr1", "enr2"), 2) == told()
    cast.next_policy(modes=("once", "sealed"))
    assert None is told()[1]


# ── whose word counts ────────────────────────────────────────────────────────────────────────────


def stranger_says(cast: Cast, golden: Statement[GoldenSet], who: str = "enr2") -> Authorisation:
    """Return what an enroller would say, to be said by somebody else."""
    signer, situation = cast.people[who].signer, cast.situation(who)
    data = authorise_state(golden, signer=signer, situation=situation)
    return decode_statement(Authorisation, data).predicate


def by_a_custodian(cast: Cast, golden: Statement[GoldenSet]) -> None:
    """A custodian signs in an enroller's place."""
    add(cast, cast.people["cus1"].signer.statement(stranger_says(cast, golden)))


def by_an_enroller_twice(cast: Cast, golden: Statement[GoldenSet]) -> None:
    """One enroller signs at two times."""
    said = stranger_says(cast, golden, "enr1")
    later = msgspec.structs.replace(said, authorised_at=NOW + timedelta(minutes=1))
    add(cast, cast.people["enr1"].signer.statement(later))


def by_a_stranger(cast: Cast, golden: Statement[GoldenSet]) -> None:
    """Somebody with a key of his own signs."""
    stranger = Signer(ec.generate_private_key(ec.SECP256R1()))
    add(cast, stranger.statement(stranger_says(cast, golden)))


def with_anothers_signature(cast: Cast, golden: Statement[GoldenSet]) -> None:
    """An enroller passes on as his own what another signed for TPMs."""
    said = stranger_says(cast, golden, "enr1")
    add(cast, cast.people["enr2"].signer.statement(said))


def of_another_environment(cast: Cast, golden: Statement[GoldenSet]) -> None:
    """An enroller names another environment than the golden set's."""
    said = msgspec.structs.replace(stranger_says(cast, golden), environment="ab" * 32)
    add(cast, cast.people["enr2"].signer.statement(said))


def of_another_epoch(cast: Cast, golden: Statement[GoldenSet]) -> None:
    """What the TPM is to be shown was signed for another epoch of the same state."""
    other = vouch(cast, UPDATED, 5)
    said = stranger_says(cast, other)
    cast.documents = replace(
        cast.documents, golden_sets=tuple(g for g in cast.documents.golden_sets if g != other)
    )
    named = msgspec.structs.replace(said, golden=golden.digest)
    add(cast, cast.people["enr2"].signer.statement(named))


DO_NOT_COUNT: tuple[Callable[[Cast, Statement[GoldenSet]], None], ...] = (
    by_a_custodian,
    by_an_enroller_twice,
    by_a_stranger,
    with_anothers_signature,
    of_another_environment,
    of_another_epoch,
)


@pytest.mark.parametrize("how", DO_NOT_COUNT, ids=lambda how: how.__name__)
def test_what_does_not_count_beside_one_enroller(
    cast: Cast, how: Callable[[Cast, Statement[GoldenSet]], None]
) -> None:
    """With one good authorisation, none of these is the second; a second good one still opens."""
    bundle = kept(cast)
    golden = vouch(cast, UPDATED, 2)
    authorise(cast, golden, "enr1")
    how(cast, golden)
    restart(cast, UPDATED)
    with refused(cast, "retained.authorised"):
        unseal(cast, bundle, cast.folder / "out")
    add_good = cast.people["enr2"].signer.statement(stranger_says(cast, golden))
    add(cast, add_good)
    unseal(cast, bundle, cast.folder / "out")


def give_roles(cast: Cast, thresholds: Thresholds | None = None, **roles: Role) -> None:
    """Put a policy in force in which people have other roles; custodians stay custodians."""
    policy = cast.situation("host").trusted.policy
    cast.next_policy(
        principals=tuple(
            msgspec.structs.replace(
                one,
                roles=("custodian", roles[one.id])
                if one.id.startswith("cus") and one.id in roles
                else (roles.get(one.id, one.roles[0]),),
            )
            for one in policy.principals
        ),
        thresholds=thresholds or policy.thresholds,
    )


def vouch_again(cast: Cast, *who: str) -> None:
    """Have others sign the golden set that the host was enrolled in."""
    add(cast, cast.sign(cast.documents.golden_sets[0].predicate, *who))


def test_an_enroller_who_left_does_not_count(cast: Cast) -> None:
    """The policy in force says who is an enroller, though the TPM was told of him."""
    bundle = kept(cast)
    golden = vouch(cast, UPDATED, 2)
    authorise(cast, golden, "enr1", "enr3")
    # A custodian takes his place, so that the thresholds stay sound.
    give_roles(cast, enr3="auditor", cus1="enroller")
    restart(cast, UPDATED)
    with refused(cast, "retained.authorised"):
        unseal(cast, bundle, cast.folder / "out")
    authorise(cast, golden, "enr2")
    unseal(cast, bundle, cast.folder / "out")


def test_who_left_is_taken_out_of_the_tpm(cast: Cast) -> None:
    """After one honest start the TPM itself refuses who left; nobody is put in his place."""
    bundle = kept(cast)
    golden = vouch(cast, UPDATED, 2)
    authorise(cast, golden, "enr1", "enr3")
    before, shown = only(cast), shown_of(cast, golden)
    folder = cast.place.keys.folder
    give_roles(cast, enr3="auditor", cus1="enroller")
    vouch_again(cast, "enr1", "enr2")
    unseal(cast, bundle, cast.folder / "first")
    assert ["enr1", "enr2"] == holders(cast)
    assert (1, 2) == (standing(cast).oldest, len(list(folder.iterdir())))
    restart(cast, UPDATED)
    # With every check of ours left out, and from a backup of the host's files.
    with pytest.raises(Refused) as caught:
        cast.tpm.unseal_shares(before.key, shown)
    assert "tpm.counter" == caught.value.check
    with pytest.raises(Refused) as caught:
        cast.tpm.unseal_shares(only(cast).key, [replace(shown[1], share=1)])
    assert "tpm.policy" == caught.value.check
    authorise(cast, golden, "enr2")
    unseal(cast, bundle, cast.folder / "second")
    key = only(cast).key
    unseal(cast, bundle, cast.folder / "third")
    assert key == only(cast).key


def holders(cast: Cast) -> list[str]:
    """Name who has a share of the one kept key."""
    updates = only(cast).key.updates
    assert updates is not None
    return [share.principal for share in updates.shares]


def test_a_lost_token_is_taken_out_too(cast: Cast) -> None:
    """An enroller keeps his share by the key he has left."""
    spare = ec.generate_private_key(ec.SECP256R1())
    cast.people["enr2"].signing.append(spare)
    now = {person.name: person.principal() for person in cast.people.values()}
    policy = cast.situation("host").trusted.policy
    both = tuple(now.get(one.id, one) for one in policy.principals)
    cast.next_policy(principals=both)
    bundle = kept(cast)
    updates = only(cast).key.updates
    assert updates is not None
    assert [1, 2, 1] == [len(share.keys) for share in updates.shares]
    cast.next_policy(principals=policy.principals)
    unseal(cast, bundle, cast.folder / "out")
    updates = only(cast).key.updates
    assert updates is not None
    assert [1, 1, 1] == [len(share.keys) for share in updates.shares]
    assert cast.people["enr2"].signer.spki == updates.shares[1].keys[0]


def test_a_greater_threshold_is_put_into_the_tpm(cast: Cast) -> None:
    """What a later policy demands more of enrollers, the TPM demands after one honest start."""
    give_roles(cast, cus1="enroller", cus2="enroller")
    bundle = kept(cast)
    golden = vouch(cast, UPDATED, 2)
    authorise(cast, golden, "enr1", "enr2")
    give_roles(cast, Thresholds(root=2, enrolment=2, golden=3), cus1="enroller", cus2="enroller")
    vouch_again(cast, "enr1", "enr2", "enr3")
    unseal(cast, bundle, cast.folder / "first")
    assert 3 == only(cast).key.updates.needed  # type: ignore[union-attr]
    restart(cast, UPDATED)
    with refused(cast, "retained.authorised"):
        unseal(cast, bundle, cast.folder / "out")
    authorise(cast, golden, "enr3")
    unseal(cast, bundle, cast.folder / "out")


def test_with_too_few_left_it_follows_no_more(cast: Cast) -> None:
    """The state it was released to still opens; another one is asked for anew."""
    bundle = kept(cast)
    give_roles(cast, Thresholds(root=2, enrolment=2, golden=4), cus1="enroller", cus2="enroller")
    four = ("enr1", "enr2", "enr3", "cus1")
    vouch_again(cast, *four)
    unseal(cast, bundle, cast.folder / "first")
    assert [] == holders(cast)
    authorise(cast, vouch(cast, UPDATED, 2, who=four), *four)
    unseal(cast, bundle, cast.folder / "again")
    restart(cast, UPDATED)
    with refused(cast, "retained.authorised"):
        unseal(cast, bundle, cast.folder / "out")


def test_what_was_retired_stays_so(cast: Cast) -> None:
    """Sealing anew without who left brings no retired state back."""
    bundle = kept(cast)
    golden = vouch(cast, UPDATED, 2, oldest=2)
    authorise(cast, golden, "enr1", "enr2", "enr3")
    restart(cast, UPDATED)
    unseal(cast, bundle, cast.folder / "first")
    give_roles(cast, enr3="auditor", cus1="enroller")
    unseal(cast, bundle, cast.folder / "second")
    assert (["enr1", "enr2"], 2) == (holders(cast), standing(cast).oldest)
    restart(cast)
    with pytest.raises(Refused) as caught:
        cast.tpm.unseal_retained(only(cast).key)
    assert "tpm.epoch" == caught.value.check


def test_an_interrupted_sealing_is_finished(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the old object was ended, the next start ends it; so does forgetting."""
    bundle = kept(cast)
    old = only(cast).key
    give_roles(cast, enr3="auditor", cus1="enroller")
    vouch_again(cast, "enr1", "enr2")
    with monkeypatch.context() as patch:
        patch.setattr("custody.ops.kept._end", _killed_at_the_second(_end))
        with pytest.raises(KeyboardInterrupt):
            unseal(cast, bundle, cast.folder / "first")
    assert old.counter_index == only(cast).ending
    assert cast.tpm.unseal_retained(old)
    assert only(cast).key.counter_index != cast.place.keys.spare_index(only(cast).ak_name)
    unseal(cast, bundle, cast.folder / "second")
    assert None is only(cast).ending
    with pytest.raises(Refused) as caught:
        cast.tpm.unseal_retained(old)
    assert "tpm.counter" == caught.value.check


def _killed_at_the_second(real: Callable[..., Kept]) -> Callable[..., Kept]:
    calls: list[int] = []

    def end(*words: object) -> Kept:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*words)

    return end


def test_nobody_authorises_what_he_did_not_sign(cast: Cast) -> None:
    """An enroller's program refuses a golden set without his own good signature, or replaced."""
    golden = vouch(cast, UPDATED, 2, who=("enr1", "enr2"))
    with refused(cast, "authorisation.golden"):
        authorise(cast, golden, "enr3")
    # Somebody wrote his name under it.
    forged = msgspec.structs.replace(
        golden.envelope.signatures[0], keyid=cast.people["enr3"].signer.key_id
    )
    envelope = msgspec.structs.replace(golden.envelope, signatures=(forged,))
    with refused(cast, "authorisation.golden"):
        authorise(cast, msgspec.structs.replace(golden, envelope=envelope), "enr3")
    with refused(cast, "authorisation.signer"):
        authorise(cast, golden, "cus1")
    vouch(cast, NEXT, 3, oldest=3)
    with refused(cast, "golden.epoch"):
        authorise(cast, golden, "enr1")


def test_nobody_authorises_what_one_enroller_alone_vouched_for(cast: Cast) -> None:
    """Two states, each signed by one enroller: root in both would have both of their shares."""
    for state, epoch, who in ((UPDATED, 2, "enr1"), (NEXT, 3, "enr2")):
        draft = vouch(cast, state, epoch, who=(who,))
        with refused(cast, "golden.threshold"):
            authorise(cast, draft, who)
    assert not cast.documents.authorisations


# ── what was granted, and how it ends ────────────────────────────────────────────────────────────


def test_officers_sign_which_mode(cast: Cast) -> None:
    """What was released as `sealed` follows no update, however many authorise it."""
    bundle = cast.seal()
    request = cast.request(bundle, mode="sealed")
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.open(bundle, request, answers, cast.folder / "first")
    assert only(cast).key.updates is None
    authorise(cast, vouch(cast, UPDATED, 2), "enr1", "enr2")
    restart(cast, UPDATED)
    with refused(cast, "tpm.pcr"):
        unseal(cast, bundle, cast.folder / "out")


def test_a_policy_must_have_the_mode(cast: Cast) -> None:
    """A policy with `sealed` alone grants no key that follows updates."""
    cast.next_policy(modes=("once", "sealed"))
    bundle = cast.seal()
    with refused(cast, "request.mode"):
        cast.request(bundle, mode=MODE)


@pytest.mark.parametrize("what", [what for what in TAKEN_BACK if "retired" not in what])
def test_what_was_granted_is_taken_back_after_an_update(cast: Cast, what: str) -> None:
    """What the newest policy or a list ends is not unsealed, in whatever state was authorised."""
    bundle = kept(cast)
    authorise(cast, vouch(cast, UPDATED, 2, oldest=2), "enr1", "enr2")
    restart(cast, UPDATED)
    unseal(cast, bundle, cast.folder / "before")
    act, check = TAKEN_BACK[what]
    act(cast, bundle)
    with pytest.raises(Refused) as caught:
        unseal(cast, bundle, cast.folder / "after")
    assert check == caught.value.check


def test_a_forgotten_key_follows_nothing(cast: Cast) -> None:
    """After forget no authorisation opens the object, though its files were saved before."""
    bundle = kept(cast)
    golden = vouch(cast, UPDATED, 2)
    authorise(cast, golden, "enr1", "enr2")
    one, keys = only(cast), cast.place.keys
    asked = keys.request(one)
    forget(one, cast.tpm, keys)
    keys.keep(one, asked)
    restart(cast, UPDATED)
    with refused(cast, "tpm.counter"):
        unseal(cast, bundle, cast.folder / "out")
    assert ("forgotten", False) == (standing(cast).life, standing(cast).opens)


def test_another_machine_forgets_nothing(cast: Cast) -> None:
    """Forgetting in another TPM is refused: the one that keeps the key still opens it."""
    bundle = kept(cast)
    ours = cast.tpm
    with fresh(cast.machine.vendor) as other:
        cast.tpm = open_host(TpmUri(tcti=other.tcti))
        with refused(cast, "retained.tpm"):
            forget(only(cast), cast.tpm, cast.place.keys)
        assert () == prune(cast.tpm, cast.place.keys)
        assert name(cast.tpm.ak_public()).hex() != only(cast).ak_name
    cast.tpm = ours
    unseal(cast, bundle, cast.folder / "out")


def test_dead_keys_are_dropped(cast: Cast) -> None:
    """What is remembered of keys that open nothing more goes; nothing gathers in the folder."""
    first = kept(cast, "one")
    bundle = kept(cast, "two")
    folder = cast.place.keys.folder
    for _ in range(2):
        request = cast.request(bundle, mode=MODE)
        answers = [cast.approve(bundle, request, who) for who in QUORUM]
        cast.open(bundle, request, answers, cast.folder / f"{request.digest[:8]}.out")
        assert 4 == len(list(folder.iterdir()))
    dead = next(each for each in cast.place.keys.all() if each.manifest == first.statement.digest)
    cast.tpm.forget_retained(dead.key)
    assert (dead,) == prune(cast.tpm, cast.place.keys)
    assert 2 == len(list(folder.iterdir()))
    unseal(cast, bundle, cast.folder / "out")


def test_how_a_kept_key_stands(cast: Cast) -> None:
    """Mode, boot state, epoch and whether it would open are told without opening anything."""
    bundle = kept(cast)
    found = standing(cast)
    assert (MODE, "lab-6.1", 1, 1, "alive", True) == (
        *(found.mode, found.golden, found.epoch, found.oldest),
        *(found.life, found.opens),
    )
    unjudged = kept_standing(only(cast), tpm=cast.tpm, place=cast.place, situation=None)
    assert (None, "") == (unjudged.opens, unjudged.reason)
    restart(cast, UPDATED)
    assert (False, True) == (standing(cast).opens, "pcr 4 differ" in standing(cast).reason)
    golden = vouch(cast, UPDATED, 2, oldest=2)
    assert (False, 1) == (standing(cast).opens, standing(cast).oldest)
    authorise(cast, golden, "enr1", "enr2")
    assert (True, "lab-6.1, epoch 2") == (standing(cast).opens, standing(cast).reason)
    unseal(cast, bundle, cast.folder / "out")
    assert 2 == standing(cast).oldest
    cast.next_policy(withdrawn=(bundle.statement.digest,))
    assert (False, "withdrawn by the policy in force") == (
        standing(cast).opens,
        standing(cast).reason,
    )


def test_the_auditor_reads_retained(cast: Cast) -> None:
    """Such a release is never called burned."""
    bundle = cast.seal()
    request = cast.request(bundle, mode=MODE)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.open(bundle, request, answers, cast.folder / "first")
    place = cast.place
    files = [
        ("receipt.dsse", place.receipt_path(request.digest).read_bytes()),
        ("burn.dsse", place.burn_path(request.digest).read_bytes()),
    ]
    report = audit(cast, case_of(cast, bundle, request, answers, None, *files))
    assert set() == failed(report)
    assert "retained" == report.releases[0].outcome


def test_an_epoch_out_of_reach_asks_anew(cast: Cast) -> None:
    """After more epochs than a kept key has branches, its state is no longer one of its line."""
    bundle = kept(cast)
    authorise(cast, vouch(cast, UPDATED, 65, oldest=65), "enr1", "enr2")
    restart(cast, UPDATED)
    with refused(cast, "retained.line"):
        unseal(cast, bundle, cast.folder / "out")


def test_a_copy_of_the_home_opens_nowhere_else(cast: Cast, tmp_path: Path) -> None:
    """In an authorised state with all files copied, another TPM is refused, by rule and by key."""
    bundle = kept(cast)
    golden = vouch(cast, UPDATED, 2)
    authorise(cast, golden, "enr1", "enr2")
    with fresh(cast.machine.vendor) as other:
        bootlog.extend(other, bootlog.record(UPDATED))
        cast.tpm = open_host(TpmUri(tcti=other.tcti))
        with refused(cast, "tpm.ek"):
            unseal(cast, bundle, tmp_path / "out")
        with pytest.raises(Refused) as caught:
            cast.tpm.unseal_shares(only(cast).key, shown_of(cast, golden))
        assert "tpm.retained" == caught.value.check
