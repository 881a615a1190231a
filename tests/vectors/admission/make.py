"""Make the example of admission.md: ``python -m tests.vectors.admission.make``.

Prints what the document tells step by step; the invitation and its keys stay as they are.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from custody.crypto.bind import bind
from custody.crypto.certificates import make_csr
from custody.crypto.signature import load_ec_public, sign
from custody.encoding import decode, key_id
from custody.formats.admission import Admission, InvitationKeys, claim_share
from custody.formats.envelope import Signature, encode_statement, payload_of, signing_bytes
from tests.unit.formats.fixed import key, spki

HERE = Path(__file__).parent


def main() -> None:
    """Write alice's admission and print its working."""
    invitation = decode(InvitationKeys, (HERE / "invitation-keys.json").read_bytes()).invitation
    signing, sharing = key("alice sign"), key("alice share")
    csr = make_csr(signing, name="alice")
    claim = claim_share(sharing, invitation=invitation, principal="alice", csr=csr, suite="P256")
    admission = Admission(
        invitation=invitation.digest(),
        principal="alice",
        display="Alice Example",
        role="officer",
        token_class="software",
        csr=csr,
        shares=(claim,),
    )
    signature = Signature(
        keyid=key_id(spki("alice sign")), sig=sign(signing, signing_bytes(admission))
    )
    (HERE / "alice.dsse").write_bytes(encode_statement(admission, [signature]))
    shared = sharing.exchange(ec.ECDH(), load_ec_public(invitation.p256))
    info = bind("possession-key", claim.spki, invitation.p256)
    mac_key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(shared)
    statement = admission.statement_of(claim)
    proof = hmac.digest(mac_key, statement, "sha256")
    for each in (shared, info, mac_key, statement, proof):
        print(each.hex())  # noqa: T201
    print(payload_of(admission).decode())  # noqa: T201


if __name__ == "__main__":
    main()
