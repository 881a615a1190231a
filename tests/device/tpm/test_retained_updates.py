"""Kept keys that follow updates: what a TPM demands, with none of our rules in its way."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE
from tpm2_pytss.types import (
    TPM2B_DIGEST,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_DIGEST,
    TPML_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
    TPMT_SIGNATURE,
    TPMT_TK_VERIFIED,
)

from custody.crypto import shamir, tpmpolicy, tpmretained
from custody.crypto.signature import public_bytes, sign
from custody.crypto.tpmretained import KeptCounters, Line, authorised_message
from custody.encoding import sha256
from custody.errors import Refused
from custody.formats.evidence import counter_public, nv_name
from custody.formats.tpmpublic import STORAGE_TEMPLATE, sealed_template
from custody.formats.tpmwire import sized
from custody.keys import tpm_counters
from custody.keys.hostapi import (
    RETAINED_INDEXES,
    AuthorisedState,
    HostTpm,
    RetainedKey,
    ShareOfKey,
    Updating,
)
from custody.keys.tpm_host import TpmHost
from custody.keys.tpm_hostkey import tpm_signature
from custody.keys.tpm_session import Connection, Handle, Tpm, certificate_spki, unmarshal
from custody.lab import bootlog
from custody.lab.swtpm import Swtpm
from tests.device.tpm.asking import PCRS, loaded
from tests.device.tpm.relay import bus
from tests.unit.crypto.vectors import Vector, each
from tests.vectors.tpmretained.make import EPOCH_INDEX, OWN_INDEX, spki

HEADERS = (
    "keys",
    "environment",
    "name",
    "epoch",
    "authorised-epoch",
    "pcr-digest",
    "own-counter",
    "epoch-counter",
    "approved-policy",
    "policy-ref",
    "a-hash",
    "sealed",
    "first-state",
    "share",
)
KEYS = {
    name: ec.generate_private_key(ec.SECP256R1())
    for name in ("erik", "erik-spare", "elsa", "emil", "mallory")
}
HOLDERS = {"erik": ("erik", "erik-spare"), "elsa": ("elsa",), "emil": ("emil",)}
STATES = {
    "first": bootlog.BootState(),
    "updated": bootlog.BootState(loader="lab boot loader 2.07"),
    "evil": bootlog.BootState(loader="evil loader"),
}
NEEDED = 2
_CC_NV_INCREMENT = bytes.fromhex("00000134")
_SHOWN = re.compile(
    r"(?P<share>\S+) by (?P<key>\S+), signed (?P<state>\S+) (?P<epoch>\d+) (?P<name>\S+) "
    r"(?P<environment>\S+), shown (?P<shown>\S+) (?P<shown_epoch>\d+)"
)


def public(key: str) -> bytes:
    """Return a key's SPKI."""
    return public_bytes(KEYS[key].public_key())


def pcr_digest(state: str) -> bytes:
    """Return what PolicyPCR compares in a boot state."""
    values = bootlog.pcrs(bootlog.record(STATES[state]))
    return sha256(*(values[pcr] for pcr in PCRS))


def authorised(
    key: str,
    signed: str,
    *,
    share: int | None = None,
    epoch: int = 2,
    name: str = "lab",
    environment: str = "production",
    shown: str | None = None,
    shown_epoch: int | None = None,
) -> AuthorisedState:
    """Sign a state, and show the TPM this one or another."""
    message = authorised_message(
        PCRS,
        pcr_digest(signed),
        environment=sha256(environment.encode()),
        name=name,
        epoch=epoch,
    )
    return AuthorisedState(
        share=list(HOLDERS).index(key) if share is None else share,
        spki=public(key),
        epoch=epoch if shown_epoch is None else shown_epoch,
        pcrs=PCRS,
        pcr_digest=pcr_digest(shown or signed),
        signature=sign(KEYS[key], message),
    )


@dataclass
class Kept:
    """A secret that is kept in the first state."""

    machine: Swtpm
    host: HostTpm
    secret: bytes
    key: RetainedKey

    def boot(self, state: str) -> None:
        """Reboot into a state."""
        self.machine.reboot()
        bootlog.extend(self.machine, bootlog.record(STATES[state]))

    def show(self, state: AuthorisedState) -> bytes | str:
        """Return the share that comes out, or the check that refuses it."""
        try:
            return bytes(self.host.unseal_shares(self.key, [state])[0])
        except Refused as error:
            return error.check

    def makes_it(self, states: list[AuthorisedState], answers: list[bytes | str]) -> bool:
        """Say whether the shares among the answers make the secret."""
        points = {
            state.share + 1: answer
            for state, answer in zip(states, answers, strict=True)
            if isinstance(answer, bytes)
        }
        return len(points) >= NEEDED and self.secret == shamir.combine(
            list(points.items())[:NEEDED]
        )


def keep(host: HostTpm, secret: bytes) -> RetainedKey:
    """Keep a secret for the state of now, in shares of everybody."""
    shares = shamir.split(secret, NEEDED, len(HOLDERS))
    return host.retain(
        secret,
        pcrs=PCRS,
        pcr_digest=sha256(*host.pcr_values(PCRS)),
        index=RETAINED_INDEXES[0],
        updating=Updating(
            line=Line(environment=sha256(b"production"), name="lab", epoch=1),
            needed=NEEDED,
            shares=tuple(
                ShareOfKey(principal=who, keys=tuple(map(public, keys)), share=share)
                for (who, keys), share in zip(HOLDERS.items(), shares, strict=True)
            ),
        ),
    )


@pytest.fixture
def kept(machine: Swtpm, host: HostTpm) -> Kept:
    """A machine that keeps a secret."""
    secret = os.urandom(32)
    return Kept(machine, host, secret, keep(host, secret))


@each("tpmretained/authorisations.txt", "boot", "raise", "forget", "shows", "outcomes", "opens")
def test_what_the_tpm_opens(kept: Kept, vector: Vector) -> None:
    """What each vector shows is answered as it says, and makes the key exactly where it says."""
    if "raise" in vector:
        kept.host.raise_epoch(kept.key, int(vector["raise"]))
    if vector.get("forget") == "yes":
        kept.host.forget_retained(kept.key)
    kept.boot(vector["boot"])
    states = []
    for shown in vector["shows"].split("; "):
        said = _SHOWN.fullmatch(shown)
        assert said is not None, shown
        states.append(
            authorised(
                said["key"],
                said["state"],
                share=list(HOLDERS).index(said["share"]),
                epoch=int(said["epoch"]),
                name=said["name"],
                environment=said["environment"],
                shown=said["shown"],
                shown_epoch=int(said["shown_epoch"]),
            )
        )
    answers = [kept.show(state) for state in states]
    assert vector["outcomes"].split("; ") == [
        "share" if isinstance(answer, bytes) else answer for answer in answers
    ]
    assert (vector["opens"] == "yes") == kept.makes_it(states, answers)


def test_the_first_state_needs_nobody(kept: Kept) -> None:
    """In the state it was kept in the key opens after every reboot, and not in another."""
    assert kept.secret == kept.host.unseal_retained(kept.key)
    kept.boot("first")
    assert kept.secret == kept.host.unseal_retained(kept.key)
    kept.boot("evil")
    with pytest.raises(Refused) as refused:
        kept.host.unseal_retained(kept.key)
    assert "tpm.pcr" == refused.value.check


def test_the_first_state_is_retired_too(kept: Kept) -> None:
    """Once the epoch is raised, the state it was kept in opens nothing; no step leads back."""
    assert 2 == kept.host.raise_epoch(kept.key, 2)
    with pytest.raises(Refused) as refused:
        kept.host.unseal_retained(kept.key)
    assert "tpm.epoch" == refused.value.check
    assert 2 == kept.host.raise_epoch(kept.key, 1)
    assert 2 == kept.host.retained_standing(kept.key).oldest
    with Tpm(kept.machine.tcti).connect("begin its counter anew") as link:
        link.esys.nv_undefine_space(link.esys.tr_from_tpmpublic(EPOCH_INDEX))
    with pytest.raises(Refused) as refused:
        kept.host.unseal_retained(kept.key)
    assert "tpm.retained" == refused.value.check
    assert "cleared" == kept.host.retained_standing(kept.key).life
    with Tpm(kept.machine.tcti).connect("make it again") as link:
        # Whoever owns the TPM may: a counter made again stands higher than any ever did.
        tpm_counters.renew(link, EPOCH_INDEX, owner_auth=b"")
    with pytest.raises(Refused) as refused:
        kept.host.unseal_retained(kept.key)
    assert "tpm.epoch" == refused.value.check


def test_raising_goes_no_further_than_it_must(kept: Kept) -> None:
    """An epoch far ahead takes as many increments as the key has epochs, and ends the key."""
    assert 1 + tpmretained.EPOCHS == kept.host.raise_epoch(kept.key, 2**31)
    kept.boot("updated")
    last = tpmretained.EPOCHS
    assert "tpm.epoch" == kept.show(authorised("erik", "updated", epoch=last))


def test_a_share_of_another_key_is_not_exchanged(kept: Kept) -> None:
    """With the host's own notes edited, so that erik opens elsa's share, the TPM refuses."""
    updates = kept.key.updates
    assert updates is not None
    kept.boot("updated")
    edited = msgspec.structs.replace(updates.shares[1], keys=updates.shares[0].keys)
    shares = (updates.shares[0], edited, updates.shares[2])
    kept.key = msgspec.structs.replace(
        kept.key, updates=msgspec.structs.replace(updates, shares=shares)
    )
    assert "tpm.policy" == kept.show(authorised("erik", "updated", share=1))
    assert isinstance(kept.show(authorised("erik", "updated")), bytes)


@pytest.mark.parametrize(
    "edit", [{"epoch": 2}, {"epoch_counter": 2**40}, {"name": "other"}, {"environment": "ab" * 32}]
)
def test_what_a_key_follows_cannot_be_edited(kept: Kept, edit: dict[str, object]) -> None:
    """Another line, epoch or count in the host's own notes opens nothing."""
    assert kept.key.updates is not None
    updates = msgspec.structs.replace(kept.key.updates, **edit)
    kept.key = msgspec.structs.replace(kept.key, updates=updates)
    kept.boot("updated")
    assert kept.show(authorised("erik", "updated")) in {"tpm.policy", "tpm.authorisation"}


def test_a_register_extended_between_ends_it(kept: Kept) -> None:
    """What is measured after the state was shown shuts it, though it was authorised."""
    from custody.lab.firmware import pcr_extend

    kept.boot("updated")
    kept.machine.transmit(pcr_extend(PCRS[1], bytes(32)))
    assert "tpm.pcr" == kept.show(authorised("erik", "updated"))


def test_shares_of_two_states_add_up(kept: Kept) -> None:
    """Why nobody authorises what one enroller alone vouched for: shares do not know of states.

    No honest host puts these together; whoever is root in both states has them one by one.
    """
    shown = [authorised("erik", "updated", epoch=2), authorised("elsa", "evil", epoch=3)]
    answers = []
    for state, boot in zip(shown, ("updated", "evil"), strict=True):
        kept.boot(boot)
        answers.append(kept.show(state))
    assert kept.makes_it(shown, answers)
    kept.host.raise_epoch(kept.key, 3)
    kept.boot("updated")
    assert "tpm.epoch" == kept.show(shown[0])


def test_no_share_crosses_the_bus(machine: Swtpm) -> None:
    """Neither key nor share is seen on the bus; nothing stays loaded, nor needs many slots."""
    secret = os.urandom(32)
    ek = certificate_spki(TpmHost(machine.tcti).ek_certificate())
    with bus(machine) as relay:
        host = TpmHost(relay.tcti, ek_spki=ek)
        key = keep(host, secret)
        states = [authorised(who, "first", epoch=1) for who in ("erik", "elsa")]
        shares = host.unseal_shares(key, states)
        assert secret == shamir.combine([(1, shares[0]), (2, shares[1])])
        assert secret == host.unseal_retained(key)
        for hidden in (secret, *shares):
            assert bytes(hidden) not in relay.traffic
            assert bytes(hidden[:16]) not in relay.traffic
        assert states[0].pcr_digest in relay.traffic
    assert () == loaded(machine.tcti)


def test_a_counter_that_somebody_else_says_was_moved_is_not_believed(kept: Kept) -> None:
    """Whoever keeps increments from the TPM, and answers for it, ends no epoch and no key."""
    done = bytes.fromhex("8002 00000013 00000000 00000000 0000 01 0000")
    kept_away = []

    def instead(command: bytes) -> bytes | None:
        if command[6:10] != _CC_NV_INCREMENT:
            return None
        kept_away.append(command)
        return done

    with bus(kept.machine, instead=instead) as relay:
        host = TpmHost(relay.tcti)
        for move in (
            lambda: host.raise_epoch(kept.key, 2),
            lambda: host.forget_retained(kept.key),
            lambda: host.increment(kept.key.counter_index),
        ):
            with pytest.raises(Refused) as refused:
                move()
            assert "tpm.session" == refused.value.check
    assert 3 == len(kept_away)
    assert kept.secret == kept.host.unseal_retained(kept.key)


# ── the calculator against a TPM ─────────────────────────────────────────────────────────────────

NO_SIGNATURE = tpm_signature(bytes.fromhex("3006020101020101"))


def trial(link: Connection) -> Handle:
    """Start a trial session."""
    return link.keep(
        link.esys.start_auth_session(
            ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.TRIAL, "null", TPM2_ALG.SHA256
        )
    )


@each("tpmretained/policies.txt", *HEADERS)
def test_a_tpm_computes_the_same_digests(machine: Swtpm, host: HostTpm, vector: Vector) -> None:
    """Trial sessions give each vector's digests, and its aHash is what a TPM verifies."""
    host.retain(
        b"x",
        pcrs=PCRS,
        pcr_digest=bytes(32),
        index=OWN_INDEX,
        updating=Updating(
            line=Line(environment=bytes(32), name="any", epoch=1),
            needed=2,
            shares=tuple(
                ShareOfKey(principal=who, keys=(public(who),), share=bytearray(b"x"))
                for who in ("erik", "elsa")
            ),
        ),
    )
    counters = KeptCounters(
        own_name=nv_name(counter_public(OWN_INDEX).pack()),
        own=int(vector["own-counter"]),
        epoch_name=nv_name(counter_public(EPOCH_INDEX).pack()),
        epoch=int(vector["epoch-counter"]),
    )
    line = Line(
        environment=bytes.fromhex(vector["environment"]),
        name=vector["name"],
        epoch=int(vector["epoch"]),
    )
    numbers = [int(number) for number in vector["keys"].split()]
    spkis = [spki(number) for number in numbers]
    at, ref = int(vector["authorised-epoch"]), bytes.fromhex(vector["policy-ref"])
    approved = bytes.fromhex(vector["approved-policy"])
    assert ref == line.ref(at)
    with Tpm(machine.tcti).connect("try policies") as link:
        esys = link.esys
        own, epoch = (esys.tr_from_tpmpublic(index) for index in (OWN_INDEX, EPOCH_INDEX))
        selection = unmarshal(TPML_PCR_SELECTION, tpmpolicy.pcr_selection(PCRS))

        def ends(session: Handle) -> str:
            operand = counters.own.to_bytes(8, "big")
            esys.policy_nv(own, own, session, operand, tpmpolicy.EO_EQ)
            found = bytes(esys.policy_get_digest(session)).hex()
            link.drop(session)
            return found

        session = trial(link)
        esys.policy_pcr(session, bytes.fromhex(vector["pcr-digest"]), selection)
        assert vector["approved-policy"] == bytes(esys.policy_get_digest(session)).hex()
        assert vector["sealed"] == ends(session)

        session = trial(link)
        esys.policy_pcr(session, bytes.fromhex(vector["pcr-digest"]), selection)
        operand = tpmretained.epoch_operand(counters, 0)
        esys.policy_nv(epoch, epoch, session, operand, tpmpolicy.EO_UNSIGNED_LE)
        assert vector["first-state"] == ends(session)

        for number in {numbers[0], numbers[-1]}:
            private = ec.derive_private_key(number, ec.SECP256R1())
            ticket = _ticket(link, private, approved + ref, bytes.fromhex(vector["a-hash"]))
            session = trial(link)
            name = tpmpolicy.officer_key_name(spki(number))
            esys.policy_authorize(session, approved, name, ticket, ref)
            operand = tpmretained.epoch_operand(counters, at - line.epoch)
            esys.policy_nv(epoch, epoch, session, operand, tpmpolicy.EO_UNSIGNED_LE)
            for step in tpmretained.share_steps(
                spkis, spki(number), at, line=line, counters=counters
            ):
                esys.policy_or(session, TPML_DIGEST([TPM2B_DIGEST(b) for b in step.branches]))
            assert vector["share"] == ends(session)


def _ticket(
    link: Connection, key: ec.EllipticCurvePrivateKey, message: bytes, digest: bytes
) -> TPMT_TK_VERIFIED:
    """Have the TPM verify a signature over ``message``, by the digest it is told."""
    spki = public_bytes(key.public_key())
    loaded_key = link.keep(
        link.esys.load_external(
            unmarshal(TPM2B_PUBLIC, sized(tpmpolicy.officer_key_public(spki))),
            hierarchy=ESYS_TR.OWNER,
        )
    )
    signature = unmarshal(TPMT_SIGNATURE, tpm_signature(sign(key, message)))
    ticket = link.esys.verify_signature(loaded_key, digest, signature)
    link.drop(loaded_key)
    return ticket


def test_a_chain_of_authorisations_obeys_its_last_key_alone(machine: Swtpm) -> None:
    """Why k of n is not a chain of PolicyAuthorize: the last key opens what two were to guard.

    An object is sealed under the policy that a session has after PolicyPCR, PolicyAuthorize by
    erik, PolicyPCR, PolicyAuthorize by elsa.  elsa alone opens it, in a state of her choice.
    """
    ref = tpmretained.state_ref(sha256(b"production"), "lab", 2)
    selection = unmarshal(TPML_PCR_SELECTION, tpmpolicy.pcr_selection(PCRS))

    def authorise(link: Connection, session: Handle, who: str) -> None:
        approved = bytes(link.esys.policy_get_digest(session))
        ticket = _ticket(link, KEYS[who], approved + ref, sha256(approved, ref))
        name = tpmpolicy.officer_key_name(public(who))
        link.esys.policy_authorize(session, approved, name, ticket, ref)

    with Tpm(machine.tcti).connect("seal under a chain") as link:
        session = link.salted_session(policy=True)
        for who in ("erik", "elsa"):
            link.esys.policy_pcr(session, pcr_digest("first"), selection)
            authorise(link, session, who)
        chain = bytes(link.esys.policy_get_digest(session))
        link.drop(session)
        parent = link.keep(link.create_primary(ESYS_TR.OWNER, STORAGE_TEMPLATE.pack()))
        private, sealed, *_ = link.esys.create(
            parent,
            TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(data=b"content key")),
            unmarshal(TPM2B_PUBLIC, sized(sealed_template(chain))),
        )
    machine.reboot()
    bootlog.extend(machine, bootlog.record(STATES["evil"]))
    with Tpm(machine.tcti).connect("open it with one key") as link:
        session = link.salted_session(policy=True)
        link.esys.policy_pcr(session, pcr_digest("evil"), selection)
        authorise(link, session, "elsa")
        parent = link.keep(link.create_primary(ESYS_TR.OWNER, STORAGE_TEMPLATE.pack()))
        handle = link.keep(
            link.esys.load(
                parent,
                unmarshal(TPM2B_PRIVATE, sized(bytes(private))),
                unmarshal(TPM2B_PUBLIC, sized(sealed.publicArea.marshal())),
            )
        )
        link.drop(parent)
        assert b"content key" == bytes(link.esys.unseal(handle, session1=session))
