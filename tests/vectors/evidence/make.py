"""Record a software TPM's structures as vectors: ``python -m tests.vectors.evidence.make``.

Run once; a new run gives new keys, and evidence.md quotes this one.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG
from tpm2_pytss.types import TPMT_SIG_SCHEME

from custody.crypto.bind import bind
from custody.formats import evidence
from custody.formats.tpmek import H_3
from custody.keys.tpm_host import AK_HANDLE, TpmHost
from custody.keys.tpm_session import Connection, Tpm, certificate_spki
from custody.lab import bootlog
from custody.lab.swtpm import Swtpm

PCRS = (0, 2, 4, 7)


def main() -> None:
    """Write ``recorded.txt`` beside this file."""
    with tempfile.TemporaryDirectory(prefix="tpm") as directory:
        machine = Swtpm(Path(directory) / "host", Path(directory) / "vendor")
        machine.manufacture()
        machine.start()
        try:
            bootlog.extend(machine, bootlog.record(bootlog.BootState()))
            lines = _record(TpmHost(machine.tcti), Tpm(machine.tcti))
        finally:
            machine.stop()
    head = "# One software TPM (swtpm), recorded.  Everything hexadecimal.\n\n"
    Path(__file__).with_name("recorded.txt").write_text(head + lines, encoding="ascii")


def _record(host: TpmHost, tpm: Tpm) -> str:
    counter = host.allocate_counter(())
    policy = hashlib.sha256(b"a policy").digest()
    key = host.create_host_key(policy, PCRS)
    created = host.certify_creation(key, bind("terms", b"example"))
    quote = host.quote(bind("request", b"example"), PCRS)
    with tpm.connect("record") as link:
        ek = link.keep(link.create_primary(ESYS_TR.ENDORSEMENT, H_3.creation))
        ecc_ek = link.public(ek)
        burnt = _certify(link, counter.index)
    rows = (
        ("ek-rsa", "public", evidence.ek_public(certificate_spki(host.ek_certificate()))),
        ("ek-p384", "public", ecc_ek),
        ("ak", "public", host.ak_public()),
        ("parent", "public", key.parent_public),
        ("h", "public", key.public),
        ("creation data", "creation-data", key.creation_data),
        ("creation", "attest", created.attest),
        ("creation signature", "signature", created.signature),
        ("quote", "attest", quote.attest),
        ("quote signature", "signature", quote.signature),
        ("counter", "nv-public", counter.public),
        ("counter certified", "attest", burnt),
    )
    return "\n".join(f"comment: {c}\nkind: {k}\nbytes: {b.hex()}\n" for c, k, b in rows)


def _certify(link: Connection, index: int) -> bytes:
    esys = link.esys
    ak, counter = esys.tr_from_tpmpublic(AK_HANDLE), esys.tr_from_tpmpublic(index)
    scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
    return bytes(esys.nv_certify(ak, counter, bind("burn", b"example"), scheme, 8, 0, counter)[0])


if __name__ == "__main__":
    main()
