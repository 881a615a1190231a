"""NV counters of requests and kept keys: what is bound to a value is dead once it has gone up.

A TPM remembers over the removal of counters how high any has stood: one that is made again stands
higher than it ever did.
"""

from __future__ import annotations

from tpm2_pytss.constants import ESYS_TR
from tpm2_pytss.types import TPM2B_NV_PUBLIC

from custody.errors import Refused
from custody.formats.tpmnv import (
    COUNTER_ATTRIBUTES,
    COUNTER_BYTES,
    NvAttributes,
    NvPublic,
    counter_public,
    nv_name,
)
from custody.formats.tpmwire import Alg, sized
from custody.keys.hostapi import Counter
from custody.keys.tpm_session import Connection, Handle, unmarshal

#: So many requests of one host can be open at a time (owner range of the registry).
COUNTER_FIRST = 0x01800C00
COUNTER_POOL = 4
POOL = range(COUNTER_FIRST, COUNTER_FIRST + COUNTER_POOL)


def pool(link: Connection) -> tuple[Counter, ...]:
    """Return the counters of requests that stand at a value."""
    return tuple(
        read(link, index)
        for index in link.handles(COUNTER_FIRST, COUNTER_POOL)
        if index in POOL and _written(link, index)
    )


def handle(link: Connection, index: int) -> Handle:
    """Return the handle of a counter, refusing an index that is none (``tpm.counter``)."""
    found = link.esys.tr_from_tpmpublic(index)
    public = bytes(link.esys.nv_read_public(found)[0].nvPublic.marshal())
    if public != counter_public(index).pack():
        raise Refused(f"NV index 0x{index:08x} is not a request's counter", check="tpm.counter")
    return found


def read(link: Connection, index: int) -> Counter:
    """Return a counter and what it stands at."""
    found = handle(link, index)
    public = counter_public(index).pack()
    session = link.salted_session()
    value = bytes(link.esys.nv_read(found, COUNTER_BYTES, session1=session))
    # A TPM without a resource manager holds three sessions, and the pool is larger.
    link.drop(session)
    return Counter(
        index=index,
        public=public,
        name=nv_name(public),
        value=int.from_bytes(value, "big"),
    )


def stand(link: Connection, index: int, *, owner_auth: bytes) -> Counter:
    """Return a counter as it stands, made where it is not there yet."""
    if index in link.handles(index, 1) and _written(link, index):
        return read(link, index)
    return renew(link, index, owner_auth=owner_auth)


def renew(link: Connection, index: int, *, owner_auth: bytes) -> Counter:
    """Make a counter or increment it: whatever was bound to its value before is dead now."""
    if index not in link.handles(index, 1):
        _define(link, index, owner_auth)
    increment(link, link.esys.tr_from_tpmpublic(index))
    return read(link, index)


def increment(link: Connection, counter: Handle, *, times: int = 1) -> None:
    """Raise a counter, by one each time."""
    # In a session: on somebody else's word that it was done, what should be dead would live.
    session = link.salted_session()
    for _ in range(times):
        link.esys.nv_increment(counter, session1=session)
    link.drop(session)


def _define(link: Connection, index: int, owner_auth: bytes) -> None:
    public = NvPublic(
        index=index,
        name_alg=Alg.SHA256,
        attributes=COUNTER_ATTRIBUTES,
        auth_policy=b"",
        data_bytes=COUNTER_BYTES,
    )
    link.esys.tr_set_auth(ESYS_TR.OWNER, owner_auth)
    link.esys.nv_define_space(
        b"",
        unmarshal(TPM2B_NV_PUBLIC, sized(public.pack())),
        session1=link.salted_session(),
    )


def _written(link: Connection, index: int) -> bool:
    public = link.esys.nv_read_public(link.esys.tr_from_tpmpublic(index))[0].nvPublic
    return bool(NvAttributes.WRITTEN & int(public.attributes))
