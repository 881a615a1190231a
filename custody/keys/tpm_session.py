"""One conversation with a TPM: connect, talk in salted encrypted sessions, leave nothing behind.

A connection lasts for one operation, or for several that are asked together.  Whatever an operation
loads is flushed when it ends, on every path, and what several share when the connection closes: a
TPM without a resource manager has three slots, and a handle left behind takes one until the next
boot.

Sessions are salted to the endorsement key (part 1 section 19.6.8), whose public area is rebuilt
from its certificate and the TCG template.  Somebody on the bus who answers with a key of his own is
refused before a secret is sent, and everything secret is encrypted to the real one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# tss2 writes its own words to stderr; ours are in the error that is raised.
os.environ.setdefault("TSS2_LOG", "all+none")

from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import (
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_SE,
    TPMA_SESSION,
)
from tpm2_pytss.types import TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE

from custody.errors import Malformed, Refused, Unavailable
from custody.formats.evidence import Alg, ek_publics
from custody.formats.tpmek import EK_TEMPLATES, L_1, EkTemplate
from custody.formats.tpmwire import sized
from custody.keys.tpm_errors import translate

_SESSION_HASHES = {Alg.SHA256: TPM2_ALG.SHA256, Alg.SHA384: TPM2_ALG.SHA384}
_TRANSIENT_FIRST = 0x80000000
_HMAC_SESSION_FIRST = 0x02000000
_MAX_HANDLES = 64
_NV_CHUNK_BYTES = 1024
_MAX_CERTIFICATE_BYTES = 4096

_NO_TPM = "is there a /dev/tpmrm0, and is your user in its group (tss)?"

#: A TPM handle as tpm2-tss hands it out.
Handle = Any


class EndorsementKey(msgspec.Struct, frozen=True):
    """An EK that sessions may be salted to: its TPMT_PUBLIC, and the template it is made by."""

    public: bytes
    template: EkTemplate


class Tpm:
    """A way to one TPM.

    ``tcti`` is a tpm2-tss TCTI configuration (None: the system's own choice).  ``ek_spki`` pins
    the endorsement key, by the certificate in the host's enrolment; without it the certificate in
    the TPM names the key, and a TPM that has none is taken at its word.
    """

    def __init__(self, tcti: str | None = None, *, ek_spki: bytes | None = None) -> None:
        self._tcti = tcti
        self._eks = () if ek_spki is None else _endorsement_keys(ek_spki)
        self._here = threading.local()

    @property
    def where(self) -> str:
        """Name this TPM in errors."""
        return self._tcti or "tpm"

    @contextmanager
    def connect(self, doing: str) -> Iterator[Connection]:
        """Open a connection to do one thing, named by ``doing`` in errors; or use the held one."""
        held = self._held()
        if held is None:
            with self._opened(doing) as link:
                yield link
            return
        try:
            with held.one_thing():
                yield held
        except TSS2_Exception as error:
            raise translate(error, doing, where=self.where) from error

    @contextmanager
    def hold(self, doing: str) -> Iterator[None]:
        """Do all that this thread does in the block in one connection."""
        if self._held() is not None:
            yield
            return
        with self._opened(doing) as link:
            self._here.link = link
            try:
                yield
            finally:
                self._here.link = None

    def _held(self) -> Connection | None:
        return getattr(self._here, "link", None)

    @contextmanager
    def _opened(self, doing: str) -> Iterator[Connection]:
        try:
            esys = ESAPI(self._tcti)
        except TSS2_Exception as error:
            raise Unavailable(
                "there is no TPM, or it does not answer", where=self.where, hint=_NO_TPM
            ) from error
        link = Connection(esys, self._endorsement_keys, self._settle)
        try:
            if (self._tcti or "").startswith("swtpm"):
                # Nothing stands between us and a software TPM: what a killed process left loaded
                # would otherwise stay until the next boot.
                link.flush_stale()
            yield link
        except TSS2_Exception as error:
            raise translate(error, doing, where=self.where) from error
        finally:
            link.close()

    def _endorsement_keys(self, link: Connection) -> tuple[EndorsementKey, ...]:
        if not self._eks:
            self._eks = _find_endorsement_keys(link)
        return self._eks

    def _settle(self, found: EndorsementKey) -> None:
        # One key fits two templates; once the TPM has shown by which it is made, there is one.
        self._eks = (found,)


class Connection:
    """An open connection.  Every handle given to `keep` is flushed when it closes."""

    def __init__(
        self,
        esys: Any,
        find: Callable[[Connection], tuple[EndorsementKey, ...]],
        settle: Callable[[EndorsementKey], None],
    ) -> None:
        self.esys = esys
        self._find = find
        self._settle = settle
        self._loaded: list[Handle] = []
        self._shared: dict[object, Handle] = {}

    @property
    def endorsement_key(self) -> EndorsementKey:
        """The EK that sessions are salted to, found when the first one is."""
        if len(self._find(self)) > 1:
            self.drop(self.load_endorsement_key())
        return self._find(self)[0]

    def keep(self, handle: Handle) -> Handle:
        """Flush ``handle`` when the connection closes, if `drop` has not done it before."""
        self._loaded.append(handle)
        return handle

    def drop(self, handle: Handle) -> None:
        """Flush a kept handle now; a persistent key is left where it is."""
        if handle in self._loaded:
            self._loaded.remove(handle)
            self.esys.flush_context(handle)

    def shared(self, what: object, make: Callable[[], Handle]) -> Handle:
        """Return what several operations of one connection use, made by the first of them."""
        if what not in self._shared:
            self._shared[what] = make()
        return self._shared[what]

    def unshare(self, what: object) -> None:
        """Flush what is shared, on an error; the next operation makes its own."""
        if what in self._shared:
            handle = self._shared.pop(what)
            self._flush([other for other in self._loaded if other != handle])

    @contextmanager
    def one_thing(self) -> Iterator[None]:
        """Flush at the end of the block what it loaded and does not share."""
        before = list(self._loaded)
        try:
            yield
        finally:
            self._flush([*before, *self._shared.values()])

    def close(self) -> None:
        """Flush everything and hang up."""
        self._shared.clear()
        self._flush(())
        self.esys.close()

    def _flush(self, left: Collection[Handle]) -> None:
        for handle in reversed([handle for handle in self._loaded if handle not in left]):
            # A TPM that has gone away has nothing left to flush, and the first error counts.
            with suppress(TSS2_Exception):
                self.esys.flush_context(handle)
        self._loaded = [handle for handle in self._loaded if handle in left]

    def handles(self, first: int, count: int = _MAX_HANDLES) -> tuple[int, ...]:
        """List up to ``count`` handles of the TPM from ``first`` on, of the same kind."""
        return self._handles(first, count, ESYS_TR.NONE)

    def attested_handles(self, first: int, count: int = _MAX_HANDLES) -> tuple[int, ...]:
        """List as `handles` does, in an audit session: nobody on the bus can leave one out."""
        session = self.salted_session()
        # Nothing here is secret, and the answer's first field is none that can be encrypted.
        self.esys.trsess_set_attributes(session, TPMA_SESSION.AUDIT | TPMA_SESSION.CONTINUESESSION)
        found = self._handles(first, count, session)
        self.drop(session)
        return found

    def _handles(self, first: int, count: int, session: Handle) -> tuple[int, ...]:
        _, found = self.esys.get_capability(TPM2_CAP.HANDLES, first, count, session1=session)
        return tuple(int(handle) for handle in found.data.handles)

    def flush_stale(self) -> None:
        """Flush transient objects and sessions nobody can own any more."""
        for first in (_TRANSIENT_FIRST, _HMAC_SESSION_FIRST):
            for number in self.handles(first):
                self.esys.flush_context(self.esys.tr_from_tpmpublic(number))

    def salted_session(self, *, policy: bool = False, alg: Alg = Alg.SHA256) -> Handle:
        """Start an HMAC or policy session salted to the EK, encrypting both ways (AES-128-CFB).

        ``alg`` is the session's hash: of a policy session, the name hash of what it is to open.
        """
        ek = self.load_endorsement_key()
        session = self.keep(
            self.esys.start_auth_session(
                tpm_key=ek,
                bind=ESYS_TR.NONE,
                session_type=TPM2_SE.POLICY if policy else TPM2_SE.HMAC,
                symmetric="aes128cfb",
                auth_hash=_SESSION_HASHES[alg],
            )
        )
        self.drop(ek)
        attributes = TPMA_SESSION.DECRYPT | TPMA_SESSION.ENCRYPT | TPMA_SESSION.CONTINUESESSION
        self.esys.trsess_set_attributes(session, attributes)
        return session

    def load_endorsement_key(self) -> Handle:
        """Return the EK's handle, refusing any key but the expected one (``tpm.ek``)."""
        candidates = self._find(self)
        for expected in candidates:
            place = expected.template.persistent
            if place in self.handles(place, 1):
                handle = self.esys.tr_from_tpmpublic(place)
                if self._holds(handle, expected.public):
                    self._settle(expected)
                    return handle
        # Not persisted, or something else is in its place: the seed makes it again.
        for expected in candidates:
            template = self._creation(expected.template)
            handle = self.keep(self.create_primary(ESYS_TR.ENDORSEMENT, template))
            if self._holds(handle, expected.public):
                self._settle(expected)
                return handle
            self.drop(handle)
        raise Refused("the TPM's EK is not the one its certificate names", check="tpm.ek")

    def _creation(self, template: EkTemplate) -> bytes:
        """Return what makes an EK again, with the nonce that some vendors leave beside it."""
        # Whatever is in the index: what it makes is held against the certificate's key.
        if template.nonce is None or template.nonce not in self.handles(template.nonce, 1):
            return template.creation
        return template.creation_with(self.nv_read(template.nonce))

    def create_primary(
        self, hierarchy: Handle, template: bytes, *, session: Handle = ESYS_TR.PASSWORD
    ) -> Handle:
        """Make a primary key from a TPMT_PUBLIC; the caller keeps or flushes it.

        ``session`` shows the hierarchy's authorisation, which without one crosses the bus.
        """
        return self.esys.create_primary(
            TPM2B_SENSITIVE_CREATE(),
            unmarshal(TPM2B_PUBLIC, sized(template)),
            hierarchy,
            session1=session,
        )[0]

    def _holds(self, handle: Handle, public: bytes) -> bool:
        # It is tss's own copy that a session is salted with; asking the TPM again would let
        # somebody on the bus answer twice, differently.
        return bool(self.esys.tr_serialize(handle).endswith(sized(public)))

    def public(self, handle: Handle) -> bytes:
        """Return the TPMT_PUBLIC of a loaded key."""
        return bytes(self.esys.read_public(handle)[0].publicArea.marshal())

    def nv_read(self, index: int) -> bytes:
        """Read a whole NV index with its own, empty, authorisation."""
        handle = self.esys.tr_from_tpmpublic(index)
        size = self.esys.nv_read_public(handle)[0].nvPublic.dataSize
        if size > _MAX_CERTIFICATE_BYTES:
            raise Malformed(f"NV index 0x{index:08x} is larger than any certificate")
        data = b""
        while len(data) < size:
            piece = min(_NV_CHUNK_BYTES, size - len(data))
            data += bytes(self.esys.nv_read(handle, piece, len(data)))
        return data


def unmarshal(kind: Any, data: bytes) -> Any:
    """Read one whole TPM structure for tpm2-tss; anything else is `Malformed`."""
    try:
        value, used = kind.unmarshal(data)
    except TSS2_Exception as error:
        raise Malformed(f"not a {kind.__name__}") from error
    if used != len(data):
        raise Malformed(f"not a {kind.__name__}: {len(data) - used} trailing bytes")
    return value


def read_certificates(data: bytes) -> tuple[bytes, ...]:
    """Cut DER certificates that stand one behind the other; padding behind the last is dropped."""
    found = []
    at = 0
    # Vendors fill up what the certificate leaves of its index, with zeros or 0xff.
    while data[at : at + 2] == b"\x30\x82" and len(data) >= at + 4:
        end = at + 4 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data):
            break
        found.append(data[at:end])
        at = end
    return tuple(found)


def read_ek_certificate(link: Connection) -> bytes | None:
    """Return the first EK certificate the TPM holds, by the order of `EK_TEMPLATES`.

    TCG EK Credential Profile 2.5, section 2.2.1: each template has an NV index of its own.
    """
    for template in EK_TEMPLATES:
        index = template.certificate
        if index in link.handles(index, 1):
            found = read_certificates(link.nv_read(index))
            if found:
                return found[0]
    return None


def _endorsement_keys(spki: bytes) -> tuple[EndorsementKey, ...]:
    return tuple(EndorsementKey(public, template) for template, public in ek_publics(spki))


def _find_endorsement_keys(link: Connection) -> tuple[EndorsementKey, ...]:
    held = read_ek_certificate(link)
    if held is not None:
        return _endorsement_keys(certificate_spki(held))
    handle = link.keep(link.create_primary(ESYS_TR.ENDORSEMENT, L_1.creation))
    public = link.public(handle)
    link.drop(handle)
    return (EndorsementKey(public, L_1),)


def certificate_spki(certificate: bytes) -> bytes:
    """Return the DER SubjectPublicKeyInfo of the key in a DER certificate."""
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except ValueError as error:
        raise Malformed("the EK certificate cannot be read") from error
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
