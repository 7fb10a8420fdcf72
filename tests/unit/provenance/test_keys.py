"""Keys: made, imported, refused; never overwritten."""

from __future__ import annotations

import datetime
import shlex
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.provenance.key_folder import import_keys, init_keys, load_keys

AGENT = """
import sys
from cryptography.hazmat.primitives import serialization
from heartvoice.provenance.certificates import file_signature
key = serialization.load_pem_private_key(open(sys.argv[1], "rb").read(), None)
sys.stdout.buffer.write(file_signature(key)(sys.stdin.buffer.read()))
"""
EMAIL, CODE = ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.CODE_SIGNING


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def certificate(key: object, *, usage: object = EMAIL, days: int = 1, identified: bool = True) -> bytes:
    """A self-signed certificate as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio")])
    start = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=2)
    public = key.public_key()  # type: ignore[attr-defined]
    builder = (
        x509.CertificateBuilder(name, name, public, 5)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=2 + days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True
        )  # digitalSignature
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)  # type: ignore[list-item]
    if identified:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    hashing = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, hashing).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def pem(key: object, passphrase: bytes | None = None) -> bytes:
    hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(  # type: ignore[attr-defined, no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden
    )


def test_keys_are_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "keys"
    assert init_keys(folder, "Studio")
    before = content(folder)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not init_keys(folder, "Another")
    assert content(folder) == before
    assert load_keys(folder).algorithm == "ES256"
    assert [path.name for path in folder.parent.iterdir()] == ["keys"]


def test_damaged_keys_are_refused_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    with pytest.raises(InvalidRequestError, match=r"none in .*heartvoice keys init"):
        load_keys(folder)
    init_keys(folder, "Studio")
    (folder / "signing.key").chmod(0o640)
    with pytest.raises(InvalidRequestError, match=r"mode 0600, got .*signing.key; chmod 600"):
        load_keys(folder)
    (folder / "signing.key").chmod(0o600)
    (folder / "signing.key").write_bytes((folder / "ca.key").read_bytes())
    with pytest.raises(InvalidRequestError, match=r"expected the key of the first certificate of chain.pem"):
        init_keys(folder, "Studio")
    (folder / "voice.key").unlink()
    before = content(folder)
    with pytest.raises(InvalidRequestError, match=r"lacks voice.key, and nothing in it is overwritten"):
        init_keys(folder, "Studio")
    assert content(folder) == before


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())])
def test_an_own_certificate_signs(tmp_path: Path, key: object) -> None:
    import_keys(tmp_path / "keys", chain=certificate(key), key=pem(key), agent="", anchors=None)
    assert load_keys(tmp_path / "keys").algorithm in ("ED25519", "ES384")
    with pytest.raises(InvalidRequestError, match="folder: expected none with keys"):
        import_keys(tmp_path / "keys", chain=certificate(key), key=pem(key), agent="", anchors=None)


def test_an_agent_signs_and_keeps_its_key(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "hidden.pem").write_bytes(pem(key))
    agent = shlex.join([sys.executable, "-c", AGENT, str(tmp_path / "hidden.pem")])
    import_keys(tmp_path / "keys", chain=certificate(key), key=None, agent=agent, anchors=None)
    assert sorted(content(tmp_path / "keys")) == ["agent.json", "anchors.pem", "chain.pem", "voice.key"]
    with pytest.raises(EngineError, match="agent /bin/false: no signature, exit code 1"):
        import_keys(tmp_path / "other", chain=certificate(key), key=None, agent="/bin/false", anchors=None)
    assert not (tmp_path / "other").exists()


EC = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("chain", "key", "message"),
    [
        (certificate(EC, usage=CODE), pem(EC), "expected extended key usage emailProtection, got 1.3.6.1.5.5.7.3.3"),
        (certificate(EC, usage=None), pem(EC), "expected extended key usage emailProtection, got none"),
        (certificate(EC, days=-1), pem(EC), "expected a certificate that is valid now"),
        (certificate(EC, identified=False), pem(EC), "expected a certificate with an authority key identifier"),
        (certificate(EC), pem(ec.generate_private_key(ec.SECP256R1())), "expected the key of the first certificate"),
        (certificate(EC), pem(EC, b"secret"), "expected a private key without a passphrase"),
        (certificate(EC), b"junk", "key: expected a private key as PEM"),
        (b"junk", pem(EC), "certificate: expected certificates as PEM"),
        (certificate(rsa.generate_private_key(65537, 1024)), pem(EC), "RSA of 2048 bits or more, got RSA 1024"),
    ],
)
def test_what_c2pa_would_refuse_is_refused_before_it_is_kept(
    tmp_path: Path, chain: bytes, key: bytes, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        import_keys(tmp_path / "keys", chain=chain, key=key, agent="", anchors=None)
    assert list(tmp_path.iterdir()) == []
