"""``sign-model`` and ``verify-model``: OpenSSF Model Signing alone, without an environment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli._home import HomeOption, JsonOption, PinFdOption, example, moment, open_home
from custody.cli._ui import EXIT_REFUSED, Screen
from custody.encoding import Digest, KeyId, Record

if TYPE_CHECKING:
    from custody.ops.keys import Signer
    from custody.rules.model import ModelTrust

SignatureOutOption = Annotated[
    Path,
    typer.Option("--out", help="The model.sig to write; never overwrites.", metavar="FILE"),
]
SignerTokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="A pkcs11: or tpm: URI  [default: the token you enrolled with]",
        show_default=False,
        metavar="URI",
    ),
]
KeyNameOption = Annotated[
    str | None,
    typer.Option("--key", help="Label or digest of a key in that token.", metavar="NAME"),
]
CertificateOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--certificate",
        help="The chain to carry, PEM, the signer's first; may be repeated.",
        metavar="FILE",
    ),
]
IgnoreOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore", help="A path in the model to leave unsigned; may be repeated.", metavar="PATH"
    ),
]
PublicOption = Annotated[
    Path | None,
    typer.Option("--public", help="Also write the public key there, PEM.", metavar="FILE"),
]
ModelOrFileArgument = Annotated[
    Path, typer.Argument(help="The model's directory, or its one file.", metavar="MODEL")
]
SignatureOption = Annotated[
    Path, typer.Option("--signature", help="The model.sig.", metavar="FILE")
]
PublicKeyOption = Annotated[
    Path | None, typer.Option("--key", help="The signer's public key, PEM.", metavar="FILE")
]
AuthorityOption = Annotated[
    list[Path] | None,
    typer.Option("--authority", help="Or an authority, PEM; may be repeated.", metavar="FILE"),
]
IdentityOption = Annotated[
    str | None,
    typer.Option(
        "--identity",
        help="Whom the authority must have certified: a key's digest, CN=… or SAN=….",
        metavar="WHO",
    ),
]
AtOption = Annotated[
    str | None,
    typer.Option(
        "--at",
        help="Judge certificates at this time  [default: now]",
        show_default=False,
        metavar="TIME",
    ),
]
CrlOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--crl",
        help="A revocation list of each authority on the path; may be repeated.",
        metavar="FILE",
    ),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-unsigned",
        help="A path in the model that nobody need have signed; may be repeated.",
        metavar="PATH",
    ),
]
OldOption = Annotated[
    bool, typer.Option("--accept-v0.2", help="Also take signatures of version 0.2.")
]


class SignedModelView(Record, frozen=True):
    """What ``sign-model --json`` shows.  ``payload`` is SHA-256 of the signed statement."""

    signature: str
    key: KeyId
    by: str
    payload: Digest


class ModelCheckView(Record, frozen=True):
    """One verdict."""

    check: str
    outcome: str
    reason: str


class VerifiedModelView(Record, frozen=True):
    """What ``verify-model --json`` shows."""

    sound: bool
    files: int
    size_bytes: int
    checks: tuple[ModelCheckView, ...]


def add_sign_model(app: typer.Typer) -> None:
    """Add ``sign-model`` to the publisher's commands."""
    app.command(
        "sign-model",
        epilog=example(
            "custody publisher sign-model ./MiniLM --out MiniLM.sig",
            "custody publisher sign-model ./MiniLM --token pkcs11:token=release \\",
            "    --key release-2027 --certificate chain.pem --out MiniLM.sig",
        ),
    )(sign_model)


def add_verify_model(app: typer.Typer) -> None:
    """Add ``verify-model`` to the auditor's commands."""
    app.command(
        "verify-model",
        epilog=example(
            "custody auditor verify-model ./MiniLM --signature MiniLM.sig --key publisher.pem",
            "custody auditor verify-model ./MiniLM --signature MiniLM.sig --authority ca.pem \\",
            "    --identity CN=publisher --crl ca.crl",
        ),
    )(verify_model)


def sign_model(
    model: Annotated[Path, typer.Argument(help="The model's directory.", metavar="MODEL")],
    out: SignatureOutOption,
    token: SignerTokenOption = None,
    key: KeyNameOption = None,
    certificate: CertificateOption = None,
    ignore: IgnoreOption = None,
    public: PublicOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a model directory, for any tool of OpenSSF Model Signing to verify.

    Every file is signed, hidden ones and those of git too, but what --ignore names.
    """
    from custody.encoding import sha256
    from custody.formats.model import decode_model_signature, key_pem
    from custody.ops.landing import check_absent, write_new_file
    from custody.ops.model_sign import sign_directory
    from custody.ops.pem import read_certificates

    screen = Screen(as_json=as_json)
    for path in [out] if public is None else [out, public]:
        check_absent(path)
    chain = read_certificates(certificate or ())
    with _signer(token, key, chain=chain, home=home, pin_fd=pin_fd) as signer:
        with screen.progress() as progress:
            data = sign_directory(
                model,
                signer=signer,
                certificates=chain,
                signature=out,
                ignore=_paths(ignore),
                progress=progress,
            )
        view = SignedModelView(
            signature=str(out),
            key=signer.key_id,
            by="certificate" if chain else "key",
            payload=sha256(decode_model_signature(data).payload).hex(),
        )
        spki = signer.spki
    if public is not None:
        write_new_file(public, key_pem(spki))
    write_new_file(out, data)

    def words() -> None:
        screen.show(f"signed {out}")
        screen.show(f"key    {view.key}")

    screen.result(view, words)


def verify_model(
    model: ModelOrFileArgument,
    signature: SignatureOption,
    key: PublicKeyOption = None,
    authority: AuthorityOption = None,
    identity: IdentityOption = None,
    at: AtOption = None,
    crl: CrlOption = None,
    allow_unsigned: AllowOption = None,
    accept_old: OldOption = False,
    as_json: JsonOption = False,
) -> None:
    """Verify a model against its model.sig, with no hardware and no network.

    Takes what model_signing signs by key, certificate or PKCS#11.  Exit code 0 only if every
    check holds.
    """
    from custody.formats.model import MAX_SIGNATURE_BYTES
    from custody.ops.files import read_file
    from custody.ops.model_verify import verify_directory
    from custody.rules.verdicts import passed

    screen = Screen(as_json=as_json)
    if (key is None) == (not authority):
        raise typer.BadParameter("the signer is named by --key or by --authority, one of them")
    if key is not None and (identity or at or crl):
        raise typer.BadParameter("--identity, --at and --crl go with --authority")
    trust = _trust(
        key, authority or (), identity, at=at, crls=crl or (), unsigned=_paths(allow_unsigned)
    )
    if accept_old:
        trust = trust.with_old()
    data = read_file(signature, max_bytes=MAX_SIGNATURE_BYTES)
    with screen.progress() as progress:
        report = verify_directory(model, data, trust=trust, signature=signature, progress=progress)
    view = VerifiedModelView(
        sound=passed(report.verdicts),
        files=report.files,
        size_bytes=report.size_bytes,
        checks=tuple(
            ModelCheckView(check=v.check, outcome=v.outcome, reason=v.reason)
            for v in report.verdicts
        ),
    )
    screen.result(view, lambda: screen.verdicts(report.verdicts))
    if not view.sound:
        raise typer.Exit(EXIT_REFUSED)


def _trust(
    key: Path | None,
    authorities: Sequence[Path],
    identity: str | None,
    *,
    at: str | None,
    crls: Sequence[Path],
    unsigned: tuple[str, ...],
) -> ModelTrust:
    from custody.ops.pem import read_certificates, read_crls, read_public_key
    from custody.rules.model import KeyTrust, ModelTrust

    if key is not None:
        return ModelTrust(signer=KeyTrust(read_public_key(key)), unsigned=unsigned)
    from custody.rules.model_certificate import CertificateTrust, SignerIdentity

    return ModelTrust(
        signer=CertificateTrust(
            authorities=read_certificates(authorities),
            identity=SignerIdentity.read(identity) if identity else None,
            moment=moment(at, option="--at"),
            crls=read_crls(crls),
        ),
        unsigned=unsigned,
    )


def _paths(texts: Sequence[str] | None) -> tuple[str, ...]:
    """Read paths as a shell completes them: ``./logs/`` is ``logs``."""
    return tuple(PurePosixPath(text).as_posix() for text in texts or ())


@contextmanager
def _signer(
    uri: str | None,
    key: str | None,
    *,
    chain: Sequence[bytes],
    home: Path | None,
    pin_fd: int | None,
) -> Iterator[Signer]:
    """Log in and find the key: one that was named, or the one the publisher enrolled with."""
    from custody.cli._wiring import open_token
    from custody.crypto.certificates import spki_of
    from custody.encoding import key_id
    from custody.keys.api import parse_key_uri
    from custody.ops.actor import signer_of
    from custody.ops.model_signer import find_signer

    if uri is None:
        if key is not None:
            raise typer.BadParameter("--key goes with --token")
        identity = open_home(home, "publisher").identity()
        with open_token(identity.token, pin_fd=pin_fd) as token, token.session():
            yield signer_of(identity, token)
        return
    pinned = key_id(spki_of(chain[0])) if chain else None
    with open_token(uri, pin_fd=pin_fd) as token, token.session():
        yield find_signer(token, parse_key_uri(uri), name=key, pinned=pinned)
