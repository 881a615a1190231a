"""What a TPM refuses by itself, as vectors that say why, with none of our rules in its way."""

from __future__ import annotations

import re
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.signature import sign
from custody.errors import Refused
from custody.formats import evidence
from custody.formats.evidence import AK_TEMPLATE
from custody.formats.tpmpublic import Attributes, EccPublic, parse_public
from custody.keys.hostapi import HostTpm
from custody.keys.tpm_credential import make_credential
from custody.keys.tpm_host import TpmHost
from custody.keys.tpm_session import Tpm, certificate_spki
from custody.lab import bootlog
from custody.lab.firmware import pcr_extend
from custody.lab.swtpm import Swtpm
from tests.device.tpm.asking import ALL, PCRS, Asked, ask
from tests.unit.crypto.vectors import Vector, each

#: The leaves of `ALL`.
PLACES = {"dora": "0", "dino": "1"}
STRANGER = ec.generate_private_key(ec.SECP256R1())
SECRET = bytes(range(32))
_SHOWN = re.compile(r"(?P<place>\S+) by (?P<officer>\S+) on (?P<request>\S+)")


def happen(what: str, machine: Swtpm, host: HostTpm, monday: Asked) -> None:
    """Do what a vector says came before the opening."""
    if what == "burn":
        host.increment(monday.counter.index)
    elif what == "reset":
        machine.reboot()
        bootlog.extend(machine, bootlog.record(bootlog.BootState()))
    elif what == "extend":
        machine.transmit(pcr_extend(PCRS[2], bytes(32)))
    elif what == "deadline":
        with Tpm(machine.tcti).connect("be put forward") as link:
            link.esys.clock_set(monday.empty.conditions.deadline_ms)
    else:
        raise AssertionError(what)


@each("tpmpolicy/refusals.txt", "before", "shows", "opens", "outcome")
def test_what_the_tpm_opens(machine: Swtpm, host: HostTpm, vector: Vector) -> None:
    """What each vector shows is answered by the TPM as it says."""
    monday = ask(host, ALL)
    tuesday = ask(host, ALL, keys=monday.keys, busy=(monday.counter.index,))
    requests = {"monday": monday, "tuesday": tuesday}
    officers = {who: monday.keys[leaf] for who, leaf in PLACES.items()} | {"mallory": STRANGER}
    signatures = {}
    for shown in vector["shows"].split("; "):
        said = _SHOWN.fullmatch(shown)
        assert said is not None, shown
        message = bytes(4) + requests[said["request"]].empty.terms
        signatures[PLACES[said["place"]]] = sign(officers[said["officer"]], message)
    assert set(PLACES.values()) == set(signatures)
    if "before" in vector:
        happen(vector["before"], machine, host, monday)
    asked = requests[vector["opens"]]
    try:
        outcome = "opens" if asked.opens(replace(asked.empty, signatures=signatures)) else "wrong"
    except Refused as error:
        outcome = error.check
    assert vector["outcome"] == outcome


def challenged(which: str, host: HostTpm, other: HostTpm) -> bytes:
    """Return the AK Name that a vector's challenge is for."""
    own = evidence.name(host.ak_public())
    if which == "another":
        return evidence.name(other.ak_public())
    if which == "loose":
        key = parse_public(host.ak_public())
        assert isinstance(key, EccPublic)
        return evidence.name(
            replace(key, attributes=AK_TEMPLATE.attributes & ~Attributes.RESTRICTED).pack()
        )
    return own if which == "own" else own[:-1] + bytes([own[-1] ^ 1])


@each("tpmpolicy/activations.txt", "ek", "ak", "outcome")
def test_what_the_tpm_activates(host: HostTpm, other_machine: Swtpm, vector: Vector) -> None:
    """A challenge is answered for the TPM's own EK and AK together, and for nothing else."""
    other = TpmHost(other_machine.tcti)
    whose = host if vector["ek"] == "own" else other
    ek = evidence.ek_public(certificate_spki(whose.ek_certificate()))
    made = make_credential(ek, challenged(vector["ak"], host, other), SECRET)
    try:
        outcome = "answered" if host.activate(*made) == SECRET else "wrong"
    except Refused as error:
        outcome = error.check
    assert vector["outcome"] == outcome
