"""Make evidence to be refused, on software TPMs: ``python -m tests.vectors.attestation.make``.

Only needed to add a vector: what is written down stays true for ever, and a new run gives new keys.
What each file must be refused for is said here, beside the attack, and not taken from the rules.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tpm2_pytss.constants import ESYS_TR

from custody.crypto.quorum import Person
from custody.crypto.tpmpolicy import EMPTY, host_policy, officer_key_name, policy_pcr, quorum_policy
from custody.encoding import key_id
from custody.formats.eventlog import Event, EventLog, EventType, parse_event_log
from custody.formats.evidence import (
    AK_TEMPLATE,
    HOST_PARENT_TEMPLATE,
    Alg,
    Attributes,
    NvAttributes,
    NvPublic,
    PcrBank,
    counter_public,
    pack_selection,
)
from custody.formats.request import Terms
from custody.keys.tpm_session import certificate_spki
from custody.lab import bootlog
from custody.lab.swtpm import Swtpm
from custody.rules.attestation import conditions_of
from custody.rules.quorum import signing_tree
from tests.unit.machine import Vendor
from tests.vectors.attestation.certificates import enrolments, revocations, vendor_policy
from tests.vectors.attestation.forge import (
    BANKS,
    PCRS,
    Change,
    Made,
    Maker,
    allocate_banks,
    nv_define,
    nv_write,
)

HERE = Path(__file__).parent
V = "attestation.V"
#: An index as its owner likes it: he writes what he wants, and writes it again after a burn.
ORDINARY = (
    NvAttributes.AUTH_WRITE | NvAttributes.AUTH_READ | NvAttributes.OWNER_READ | NvAttributes.NO_DA
)
UNRESTRICTED = replace(AK_TEMPLATE, attributes=AK_TEMPLATE.attributes & ~Attributes.RESTRICTED)


def main() -> None:
    """Write every vector beside this file."""
    for old in HERE.glob("*.txt"):
        old.unlink()
    write(HERE)


def write(folder: Path) -> None:
    """Write every vector, made on two new TPMs, to a folder."""
    with tempfile.TemporaryDirectory(prefix="tpm") as directory:
        place = Path(directory)
        machine = Swtpm(place / "host", place / "vendor")
        other = Swtpm(place / "other", place / "vendor")
        try:
            for each in (machine, other):
                each.manufacture()
                each.start()
            allocate_banks(machine, (Alg.SHA1, Alg.SHA256, Alg.SHA384))
            maker = Maker.enrolled(machine)
            maker.common["policy-vendor.dsse"] = vendor_policy(maker)
            root = key_id(certificate_spki(Vendor().root))
            maker.common["policy-vendor-lists.dsse"] = vendor_policy(maker, lists=(root,))
            maker.write_common(folder)
            for made in (*_vectors(maker, other), *enrolments(maker), *revocations(maker)):
                made.write(folder)
        finally:
            machine.stop()
            other.stop()


def _vectors(maker: Maker, other: Swtpm) -> Iterator[Made]:
    yield from _good(maker)
    yield from _kinds(maker)
    yield from _selections(maker)
    yield from _bindings(maker)
    yield from _host_keys(maker)
    yield from _counters(maker)
    yield from _replays(maker)
    yield from _logs(maker)
    yield from _strangers(maker, other)
    # These change the TPM: a boot, a clear and a clock that was set cannot be taken back.
    yield from _boots(maker)
    yield from _clear(maker)


def _good(maker: Maker) -> Iterator[Made]:
    yield maker.made("good", "an enrolled host in an approved boot state", data=maker.ask())
    yield maker.made(
        "good-log", "the same with its event log", data=maker.ask(body={"event_log": maker.log})
    )


# ── what an attestation is ───────────────────────────────────────────────────────────────────────


def _kinds(maker: Maker) -> Iterator[Made]:
    forger = (ESYS_TR.ENDORSEMENT, UNRESTRICTED)
    yield maker.made(
        "ak-unrestricted",
        "the AK signs whatever its owner hands it, and he wrote both attestations himself; "
        "only its public area tells",
        V + "11",
        data=maker.ask(ak=forger, forged=True),
        enrolment=maker.record(ak=forger),
    )
    for place in ("quote", "creation"):
        yield maker.made(
            f"magic-{place}",
            f"the {place} does not begin with TPM_GENERATED_VALUE, and its signature is good",
            V + "21",
            cve="CVE-2024-29038",
            data=maker.ask(ak=forger, forged=True, bent_magic=place),
            enrolment=maker.record(ak=forger),
        )
    yield maker.made(
        "nv-as-quote",
        "the AK certified an NV index in which the host wrote what looks like a quote",
        V + "22",
        cve="GHSA-gwfg-w3jr-xh66",
        data=maker.ask(quote=maker.certified_nv),
    )
    yield maker.made(
        "certify-as-quote",
        "the AK certified that a key is loaded (TPM2_Certify)",
        V + "22",
        data=maker.ask(quote=maker.certified_key),
    )
    yield maker.made(
        "creation-as-quote",
        "the creation attestation stands in the quote's place as well",
        V + "22",
        data=maker.ask(quote=maker.certified_creation),
    )
    yield maker.made(
        "quote-as-creation",
        "a quote over the terms stands in the creation's place",
        V + "22",
        data=maker.ask(creation=maker.plain_quote),
    )


# ── which registers ──────────────────────────────────────────────────────────────────────────────


def _selections(maker: Maker) -> Iterator[Made]:
    halves = (PcrBank(Alg.SHA256, PCRS[:1]), PcrBank(Alg.SHA256, PCRS[1:]))
    selections = {
        "none": ("no bank at all", ()),
        "empty": ("the bank, and none of its registers", (PcrBank(Alg.SHA256, ()),)),
        "sha1": ("the SHA-1 bank", (PcrBank(Alg.SHA1, PCRS),)),
        "sha384": ("the SHA-384 bank", (PcrBank(Alg.SHA384, PCRS),)),
        "unallocated": (
            "a bank the TPM has not allocated, which it signs as an empty selection",
            (PcrBank(Alg.SHA512, PCRS),),
        ),
        "more": ("a register more than the policy's", (PcrBank(Alg.SHA256, (*PCRS, 9)),)),
        "fewer": ("a register fewer than the policy's", halves[:1]),
        "two-banks": ("another bank beside it", (*BANKS, PcrBank(Alg.SHA384, PCRS))),
    }
    for label, (words, banks) in selections.items():
        yield maker.made(
            f"selection-{label}",
            f"the quote is over {words}",
            *(V + "50", V + "51"),
            cve="CVE-2022-0317" if label in {"none", "empty", "more"} else "",
            data=maker.ask(selection=pack_selection(banks)),
        )
    yield maker.made(
        "selection-split",
        "the policy's registers in two entries of one bank: the digest is the golden one",
        V + "50",
        data=maker.ask(selection=pack_selection(halves)),
    )
    maker.boot(bootlog.BootState(firmware="evil firmware"))
    yield maker.made(
        "evil-boot",
        "another firmware was booted, and its log names it",
        *(V + "51", V + "37"),
        data=maker.ask(body={"event_log": maker.log}),
    )
    # Registers 16 and 23 can be reset by any program: the golden boot is extended there instead.
    maker.relabel()
    yield maker.made(
        "selection-relabelled",
        "an evil boot quotes registers 16 and 23, extended to the golden values of 0 and 7",
        *(V + "50", V + "37"),
        cve="CVE-2024-29039",
        data=maker.ask(
            selection=pack_selection((PcrBank(Alg.SHA256, (16, 23)),)),
            creation_selection=pack_selection((PcrBank(Alg.SHA256, (16, 23)),)),
        ),
    )
    maker.boot(bootlog.BootState())


# ── what an attestation is bound to ──────────────────────────────────────────────────────────────


def _bindings(maker: Maker) -> Iterator[Made]:
    extras = {
        "nothing": ("over nothing", b""),
        "constant": ("over the same words every time", bytes(32)),
        "stale": ("the one of an earlier request", maker.binding(maker.ask())),
        "foreign": ("the one made for the enrolment", maker.enrolment_request().qualifying()),
    }
    for label, (words, extra) in extras.items():
        yield maker.made(
            f"quote-{label}",
            f"the quote is {words}",
            V + "24",
            cve="CVE-2026-6420" if label == "constant" else "",
            data=maker.ask(quote_extra=extra),
        )
        yield maker.made(
            f"creation-{label}",
            f"the creation attestation is {words}",
            V + "24",
            data=maker.ask(creation_extra=extra),
        )
    yield maker.made(
        "outside-info",
        "TPM2_Create was given outsideInfo, which nothing here knows",
        V + "32",
        data=maker.ask(outside_info=b"anything"),
    )


# ── H ────────────────────────────────────────────────────────────────────────────────────────────


def _host_keys(maker: Maker) -> Iterator[Made]:
    flags = {
        "user-with-auth": (
            "opens by a password, past its policy",
            "USER_WITH_AUTH",
            "",
        ),
        "admin-with-policy": ("has ADMIN_WITH_POLICY set", "ADMIN_WITH_POLICY", ""),
        "exportable": ("can be duplicated to another TPM", "", "FIXED_TPM FIXED_PARENT"),
        "signing": ("signs as well", "SIGN", ""),
        "dictionary": ("counts wrong tries, which can be locked out", "", "NO_DA"),
    }
    for label, (words, more, less) in flags.items():
        yield maker.made(
            f"h-{label}",
            f"H {words}",
            V + "33",
            data=maker.ask(flags=_flags(more, less)),
        )
    yield maker.made(
        "h-owner-hierarchy",
        "H's parent is in the owner hierarchy: H outlives every boot",
        V + "36",
        data=maker.ask(hierarchy=ESYS_TR.OWNER),
    )
    yield maker.made(
        "h-endorsement-hierarchy",
        "H's parent is in the endorsement hierarchy: H outlives every boot, and TPM2_Clear",
        V + "36",
        data=maker.ask(hierarchy=ESYS_TR.ENDORSEMENT),
    )
    weaker = replace(
        HOST_PARENT_TEMPLATE, attributes=HOST_PARENT_TEMPLATE.attributes & ~Attributes.NO_DA
    )
    yield maker.made(
        "h-other-parent",
        "H's parent is in the NULL hierarchy and of another template",
        V + "36",
        data=maker.ask(parent=weaker),
    )
    yield maker.made(
        "creation-data-swapped",
        "H is in the owner hierarchy, and shows the creation data of a key that is not",
        V + "31",
        data=maker.ask(hierarchy=ESYS_TR.OWNER, shown=maker.good_key()),
    )
    yield from _policies(maker)


def _flags(more: str, less: str) -> tuple[Attributes, Attributes]:
    def value(words: str) -> Attributes:
        found = Attributes(0)
        for word in words.split():
            found |= Attributes[word]
        return found

    return value(more), value(less)


def _policies(maker: Maker) -> Iterator[Made]:
    tree, officers = signing_tree(maker.policy)
    names = {path: officer_key_name(spki) for path, spki in officers.items()}
    leaf = min(officers)

    def weaker(label: str, words: str, change: Change) -> Made:
        return maker.made(
            f"policy-{label}", f"H opens {words}", V + "35", data=maker.ask(auth_policy=change)
        )

    def boot_state(terms: Terms) -> bytes:
        held = conditions_of(terms, maker.golden)
        return policy_pcr(EMPTY, held.pcrs, held.pcr_digest)

    def conditioned(terms: Terms, /, **other: Any) -> bytes:
        held = replace(conditions_of(terms, maker.golden), **other)
        return host_policy(tree, officers, terms=terms.digest(), conditions=held)

    yield weaker("no-quorum", "to anybody in the approved boot state", boot_state)
    yield weaker(
        "quorum-alone",
        "to the quorum, in any boot state, for ever",
        lambda terms: quorum_policy(tree, names, ref=terms.digest()),
    )
    yield weaker(
        "one-officer",
        "to one officer alone",
        lambda terms: host_policy(
            Person(principal="sec1"),
            {"": officers[leaf]},
            terms=terms.digest(),
            conditions=conditions_of(terms, maker.golden),
        ),
    )
    for field, value, words in (
        ("counter", 2**40, "when the counter stands elsewhere"),
        ("deadline_ms", 2**62, "long after the deadline of the terms"),
        ("reset_count", 1, "in another boot"),
        ("restart_count", 7, "after a suspend"),
    ):
        yield weaker(
            field.replace("_", "-"),
            words,
            partial(conditioned, **{field: value}),
        )
    yield weaker(
        "other-terms",
        "to signatures on other terms",
        lambda terms: host_policy(
            tree, officers, terms=bytes(32), conditions=conditions_of(terms, maker.golden)
        ),
    )
    yield weaker("none", "to nobody's leave: there is no policy", lambda _: b"")


# ── the counter ──────────────────────────────────────────────────────────────────────────────────


def _counters(maker: Maker) -> Iterator[Made]:
    preset = NvPublic(
        index=0x01800C20,
        name_alg=Alg.SHA256,
        attributes=ORDINARY,
        auth_policy=b"",
        data_bytes=8,
    )
    written = replace(preset, attributes=ORDINARY | NvAttributes.WRITTEN)
    with maker.link("preset an index") as link:
        nv_define(link, preset)
        nv_write(link, preset.index, (1000).to_bytes(8, "big"))
    yield maker.made(
        "counter-preset",
        "no counter but an ordinary index, preset to N: its owner writes N again after a burn",
        V + "40",
        data=maker.ask(nv=written, counter=1000),
    )
    yield maker.made(
        "counter-claimed",
        "the same index, shown with a counter's public area and its own Name in the terms",
        V + "40",
        data=maker.ask(
            nv=written,
            counter=1000,
            body={"nv_public": counter_public(preset.index).pack()},
        ),
    )
    loose = counter_public(0x01800C21)
    loose = replace(loose, attributes=loose.attributes | NvAttributes.OWNER_WRITE)
    with maker.link("define a counter") as link:
        nv_define(link, replace(loose, attributes=loose.attributes & ~NvAttributes.WRITTEN))
        link.esys.nv_increment(link.esys.tr_from_tpmpublic(loose.index))
    yield maker.made(
        "counter-loose",
        "a counter that the owner's authorisation increments too",
        V + "40",
        data=maker.ask(nv=loose),
    )
    yield maker.made(
        "counter-other",
        "another counter than the terms name",
        V + "40",
        data=maker.ask(body={"nv_public": maker.host.allocate_counter((0x01800C00,)).public}),
    )


# ── the event log ────────────────────────────────────────────────────────────────────────────────


def _logs(maker: Maker) -> Iterator[Made]:
    whole = parse_event_log(maker.log)
    crtm, firmware_blob, *_ = whole.events
    separator = next(e for e in whole.events if (e.pcr, e.kind) == (0, EventType.SEPARATOR))
    variable = next(e for e in whole.events if e.pcr == 7)
    inside = crtm._replace(data=maker.log)
    changed: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
        "retyped": (
            "the firmware's event has a type that nobody knows; its digest is right",
            _with(whole, firmware_blob, firmware_blob._replace(kind=0x80000099)),
            ("54",),
        ),
        "retyped-separator": (
            "register 0's separator is called an action, which hides where the firmware ended",
            _with(whole, separator, separator._replace(kind=EventType.ACTION)),
            ("54",),
        ),
        "retyped-no-action": (
            "the firmware's event is called one that extends nothing",
            _with(whole, firmware_blob, firmware_blob._replace(kind=EventType.NO_ACTION)),
            ("53",),
        ),
        "data-exchanged": (
            "a Secure Boot variable's data were exchanged, and its digest was kept",
            _with(whole, variable, variable._replace(data=variable.data[:-1] + b"\0")),
            ("54",),
        ),
        "reordered": (
            "the first two events of register 0 are in the other order",
            replace(whole, events=(firmware_blob, crtm, *whole.events[2:])).pack(),
            ("53",),
        ),
        "left-out": (
            "the firmware's event was left out",
            replace(whole, events=tuple(e for e in whole.events if e != firmware_blob)).pack(),
            ("53",),
        ),
        "truncated": (
            "the log ends in the middle of an event",
            maker.log[:-7],
            ("54", "53"),
        ),
        "recursive": (
            "an event's data are a whole log of their own",
            replace(whole, events=(inside, *whole.events)).pack(),
            ("54", "53"),
        ),
        "oversize": (
            "the last event says that it has four gigabytes of data",
            _oversize(maker.log, whole.events[-1].data),
            ("54", "53"),
        ),
    }
    for label, (words, log, fails) in changed.items():
        yield maker.made(
            f"log-{label}",
            words,
            *(V + check for check in fails),
            cve="GHSA-hcm6-rjfh-f25p" if label == "recursive" else "",
            data=maker.ask(body={"event_log": log}),
        )


def _with(log: EventLog, old: Event, new: Event) -> bytes:
    """Write a log with the first ``old`` exchanged."""
    at = log.events.index(old)
    return replace(log, events=(*log.events[:at], new, *log.events[at + 1 :])).pack()


def _oversize(log: bytes, last: bytes) -> bytes:
    """Let the size before the last event's data be as large as it can."""
    at = len(log) - len(last) - 4
    return log[:at] + b"\xff\xff\xff\xff" + log[at + 4 :]


# ── the same evidence for something else ─────────────────────────────────────────────────────────


def _replays(maker: Maker) -> Iterator[Made]:
    data = maker.ask()
    yield maker.made("replay-good", "asked of the whole request: good", rule="request", data=data)
    yield maker.made(
        "replay-manifest",
        "good evidence, shown for another manifest than it was made for",
        "request.manifest",
        rule="request",
        manifest="11" * 32,
        data=data,
    )
    yield maker.made(
        "replay-manifest-renamed",
        "the same, the manifest in its terms exchanged: the TPM signed others",
        *(V + "24", V + "35"),
        rule="request",
        manifest="11" * 32,
        data=maker.renamed(data, manifest="11" * 32),
    )
    yield maker.made(
        "replay-policy",
        "good evidence under a policy that a newer one has replaced",
        "request.policy",
        rule="request",
        policies=("policy.dsse", "policy-2.dsse"),
        data=data,
    )
    yield maker.made(
        "replay-environment",
        "good evidence of production, shown in staging",
        "request.policy",
        "request.environment",
        "enrolment.environment",
        rule="request",
        policies=("policy-staging.dsse",),
        data=data,
    )
    yield maker.made(
        "h-reused",
        "H was seen before, in another request",
        V + "39",
        data=data,
        remembered=f"reset-count={maker.counts()[0]} h={maker.host_key_name(data)} "
        f"request={'22' * 32}",
    )
    yield maker.made(
        "firmware-changed",
        "the TPM's firmware is not the one enrolled: a flaw found in it may be back",
        V + "27",
        cve="CVE-2025-2884",
        data=data,
        enrolment=maker.record(firmware="20191023001636ff"),
    )


# ── other TPMs, other AKs ────────────────────────────────────────────────────────────────────────


def _strangers(maker: Maker, other: Swtpm) -> Iterator[Made]:
    owner = (ESYS_TR.OWNER, AK_TEMPLATE)
    yield maker.made(
        "ak-owner-hierarchy",
        "the AK is in the owner hierarchy, where boot counts and firmware come obfuscated",
        *(V + "23", V + "26", V + "27"),
        data=maker.ask(ak=owner),
        enrolment=maker.record(ak=owner),
    )
    bootlog.extend(other, maker.log)
    stranger = Maker.of(other, maker)
    yield maker.made(
        "cuckoo-quote",
        "another genuine TPM quotes for the enrolled one",
        *(V + "20", V + "23", V + "26"),
        cve="CVE-2022-1053",
        data=maker.ask(quote=stranger.quote_for_another),
    )
    yield maker.made(
        "cuckoo",
        "another genuine TPM of the same vendor made everything, under the enrolled host's name",
        V + "10",
        cve="CVE-2025-13609",
        data=stranger.ask(),
    )


# ── time ─────────────────────────────────────────────────────────────────────────────────────────


def _boots(maker: Maker) -> Iterator[Made]:
    reset = maker.counts()[0]
    data = maker.ask()
    yield maker.made(
        "boot-seen", "the judge saw this boot before", data=data, remembered=f"reset-count={reset}"
    )
    yield maker.made(
        "boot-went-back",
        "the judge has seen a later boot of this TPM: it was cleared, or this request is old",
        V + "26",
        data=data,
        remembered=f"reset-count={reset + 1}",
    )
    yield maker.made(
        "window",
        "the deadline is further off than the policy allows",
        V + "28",
        data=maker.ask(window_ms=maker.window_ms + 3_600_000),
    )
    yield maker.made(
        "deadline-passed",
        "quoted when the deadline of the terms was past by the TPM's clock",
        V + "28",
        data=maker.ask(window_ms=60_000, before_quote=lambda: maker.forward(120_000)),
    )
    events: dict[str, tuple[Callable[[Swtpm], None], str, bool]] = {
        "suspended": (Swtpm.suspend_resume, "suspended and resumed", False),
        "restarted": (Swtpm.shutdown_restart, "shut down with its state and restarted", True),
        "rebooted": (Swtpm.reboot, "rebooted", True),
    }
    for label, (event, words, reboots) in events.items():

        def happens(
            event: Callable[[Swtpm], None] = event, log: bytes = maker.log if reboots else b""
        ) -> None:
            event(maker.machine)
            if log:
                bootlog.extend(maker.machine, log)

        yield maker.made(
            f"{label}-before-quote",
            f"the machine was {words} between creation and quote",
            V + "26",
            cve="CVE-2018-6622" if label == "suspended" else "",
            data=maker.ask(before_quote=happens),
        )
        if label != "rebooted":
            yield maker.made(
                f"{label}-h-alive",
                f"the machine was {words} after the terms were fixed and H made; H still loads",
                V + "26",
                data=maker.ask(before_certify=happens),
            )
    maker.machine.power_cut()
    bootlog.extend(maker.machine, maker.log)
    yield maker.made(
        "clock-unsafe",
        "after a power cut the TPM's clock may have run back",
        V + "25",
        data=maker.ask(),
    )
    maker.machine.reboot()
    bootlog.extend(maker.machine, maker.log)


def _clear(maker: Maker) -> Iterator[Made]:
    with maker.link("clear it") as link:
        link.esys.clear(ESYS_TR.LOCKOUT)
    yield maker.made(
        "cleared",
        "TPM2_Clear set the clock back below every old deadline, and the boot count to 0",
        V + "26",
        data=maker.ask(),
    )


if __name__ == "__main__":
    main()
