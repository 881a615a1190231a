"""How the lab's environment comes to be: each step a command of the actor whose part it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from custody.encoding import Digest, decode
from custody.formats.state import Memory
from custody.lab.actors import Actor, Ran
from custody.lab.cast import ENVIRONMENT, Lab, together
from custody.lab.stage import Stage

QUORUM: Final = "all(2 of (sec1, sec2, sec3), 1 of (lead1, lead2))"
GOLDEN: Final = "lab-kernel-6.1.0-1"
_POLICY_LIFE: Final = timedelta(days=365)

_DRAFT: Final = """\
# The policy of the lab, as a custodian writes it: custody custodian policy propose --help
environment = "{environment}"
expires = {expires}
quorum = "{quorum}"
authorities = ["out/start/authority.cer"]
# SoftHSM keeps keys in files; no policy outside a lab accepts that.
token_classes = ["software"]
# What a host may do with its key: use it once, keep it for restarts, or keep it over updates too.
modes = ["once", "sealed", "sealed-updatable"]

[thresholds]
root = 2
enrolment = 2
golden = 2

[host]
# Firmware, option ROMs, boot loader, Secure Boot, command line, kernel.
pcrs = [0, 2, 4, 7, 8, 9]
# A software TPM protects nothing; no policy outside a lab accepts one.
trust_classes = ["software"]
vendor_roots = ["in/tpm-vendor-root.pem"]
# A host shows by which components it booted: its log is extended as it stands.
event_log = "required"
"""


def set_up(lab: Lab, stage: Stage) -> None:
    """Bring a lab up: make and found it where it is not, power its hosts on where they are off."""
    lab.claim()
    with lab.using():
        if lab.mark().policy:
            stage.scene("The lab")
            stage.say(
                "It was set up before; its people, tokens, TPMs and policy are used again."
                " To start afresh: custody lab down."
            )
            lab.boot()
            return
        lab.clear()
        _devices(lab, stage)
        policy = _policy(lab, stage)
        _trust(lab, stage, policy)
        _hosts(lab, stage)
        lab.founded(policy)


def _devices(lab: Lab, stage: Stage) -> None:
    stage.scene("Devices")
    stage.say(
        f"{len(lab.people())} people get a token each, with a PIN in a file of their own;"
        f" {len(lab.actors('host'))} hosts get a TPM each, power on and boot."
    )
    stage.working("making tokens and TPMs")
    lab.furnish()
    lab.boot()
    stage.result("SoftHSM tokens and swtpm; the hosts' boot log is extended into their registers")


def _policy(lab: Lab, stage: Stage) -> Digest:
    first, second, *_ = lab.actors("custodian")
    _ceremony(lab, stage, first)
    stage.scene("Policy")
    stage.say(
        f"{first.name} writes down who is who and what a release needs, and signs;"
        f" {second.name} reads it and signs too: two of three custodians."
    )
    lab.carry(lab.tpm(lab.actors("host")[0]).vendor_root, first)
    (first.inbox / "swtpm-localca-rootca-cert.pem").replace(first.inbox / "tpm-vendor-root.pem")
    expires = (datetime.now(UTC) + _POLICY_LIFE).date()
    draft = first.directory / "draft.toml"
    draft.write_text(
        _DRAFT.format(environment=ENVIRONMENT, expires=expires.isoformat(), quorum=QUORUM)
    )
    words: list[str | Path] = []
    for admission in _admissions(first):
        words += ["--admission", admission]
    proposed = first.outbox / "policy-1.draft.dsse"
    first.run("custodian", "policy", "propose", draft, *words, "--out", proposed)
    carried = lab.carry(proposed, second)
    signed = second.outbox / "policy-1.dsse"
    stage.show(
        second.run("custodian", "policy", "sign", carried, "--out", signed, "--yes"), lines=1
    )
    lab.publish(signed)
    shown = second.run("custodian", "policy", "show", signed, "--json")
    stage.result(f"policy version 1 of {ENVIRONMENT}: {QUORUM}")
    return shown.read(_Shown).digest


def _ceremony(lab: Lab, stage: Stage, first: Actor) -> None:
    stage.scene("Ceremony")
    stage.say(
        f"{first.name} begins the environment: his key, and the certificate authority, are made"
        " in his token."
    )
    start = first.outbox / "start"
    stage.show(
        first.run(
            "custodian",
            "init",
            first.name,
            *("--environment", ENVIRONMENT),
            *("--token", first.token_uri),
            "--authority",
            *("--out", start),
        ),
        lines=2,
    )
    lab.publish(start / "authority.cer", start / "authority.crl")
    others = [actor for actor in lab.people() if actor != first]
    for actor in others:
        lab.carry(start / "invitation.json", actor)
    stage.say("Everybody else makes keys in a token of his own, and asks to be admitted.")
    stage.working(f"{len(others)} people make their keys")
    ran = together(_enroll, others)
    chosen = next(one for one in ran if one.actor == "sec1")
    stage.show(chosen, also=tuple(one.actor for one in ran if one is not chosen), lines=3)
    for actor in others:
        lab.carry(actor.outbox / f"{actor.name}.admission.dsse", first)
    stage.say(f"{first.name} checks that each holds the keys he offers, and issues certificates.")
    issued = first.outbox / "certificates"
    admitted = first.run("custodian", "admit", *_admissions(first), "--out", issued, "--yes")
    lab.publish(*sorted(issued.iterdir()))
    stage.result(f"{len(admitted.output.splitlines())} certificates, and a revocation list")


def _enroll(actor: Actor) -> Ran:
    return actor.run(
        actor.role,
        "enroll",
        actor.name,
        *("--token", actor.token_uri),
        *("--invitation", actor.inbox / "invitation.json"),
        *("--out", actor.outbox / f"{actor.name}.admission.dsse"),
    )


def _admissions(first: Actor) -> list[Path]:
    own = first.outbox / "start" / f"{first.name}.admission.dsse"
    return [own, *sorted(first.inbox.glob("*.admission.dsse"))]


def _trust(lab: Lab, stage: Stage, policy: Digest) -> None:
    stage.scene("Trust")
    stage.say(
        "Everybody pins the policy by its digest, which a custodian reads out; from here on"
        " nothing is believed for being in a file."
    )
    actors = lab.actors("publisher", "officer", "enroller", "host")
    ran = together(lambda actor: actor.run(actor.role, "trust", policy), actors)
    chosen = next(one for one in ran if one.actor == "sec1")
    stage.show(chosen, also=tuple(one.actor for one in ran if one is not chosen), lines=4)


def _hosts(lab: Lab, stage: Stage) -> None:
    stage.scene("Hosts")
    stage.say(
        "Two enrollers vouch for each host. Each sends its TPM a challenge that only the TPM"
        " with this endorsement key and this attestation key can open."
    )
    enrollers = lab.actors("enroller")
    hosts = lab.actors("host")
    asked = together(_show_tpm, hosts)
    # What the vendor says it delivered; an enroller has it from there, not from the host.
    inventory = lab.vendor / "inventory.txt"
    inventory.write_text("".join(f"{ek}\n" for ek in asked))
    for enroller in enrollers:
        lab.carry(inventory, enroller)
    for host, pair in zip(hosts, (enrollers[:2], enrollers[1:]), strict=True):
        records = _enrol(lab, host, *pair)
        if host is hosts[0]:
            stage.show(records[0], lines=4)
            stage.show(records[1], lines=4)
    _golden(lab, stage, hosts, enrollers)


def _show_tpm(host: Actor) -> str:
    asked = host.run(
        *("host", "enroll", host.name, "--json"),
        *("--out", host.outbox / f"{host.name}.enrolment.json"),
    )
    return asked.read(_Asked).ek


def _enrol(lab: Lab, host: Actor, one: Actor, two: Actor) -> tuple[Ran, Ran]:
    """Have two enrollers challenge a host's TPM and vouch for it; return their last words."""
    record: Path | None = None
    ran: list[Ran] = []
    for enroller in (one, two):
        request = lab.carry(host.outbox / f"{host.name}.enrolment.json", enroller)
        challenge = enroller.outbox / f"{enroller.name}.{host.name}.challenge.json"
        inventory = ("--inventory", enroller.inbox / "inventory.txt")
        enroller.run("enroller", "challenge", request, *inventory, "--out", challenge)
        answer = host.outbox / f"{enroller.name}.answer.json"
        host.run(
            *("host", "enroll", host.name),
            *("--answer", lab.carry(challenge, host), "--out", answer),
        )
        signed = enroller.outbox / f"{host.name}.enrolment.dsse"
        onto = ("--onto", lab.carry(record, enroller)) if record else ()
        ran.append(
            enroller.run(
                *("enroller", "record", request, "--answer", lab.carry(answer, enroller)),
                *(*inventory, "--trust-class", "software", *onto, "--yes", "--out", signed),
            )
        )
        record = signed
    if record is not None:
        lab.publish(record)
    return ran[0], ran[1]


def _golden(lab: Lab, stage: Stage, hosts: tuple[Actor, ...], enrollers: tuple[Actor, ...]) -> None:
    stage.say("The boot state is measured on both hosts, and two enrollers approve it.")
    name = f"{GOLDEN}.dsse"
    signed: Path | None = None
    for host, enroller in zip(hosts, enrollers[:2], strict=True):
        measured = host.outbox / f"{host.name}.boot.json"
        host.run("host", "measure", "--out", measured)
        words = ("--onto", lab.carry(signed, enroller)) if signed else ("--name", GOLDEN)
        made = enroller.run(
            *("enroller", "golden", lab.carry(measured, enroller), *words),
            *("--out", enroller.outbox / name),
        )
        signed = enroller.outbox / name
    if signed is not None:
        lab.publish(signed)
    stage.show(made, lines=2)


class _Shown(msgspec.Struct):
    """What is read of ``policy show --json``."""

    digest: Digest


class _Asked(msgspec.Struct):
    """What is read of ``host enroll --json``."""

    ek: Digest


def policy_in_force(actor: Actor) -> int:
    """Return the policy version an actor stands on, 0 if he trusts none yet."""
    path = actor.home / "memory.json"
    return decode(Memory, path.read_bytes()).policy_version if path.exists() else 0
