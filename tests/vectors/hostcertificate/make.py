"""Make a host's request and its certificates: ``python -m tests.vectors.hostcertificate.make``.

Run once; a new run gives new keys.  It needs a software TPM, and fills the example of the format
document.
"""

from __future__ import annotations

import json
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from custody.crypto.host_certificates import _PERMANENT
from custody.encoding import decode, encode
from custody.formats.hostcertificate import TlsRequest
from custody.keys.tpm_credential import make_credential
from custody.keys.tpm_host import TpmHost
from custody.lab.swtpm import Swtpm
from custody.ops import attestation_ca as ca
from custody.ops.authority import open_authority
from custody.ops.enroll import answer, ask, ek_digest
from custody.ops.home import Home
from custody.ops.pem import certificate_pem, read_certificate_file
from custody.ops.tls import ask_for_tpm_key
from custody.ops.tls_certificates import issue_tls
from tests.sim.softtoken import SoftToken
from tests.unit.formats.examples import DOCUMENTS, lay_out

HERE = Path(__file__).parent
DOCUMENT = DOCUMENTS / "hostcertificate.md"
_NAMES = {x509.DNSName: "DNS", x509.UniformResourceIdentifier: "URI"}


def main() -> None:
    """Write the files, then the document."""
    with tempfile.TemporaryDirectory(prefix="tpm") as folder:
        place = Path(folder)
        machine = Swtpm(place / "tpm", place / "vendor")
        machine.manufacture()
        machine.start()
        try:
            _make(place, TpmHost(machine.tcti), read_certificate_file(machine.vendor_root))
        finally:
            machine.stop()
    fill()


def _make(place: Path, tpm: TpmHost, root: bytes) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    home, token = Home(place / "ca"), SoftToken()
    ca.found(home, token, token_uri="pkcs11:", name="rack authority", crl_url=None, now=now)
    authority = open_authority(home, token)
    asked = ask(tpm, host="gpu-1")
    accepted = ca.Accepted(roots=(root,), inventory={ek_digest(asked): None})
    posed = ca.challenge_host(
        home, asked, accepted=accepted, make_credential=make_credential, now=now
    )
    ak = ca.issue_ak(authority, asked, answer(tpm, posed), accepted=accepted, now=now).der
    request = ask_for_tpm_key(tpm, host="gpu-1", dns=("gpu-1.example.com",), now=now)
    tls = issue_tls(authority, request, ak_certificate=ak, dns=request.dns, now=now).der
    (HERE / "tls-request.json").write_bytes(encode(request))
    for name, der in (("authority", authority.certificate), ("ak", ak), ("tls", tls)):
        (HERE / f"{name}.pem").write_bytes(certificate_pem(der))


def fill() -> None:
    """Put the files into the blocks of the document."""
    DOCUMENT.write_text(filled(DOCUMENT.read_text()))


def filled(text: str) -> str:
    """Return the document as the files have it."""
    data = (HERE / "tls-request.json").read_bytes()
    request = decode(TlsRequest, data)
    blocks = {
        "json tls-request": lay_out(json.loads(data)),
        "text ak-names": names_of(HERE / "ak.pem"),
        "text tls-names": names_of(HERE / "tls.pem"),
    }
    for tag, block in blocks.items():
        head, _, rest = text.partition(f"```{tag}\n")
        text = f"{head}```{tag}\n{block}\n```{rest.partition('```')[2]}"
    text = re.sub("Its digest is `[0-9a-f]*`", f"Its digest is `{request.digest()}`", text)
    return re.sub(
        r"with `extraData`\s+`[0-9a-f]*`", f"with `extraData`\n`{request.qualifying().hex()}`", text
    )


def names_of(path: Path) -> str:
    """Write the alternative names of a certificate, one a line."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return "\n".join(_line(name) for name in found)


def _line(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DirectoryName):
        parts = (f"{a.oid.dotted_string}={a.value!s}" for a in name.value)
        return f"directoryName        {', '.join(parts)}"
    if isinstance(name, x509.OtherName):
        assert name.type_id == _PERMANENT
        return f"permanentIdentifier  {name.value[4:].decode()}"
    return f"{_NAMES[type(name)]:20} {name.value}"


if __name__ == "__main__":
    main()
