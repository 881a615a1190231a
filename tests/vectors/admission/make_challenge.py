"""Make the example of a second round: ``python -m tests.vectors.admission.make_challenge``.

Key, nonce and slot are new each time, so this is for a change of the format alone.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec.structs import replace

from custody.crypto.certificates import make_csr
from custody.crypto.signature import sign
from custody.encoding import decode, encode, key_id
from custody.formats.admission import Admission, InvitationKeys, claim_share
from custody.formats.envelope import (
    Signature,
    encode_statement,
    signing_bytes,
    statement_digest,
)
from custody.formats.possession import KeptChallenge
from tests.unit.formats.fixed import key, spki

HERE = Path(__file__).parent


def main() -> None:
    """Write bob's admission with an RSA share key, a challenge to it and the answer."""
    invitation = decode(InvitationKeys, (HERE / "invitation-keys.json").read_bytes()).invitation
    signing, sharing = key("bob sign"), rsa.generate_private_key(65537, 2048)
    csr = make_csr(signing, name="bob")
    claim = claim_share(
        sharing, invitation=invitation, principal="bob", csr=csr, suite="RSA2048_OAEP_SHA256"
    )
    admission = Admission(
        invitation=invitation.digest(),
        principal="bob",
        display="Bob Example",
        role="officer",
        token_class="self-asserted",
        csr=csr,
        shares=(claim,),
    )
    signature = Signature(
        keyid=key_id(spki("bob sign")), sig=sign(signing, signing_bytes(admission))
    )
    (HERE / "bob.dsse").write_bytes(encode_statement(admission, [signature]))
    (HERE / "bob-share.der").write_bytes(
        sharing.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    )
    kept = KeptChallenge.generate(statement_digest(admission), (claim,))
    answer = kept.challenge.answered([(claim.suite, sharing)])
    (HERE / "challenge.json").write_bytes(encode(kept.challenge))
    (HERE / "challenge-kept.json").write_bytes(encode(replace(kept, answer=answer)))
    (HERE / "answer.json").write_bytes(encode(answer))
    for each in (kept.challenge.admission, kept.challenge.digest(), *answer.proofs):
        print(each)  # noqa: T201


if __name__ == "__main__":
    main()
