"""Sign a model's files, and check such a signature, by OpenSSF Model Signing.  Format: model.md.

`sign_model` and `verify_model` work on the list of files that sealing has hashed in passing;
`model_sign` and `model_verify` work on directories, alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from custody.crypto.certificates import spki_of
from custody.crypto.signature import sign, verify_foreign
from custody.errors import Refused
from custody.formats.contents import Contents, File
from custody.formats.envelope import PAYLOAD_TYPE, pae
from custody.formats.model import (
    ModelSignature,
    Resource,
    decode_model_signature,
    encode_model_signature,
    key_hint,
    model_payload,
)
from custody.ops.keys import Signer
from custody.rules.verdicts import Ledger, Verdict

#: The subject's name where a model's directory has none that could be written.
_NAMELESS = "model"


def resources_of(files: Iterable[File]) -> tuple[Resource, ...]:
    """Return the files of a bundle as a model signature lists them."""
    return tuple(Resource(name=file.name, algorithm="sha256", digest=file.sha256) for file in files)


def sign_model(
    files: Sequence[Resource],
    *,
    signer: Signer,
    certificates: Sequence[bytes] = (),
    model_name: str = _NAMELESS,
    ignore_paths: Sequence[str] = (),
) -> bytes:
    """Write the ``model.sig`` of ``files``, at least one.

    ``certificates`` is DER, the signer's own first; without any, the signature names the bare
    key.  ``ignore_paths`` says where in the model there may be files besides.  Raises
    ``Refused("model.key")`` if the first certificate is another key's.
    """
    _check_leaf(certificates, signer.spki)
    payload = model_payload(_printable(model_name), files, ignore_paths=ignore_paths)
    signature = sign(signer.key, pae(PAYLOAD_TYPE, payload))
    return encode_model_signature(payload, signature, spki=signer.spki, certificates=certificates)


def verify_model(data: bytes, files: Sequence[Resource], *, spki: bytes) -> ModelSignature:
    """Refuse a ``model.sig`` that is not ``spki``'s over exactly ``files``.

    1. The file follows its format (model.md).
    2. ``model.files``: it lists exactly these names and digests; what it says may be ignored
       is not.
    3. ``model.key``: hint or first certificate, where there is one, is of ``spki``.
    4. ``signature``: the signature is ``spki``'s.

    Who holds ``spki``, and whether he may sign, is for the caller: certificates inside the file
    are not judged.
    """
    signature = decode_model_signature(data)
    check_signed_files(signature, files)
    if signature.key_hint not in (None, key_hint(spki)):
        # The reference verifies nothing by another key than the hinted one: what holds here
        # must hold there too.
        raise Refused("the model signature names another key", check="model.key")
    _check_leaf(signature.certificates, spki)
    verify_foreign(spki, signature.signed_bytes, signature.signature)
    return signature


def judge_contents(contents: Contents | None, publisher: bytes | None) -> tuple[Verdict, ...]:
    """Judge the ``model.sig`` in opened contents as `verify_model` does; nothing for closed ones.

    ``publisher`` is the key (DER) of whoever sealed them, None where the policy lists no such.
    """
    if contents is None:
        return ()
    ledger = Ledger(subject="contents")
    with ledger.failing("model.signature"):
        if publisher is None:
            raise Refused("the policy in force lists no such publisher", check="model.key")
        verify_model(contents.model_signature, resources_of(contents.files), spki=publisher)
        ledger.add("model.signature", True, "the publisher signed exactly these files")
    return ledger.done()


def check_signed_files(signature: ModelSignature, files: Sequence[Resource]) -> None:
    """Refuse, as ``model.files``, a signature that lists anything else than exactly ``files``."""
    # Names as well as digests: the root digest is the same for files under exchanged names.
    listed = {(resource.name, resource.digest) for resource in signature.resources}
    if listed != {(resource.name, resource.digest) for resource in files}:
        raise Refused("the model signature is over other files", check="model.files")


def _check_leaf(certificates: Sequence[bytes], spki: bytes) -> None:
    if certificates and spki_of(certificates[0]) != spki:
        raise Refused("the model signature's certificate is another key's", check="model.key")


def _printable(name: str) -> str:
    """Return ``name`` as JSON can hold it: a directory's name need not be text."""
    return name.encode("utf-8", "replace").decode("utf-8") or _NAMELESS
