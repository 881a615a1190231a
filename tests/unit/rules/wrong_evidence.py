"""Every way in which evidence can be wrong in one thing, and what of it must still pass."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.bind import bind
from custody.crypto.quorum import Person
from custody.crypto.tpmpolicy import host_policy
from custody.encoding import key_id
from custody.formats.evidence import (
    AK_TEMPLATE,
    HOST_PARENT_TEMPLATE,
    MAGIC,
    RH_ENDORSEMENT,
    RH_NULL,
    Alg,
    Attest,
    Attributes,
    Curve,
    EccPublic,
    NvAttributes,
    NvCertified,
    PcrBank,
    counter_public,
    host_key_template,
    name,
    pack_quote,
    parse_attest,
    parse_public,
    qualified_name,
    unpack_quote,
)
from custody.formats.request import Request
from custody.formats.state import KeyMemory
from custody.lab import bootlog
from custody.rules.attestation import conditions_of
from custody.rules.quorum import signing_tree
from tests.unit.formats.fixed import spki as fixed_spki
from tests.unit.rules.attesting import (
    BANKS,
    CREATED_MS,
    FIRMWARE,
    LOG,
    PCRS,
    QUOTED_MS,
    Case,
    Cases,
    Change,
    body,
    clock,
    evidence,
    golden_set,
    key_of,
    on,
    policy,
    public,
    record,
    seen,
    signature,
    to,
)

AK = public(AK_TEMPLATE, "ak").pack()
OTHER_AK = public(AK_TEMPLATE, "another ak").pack()
H_NAME = name(evidence().statement.predicate.key.public).hex()
WINDOW_MS = policy().limits.request_window_seconds * 1000
OTHER_PCRS = (PcrBank(Alg.SHA256, (0, 2, 4, 8)),)
EVIL = bootlog.record(bootlog.BootState(loader="evil loader"))


@cache
def cases() -> tuple[Case, ...]:
    """List them all, the good ones first."""
    made = Cases()
    for group in (
        _good,
        _ak,
        _attests,
        _clock,
        _host_key,
        _policies,
        _parent,
        _counter,
        _pcrs,
        _log,
    ):
        group(made)
    return tuple(made)


def _good(made: Cases) -> None:
    made.add("nothing is wrong")
    made.add("the last request was in this boot", remembered=to(seen(3)))
    made.add("the last request was in an earlier boot", remembered=to(seen(2)))
    made.add("H was seen, in this very request", remembered=_itself)
    made.add("others' keys were seen", remembered=to(seen(3, **{"000b" + "00" * 32: "11" * 32})))
    made.add("the first boot of a TPM", terms=on(reset_count=1), **_counts(1, 1))
    made.add(
        "the first boot of a TPM, seen before",
        terms=on(reset_count=1),
        remembered=to(seen(1)),
        **_counts(1, 1),
    )
    made.add("the deadline is the next millisecond", terms=on(deadline_ms=QUOTED_MS + 1))
    made.add("made and quoted in one millisecond", quoted=clock(clock_ms=CREATED_MS))
    made.add("a P-384 key", h=to(_on_p384()), request=on(suite="P384"))
    made.add(
        "a hybrid key",
        h=to(_on_p384()),
        request=on(suite="MLKEM1024_P384", mlkem=bytes(1568)),
    )


def _itself(_: object) -> object:
    own = evidence().statement
    return seen(3, **{H_NAME: own.digest})


def _counts(reset: int, restart: int) -> dict[str, Change]:
    return {
        which: clock(reset_count=reset, restart_count=restart) for which in ("created", "quoted")
    }


def _on_p384() -> EccPublic:
    point = ec.derive_private_key(7, ec.SECP384R1()).public_key().public_numbers()
    opens = _authorised()
    template = host_key_template(Curve.P384, opens)
    return replace(template, x=point.x.to_bytes(48, "big"), y=point.y.to_bytes(48, "big"))


def _authorised() -> bytes:
    return parse_public(evidence().statement.predicate.key.public).auth_policy


def _ak(made: Cases) -> None:
    made.add("V10: another AK is enrolled", "V10", enrolment=to(record(OTHER_AK)))
    made.add("V10: the record's Name is another", "V10", enrolment=on(ak_name="000b" + "00" * 32))
    made.add("V10: the record's public area is another", "V10", enrolment=on(ak_public=OTHER_AK))
    made.add("V10: terms name another AK", "V10", terms=on(ak_name="000b" + "00" * 32))
    for bit in Attributes:
        flipped = AK_TEMPLATE.attributes ^ bit
        made.add(
            f"V11: an AK with {bit.name} the other way",
            "V11",
            ak=on(attributes=flipped),
        )
    made.add("V11: an AK with a policy", "V11", ak=on(auth_policy=bytes(32)))
    made.add("V12: the envelope names another key", "V12", keyid=to("ab" * 32))
    made.add("V12: the envelope names the record's key", "V12", keyid=to(key_id(fixed_spki("h"))))
    made.add("V14: terms name another EK", "V14", terms=on(ek_spki="00" * 32))
    made.add("V14: the record is of another EK", "V14", enrolment=on(ek_spki="00" * 32))
    for trust in ("hardware", "firmware", "virtual"):
        made.add(f"V16: class {trust} is not taken", "V16", enrolment=on(trust_class=trust))


def _attests(made: Cases) -> None:
    other = _by("another ak")
    made.add("V20: another key signed the creation", "V20", created_signature=other)
    made.add("V20: another key signed the quote", "V20", quote_signature=other)
    made.add("V20: the AK signed other bytes than the creation", "V20", request=_signed_otherwise)
    junk_magic = (MAGIC ^ 1).to_bytes(4, "big")
    made.add("V21: a quote without magic", "V21", quote=_quote_head(junk_magic, 0))
    made.add("V21: a creation without magic", "V21", request=_creation_head(junk_magic, 0))
    made.add("V21: nothing was made in a TPM", "V21", **_both_heads(junk_magic, 0))
    for kind, label in ((0x8014, "NV"), (0x8017, "certify"), (0x8019, "time"), (0x801C, "digest")):
        head = kind.to_bytes(2, "big")
        made.add(f"V22: the head of an {label} attestation", "V22", quote=_quote_head(head, 4))
        made.add(f"V22: {label} for the creation", "V22", request=_creation_head(head, 4))
    made.add("V22: a creation for the quote", "V22", quoted=lambda _: _of(evidence(), "created"))
    made.add("V22: a quote for the creation", "V22", created=lambda _: _of(evidence(), "quoted"))
    made.add("V22: an NV index for the quote", "V22", quoted=on(body=_certified()))
    made.add("V22: each in the other's place", "V22", **_swapped())
    made.add("V02: a quote with a byte behind it", "V02", quoted=_longer)
    made.add("V02: a quote that is cut short", "V02", quote=to(b"\x00\x91" + bytes(9)))
    made.add("V02: a quote of three bytes", "V02", quote=to(pack_quote(b"\xffTC", b"")))
    made.add("V02: H that does not parse", "V02", request=key_of(public=b"\x00"))
    made.add("V02: H with a byte behind it", "V02", request=_padded("public"))
    made.add("V02: a parent with a byte behind it", "V02", request=_padded("parent_public"))
    made.add("V02: creation data with a byte behind them", "V02", request=_padded("creation_data"))
    made.add("V02: an NV public with a byte behind it", "V02", request=_with("nv_public"))
    made.add("V02: an AK with a byte behind it", "V02", request=_with("ak_public"))
    elsewhere = on(signer=qualified_name(RH_NULL, name(AK)))
    made.add("V23: an AK elsewhere, by the creation", "V23", created=elsewhere)
    made.add("V23: an AK elsewhere, by the quote", "V23", quoted=elsewhere)
    made.add("V23: a plain Name for a Qualified Name", "V23", quoted=on(signer=name(AK)))
    terms = evidence().statement.predicate.terms.digest()
    for extra, label in ((b"", "nothing"), (bytes(32), "zeros"), (b"request", "words")):
        made.add(f"V24: the creation is over {label}", "V24", created=on(extra_data=extra))
        made.add(f"V24: the quote is over {label}", "V24", quoted=on(extra_data=extra))
    made.add("V24: the quote is over the terms", "V24", quoted=on(extra_data=terms))
    own = bytes.fromhex(evidence().statement.digest)
    made.add("V24: the quote is a receipt's", "V24", quoted=on(extra_data=bind("receipt", own)))
    made.add("V24: the quote is the bare digest", "V24", quoted=on(extra_data=own))
    made.add("V24: the creation is of other terms", "V24", "V35", request=_other_terms)
    for which in ("created", "quoted"):
        newer = on(firmware_version=FIRMWARE + 1)
        made.add(f"V27: other firmware, {which}", "V27", **{which: newer})
    made.add("V27: other firmware is enrolled", "V27", enrolment=on(firmware="0" * 16))


def _by(words: str) -> Change:
    return lambda _: lambda attest: signature(attest, words)


def _signed_otherwise(request: Request) -> object:
    held = request.key.attest
    return key_of(signature=signature(held + b"\0"))(request)


def _quote_head(head: bytes, at: int) -> Change:
    def change(quote: bytes) -> bytes:
        return quote[: 2 + at] + head + quote[2 + at + len(head) :]

    return change


def _creation_head(head: bytes, at: int) -> Change:
    def change(request: Request) -> object:
        held = request.key.attest
        return key_of(attest=held[:at] + head + held[at + len(head) :])(request)

    return change


def _both_heads(head: bytes, at: int) -> dict[str, Change]:
    return {"quote": _quote_head(head, at), "request": _creation_head(head, at)}


def _of(case: Case, which: str) -> object:
    if which == "created":
        return parse_attest(case.statement.predicate.key.attest)
    return parse_attest(unpack_quote(case.statement.envelope.signatures[0].sig).attest)


def _certified() -> NvCertified:
    return NvCertified(index_name=b"\x00\x0b" + bytes(32), offset=0, contents=bytes(64))


def _swapped() -> dict[str, Change]:
    return {
        "created": lambda _: _of(evidence(), "quoted"),
        "quoted": lambda _: _of(evidence(), "created"),
    }


def _longer(attest: Attest) -> object:
    class Longer:
        def pack(self) -> bytes:
            return attest.pack() + b"\0"

    return Longer()


def _padded(which: str) -> Change:
    return lambda request: key_of(**{which: getattr(request.key, which) + b"\0"})(request)


def _with(which: str) -> Change:
    return lambda request: on(**{which: getattr(request, which) + b"\0"})(request)


def _other_terms(request: Request) -> object:
    return on(terms=on(counter=8)(request.terms))(request)


def _clock(made: Cases) -> None:
    made.add("V25: an unsafe clock at the creation", "V25", created=clock(safe=False))
    made.add("V25: an unsafe clock at the quote", "V25", quoted=clock(safe=False))
    for which in ("created", "quoted"):
        for count in ("reset_count", "restart_count"):
            for value in (0, 2, 4):
                made.add(
                    f"V26: {which} at {count} {value}", "V26", **{which: clock(**{count: value})}
                )
    for count, value in (("reset_count", 4), ("restart_count", 0), ("restart_count", 2)):
        made.add(f"V26: terms say {count} {value}", "V26", terms=on(**{count: value}))
    made.add("V26: reset and restart exchanged", "V26", **_counts(1, 3))
    made.add("V26: the boot count went back", "V26", remembered=to(seen(4)))
    made.add("V26: a TPM that was cleared", "V26", terms=on(reset_count=0), **_counts(0, 1))
    made.add("V26: the same, seen at nought", "V26", **_cleared_and_remembered())
    made.add("V26: quoted before it was created", "V26", quoted=clock(clock_ms=CREATED_MS - 1))
    made.add("V28: the deadline is now", "V28", terms=on(deadline_ms=QUOTED_MS))
    made.add("V28: the deadline is past", "V28", terms=on(deadline_ms=1))
    late = CREATED_MS + WINDOW_MS + 1
    made.add("V28: further than the window", "V28", terms=on(deadline_ms=late))
    made.add(
        "V28: within the window after the quote only",
        "V28",
        terms=on(deadline_ms=QUOTED_MS + WINDOW_MS),
    )


def _cleared_and_remembered() -> dict[str, Change]:
    return {"terms": on(reset_count=0), "remembered": to(seen(0)), **_counts(0, 1)}


def _host_key(made: Cases) -> None:
    made.add("V30: another key was created", "V30", created=body(object_name=name(AK)))
    made.add("V31: creation data were swapped", "V31", created=body(creation_hash=bytes(32)))
    made.add("V32: outsideInfo is there", "V32", creation=on(outside_info=b"x"))
    for bit in Attributes:
        made.add(f"V33: H with {bit.name} the other way", "V33", h=_toggled(bit))
    made.add("V33: H with a scheme", "V33", h=on(signing_hash=Alg.SHA256))
    made.add("V33: H as a storage key", "V33", h=on(symmetric_bits=128))
    made.add("V33: a P-256 key in a P-384 request", "V33", request=on(suite="P384"))
    made.add("V33: a P-384 key in a P-256 request", "V33", h=to(_on_p384()))
    made.add(
        "V33: a hybrid request on P-256",
        "V33",
        request=on(suite="MLKEM1024_P384", mlkem=bytes(1568)),
    )
    made.add("V34: an ML-KEM key beside a classical H", "V34", request=on(mlkem=bytes(1568)))
    made.add(
        "V34: a hybrid without its ML-KEM key",
        "V34",
        h=to(_on_p384()),
        request=on(suite="MLKEM1024_P384"),
    )
    another = (KeyMemory(name=H_NAME, request="11" * 32),)
    made.add("V39: H was seen in another request", "V39", remembered=to(on(keys=another)(seen(3))))
    made.add("V38: H was made at locality 1", "V38", creation=on(locality=2))
    made.add("V38: H was made at no locality", "V38", creation=on(locality=0))
    made.add("V38: H was made at locality 0 and 1", "V38", creation=on(locality=3))


def _toggled(bit: Attributes) -> Change:
    return lambda h: replace(h, attributes=h.attributes ^ bit)


def _policies(made: Cases) -> None:
    """V35: each part of the policy weaker, left out, or somebody else's."""
    tree, officers = signing_tree(policy())
    asked = evidence().statement.predicate.terms
    good = conditions_of(asked, golden_set())
    ref = asked.digest()
    leaf = next(iter(officers))
    weaker = {
        "one officer alone": host_policy(
            Person(principal="sec1"), {"": officers[leaf]}, terms=ref, conditions=good
        ),
        "other terms signed": host_policy(tree, officers, terms=bytes(32), conditions=good),
        "other officers": host_policy(
            tree, dict.fromkeys(officers, fixed_spki("ak")), terms=ref, conditions=good
        ),
    }
    for field, value in (
        ("pcrs", (16, 18, 20, 23)),
        ("pcr_digest", bytes(32)),
        ("nv_name", name(AK)),
        ("counter", 8),
        ("deadline_ms", 2**62),
        ("reset_count", 4),
        ("restart_count", 2),
    ):
        changed = replace(good, **{field: value})  # type: ignore[arg-type]
        weaker[f"another {field}"] = host_policy(tree, officers, terms=ref, conditions=changed)
    weaker["no policy"] = b""
    weaker["zeros"] = bytes(32)
    for label, digest in weaker.items():
        made.add(f"V35: {label}", "V35", auth_policy=to(digest))
    made.add(
        "V35: the tree in force is another",
        "V35",
        judged_policy=on(quorum=Person(principal="sec1")),
    )


def _parent(made: Cases) -> None:
    for bit in Attributes:
        flipped = HOST_PARENT_TEMPLATE.attributes ^ bit
        made.add(
            f"V36: a parent with {bit.name} the other way",
            "V36",
            parent=on(attributes=flipped),
        )
    parent = name(public(HOST_PARENT_TEMPLATE, "parent").pack())
    for handle, label in ((RH_ENDORSEMENT, "endorsement"), (0x40000001, "owner")):
        made.add(
            f"V36: under the {label} hierarchy",
            "V36",
            creation=on(parent_qualified_name=qualified_name(handle, parent)),
        )
    below = qualified_name(qualified_name(RH_NULL, parent), parent)
    made.add("V36: a level further down", "V36", creation=on(parent_qualified_name=below))
    made.add("V36: another parent's Name", "V36", creation=on(parent_name=name(AK)))
    made.add("V36: another parent is shown", "V36", request=key_of(parent_public=AK))


def _counter(made: Cases) -> None:
    for bit in (NvAttributes.COUNTER, NvAttributes.WRITTEN, NvAttributes.NO_DA):
        made.add(f"V40: an index without {bit.name}", "V40", nv=_flipped(bit))
    for bit in (
        NvAttributes.OWNER_WRITE,
        NvAttributes.POLICY_WRITE,
        NvAttributes.PP_WRITE,
        NvAttributes.ORDERLY,
        NvAttributes.POLICY_DELETE,
        NvAttributes.CLEAR_ST_CLEAR,
    ):
        made.add(f"V40: an index with {bit.name}", "V40", nv=_flipped(bit))
    made.add("V40: nine bytes", "V40", nv=on(data_bytes=9))
    made.add("V40: an index with a policy", "V40", nv=on(auth_policy=bytes(32)))
    made.add("V40: an index with a SHA-384 Name", "V40", nv=on(name_alg=Alg.SHA384))
    other = counter_public(0x01800C01).pack()
    made.add("V40: not the index of the terms", "V40", request=on(nv_public=other))


def _flipped(bit: NvAttributes) -> Change:
    return lambda nv: replace(nv, attributes=nv.attributes ^ bit)


def _pcrs(made: Cases) -> None:
    made.add("V50: other registers", "V50", quoted=body(banks=OTHER_PCRS))
    made.add("V50: no register", "V50", quoted=body(banks=()))
    made.add("V50: an empty bank", "V50", quoted=body(banks=(PcrBank(Alg.SHA256, ()),)))
    made.add("V50: SHA-1", "V50", quoted=body(banks=(PcrBank(Alg.SHA1, PCRS),)))
    made.add("V50: SHA-384", "V50", quoted=body(banks=(PcrBank(Alg.SHA384, PCRS),)))
    made.add("V50: one bank twice", "V50", quoted=body(banks=BANKS * 2))
    halves = (PcrBank(Alg.SHA256, (0, 2)), PcrBank(Alg.SHA256, (4, 7)))
    made.add("V50: one bank in two parts", "V50", quoted=body(banks=halves))
    more = (PcrBank(Alg.SHA256, (*PCRS, 9)),)
    made.add("V50: a register more", "V50", quoted=body(banks=more))
    made.add("V51: another value", "V51", quoted=body(pcr_digest=bytes(32)))
    made.add("V51: terms name another state", "V51", terms=on(pcr_digest="00" * 32))
    # H's policy is made from the terms, so what it would open in is the evil state.
    evil = golden_set(EVIL)
    made.add(
        "V51 V37: an evil loader", "V51", "V37", judged_golden=to(golden_set()), golden=to(evil)
    )
    seven = to(golden_set(pcrs=(0, 2, 4)))
    made.add(
        "V50: a golden set over fewer registers",
        *("V50", "V51", "V37", "V35"),
        judged_golden=seven,
    )
    made.add("V37: made with other registers", "V37", creation=on(banks=OTHER_PCRS))
    made.add("V37: made with no register", "V37", creation=on(banks=()))
    made.add("V37: made in another state", "V37", creation=on(pcr_digest=bytes(32)))
    registers = on(host=msgspec.structs.replace(policy().host, pcrs=(0, 2, 4)))
    made.add("V50 V37: the policy asks for others", "V50", "V37", judged_policy=registers)


def _log(made: Cases) -> None:
    required = on(host=msgspec.structs.replace(policy().host, event_log="required"))
    made.add("a log that explains the quote", request=on(event_log=LOG), judged_policy=required)
    made.add("V53: no log where one is due", "V53", judged_policy=required)
    # The judge believes the registers; the log is of the same boot with another loader.
    made.add("V53: the log of another boot", "V53", request=on(event_log=EVIL))
    made.add("V53 V54: no log at all", "V53", "V54", request=on(event_log=b"junk"))
    # Its reason names the loader: see `test_a_changed_component_is_named`.
    made.add(
        "V51 V37: an evil loader and its log",
        "V51",
        "V37",
        judged_golden=to(golden_set()),
        golden=to(golden_set(EVIL)),
        request=on(event_log=EVIL),
    )
    # A log that explains golden values does not explain the values quoted.
    made.add(
        "V51 V53: a golden log beside an evil quote",
        "V51",
        "V53",
        request=on(event_log=LOG),
        quoted=body(pcr_digest=bytes(32)),
    )
