"""X.509 certificates that C2PA accepts, and private keys as its signature algorithms."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from heartvoice.errors import InvalidRequestError

LIFE_DAYS = 3650
"""Of CA and leaf. Without a time stamp, a signature counts only as long as its certificate does."""
_CURVES: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "secp256r1": ("ES256", hashes.SHA256()),
    "secp384r1": ("ES384", hashes.SHA384()),
    "secp521r1": ("ES512", hashes.SHA512()),
}
_LEAST_RSA_BITS = 2048

Sign = Callable[[bytes], bytes]
"""Signs a message: ECDSA as raw r || s, RSA as PSS with SHA-256, Ed25519 as it is."""


def make_chain(organisation: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Make a local CA and a leaf of it.

    Returns:
        As PEM: the CA's certificate and key, the chain (leaf first), and the leaf's key. Keys are on P-256.
    """
    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name(organisation, "heartvoice local CA")
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        _builder(_name(organisation, "heartvoice signer"), ca_name, leaf_key.public_key(), ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    ca_pem = ca.public_bytes(serialization.Encoding.PEM)
    return ca_pem, _key_pem(ca_key), leaf.public_bytes(serialization.Encoding.PEM) + ca_pem, _key_pem(leaf_key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, issuer_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=LIFE_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _name(organisation: str, common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_chain(pem: bytes, *, field: str) -> list[x509.Certificate]:
    """Read certificates, the leaf first.

    Raises:
        InvalidRequestError: there is none, or one is damaged.
    """
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InvalidRequestError(f"{field}: expected certificates as PEM: {error}") from error


def read_key(pem: bytes, *, field: str) -> PrivateKeyTypes:
    """Read an unencrypted private key.

    Raises:
        InvalidRequestError: there is none, or it is damaged or has a passphrase.
    """
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise InvalidRequestError(
            f"{field}: expected a private key without a passphrase, got one with; decrypt it, or sign by --agent"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidRequestError(f"{field}: expected a private key as PEM: {error}") from error


def algorithm_of(key: CertificatePublicKeyTypes, *, field: str) -> str:
    """Return C2PA's name of the signature algorithm that goes with a certificate's key.

    Raises:
        InvalidRequestError: C2PA has none.
    """
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name][0]
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ED25519"
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS:
        return "PS256"
    raise InvalidRequestError(
        f"{field}: expected a key on P-256, P-384 or P-521, Ed25519 or RSA of {_LEAST_RSA_BITS} bits or more, got "
        f"{describe_key(key)}"
    )


def describe_key(key: object) -> str:
    """Name a public key's kind and size."""
    curve = getattr(key, "curve", None)
    kind = type(key).__name__.removesuffix("PublicKey")
    return f"{kind} {curve.name if curve else getattr(key, 'key_size', '')}".strip()


def check_leaf(leaf: x509.Certificate, *, field: str) -> None:
    """Check a signing certificate by C2PA's profile, as far as its own refusals do not say what is wrong.

    Raises:
        InvalidRequestError: naming what it lacks.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise InvalidRequestError(
            f"{field}: expected a certificate that is valid now, got {leaf.not_valid_before_utc:%Y-%m-%d} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d}"
        )
    extensions = {type(each.value): each.value for each in leaf.extensions}
    usage, extended = extensions.get(x509.KeyUsage), extensions.get(x509.ExtendedKeyUsage)
    if not (isinstance(usage, x509.KeyUsage) and usage.digital_signature):
        raise InvalidRequestError(f"{field}: expected a certificate with key usage digitalSignature, got one without")
    if x509.AuthorityKeyIdentifier not in extensions:
        raise InvalidRequestError(f"{field}: expected a certificate with an authority key identifier, got one without")
    wanted = {ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.TIME_STAMPING}
    found = set(extended) if isinstance(extended, x509.ExtendedKeyUsage) else set()
    if not wanted & found:
        got = ", ".join(sorted(oid.dotted_string for oid in found)) or "none"
        raise InvalidRequestError(f"{field}: expected extended key usage emailProtection, got {got}")


def file_signature(key: PrivateKeyTypes) -> Sign:
    """Return what signs with a private key, as `Sign` says."""

    def sign(message: bytes) -> bytes:
        if isinstance(key, ec.EllipticCurvePrivateKey):
            r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(_CURVES[key.curve.name][1])))
            size = (key.key_size + 7) // 8
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if isinstance(key, rsa.RSAPrivateKey):
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=hashlib.sha256().digest_size)
            return key.sign(message, pss, hashes.SHA256())
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(message)
        raise TypeError(f"algorithm_of lets no {type(key).__name__} pass")

    return sign
