"""The service's keys: one wraps the key of each voice, one signs records and the log.

They are in a folder of their own, apart from the registry: who copies the registry alone can read no voice.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from heartvoice.errors import InvalidRequestError, RegistryError
from heartvoice.secret_files import place_folder, read_secret, replace_secret

FOLDER_VARIABLE = "HEARTVOICE_REGISTRY_KEYS"
WRAPPING_KEY, SIGNING_KEY, PUBLIC_KEY = "wrapping.key", "records.key", "records.pub.pem"
KEY_BYTES = 32
_NONCE_BYTES = 12
_HEAD = ".head"


def default_folder() -> Path:
    """Return the folder of the keys: $HEARTVOICE_REGISTRY_KEYS, or `heartvoice/voices` in the user's configuration."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "heartvoice" / "voices"


def new_key() -> bytes:
    """Return a random key of AES-256."""
    return secrets.token_bytes(KEY_BYTES)


def seal(key: bytes, content: bytes, *, place: str) -> bytes:
    """Encrypt and authenticate by AES-256-GCM.

    Args:
        key: of 32 bytes.
        content: what is hidden.
        place: where it belongs; it cannot be opened as if it were elsewhere.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, place.encode())


def unseal(key: bytes, sealed: bytes, *, place: str) -> bytes:
    """Open what `seal` made.

    Raises:
        RegistryError: it was changed, belongs elsewhere, or the key is another.
    """
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
    except (InvalidTag, ValueError):
        raise RegistryError(f"{place}: not what was written here: changed, moved, or of another key") from None


@dataclass(frozen=True)
class ServiceKeys:
    """Keys of one folder."""

    folder: Path
    wrapping: bytes
    signing: Ed25519PrivateKey

    @property
    def public_pem(self) -> bytes:
        """The key that verifies records, as PEM."""
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.signing.public_key().public_bytes(serialization.Encoding.PEM, kind)

    @property
    def fingerprint(self) -> str:
        """Names the keys without giving them away."""
        return hmac.new(self.wrapping, b"heartvoice registry" + self.public_pem, hashlib.sha256).hexdigest()[:32]

    def sign(self, kind: str, content: bytes) -> bytes:
        """Sign content of one kind; the signature does not count for another kind."""
        return self.signing.sign(_signed(kind, content))

    def check(self, kind: str, content: bytes, signature: bytes) -> None:
        """Check a signature of these keys.

        Raises:
            RegistryError: it is another's, or of other content.
        """
        check_signature(self.signing.public_key(), kind, content, signature)

    def file_id(self, content: bytes) -> str:
        """Return a name of a file by HMAC: without the key nobody can tell which file it is."""
        key = HKDF(hashes.SHA256(), KEY_BYTES, None, b"heartvoice file id").derive(self.wrapping)
        return "hmac-sha256:" + hmac.new(key, content, hashlib.sha256).hexdigest()

    def read_head(self, registry: str) -> tuple[int, str] | None:
        """Return number and hash of the last entry of a registry's log that was seen; None if none was.

        Raises:
            RegistryError: the file is damaged.
        """
        path = self.folder / f"{registry}{_HEAD}"
        try:
            number, digest = path.read_text(encoding="ascii").split()
            return int(number), digest
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RegistryError(f"{path}: expected number and hash of an entry: {error}") from error

    def keep_head(self, registry: str, number: int, digest: str) -> None:
        """Remember the last entry of a registry's log, unless a later one is remembered."""
        known = self.read_head(registry)
        if known is None or known[0] < number:
            replace_secret(self.folder / f"{registry}{_HEAD}", f"{number} {digest}\n".encode("ascii"))


def check_signature(key: Ed25519PublicKey, kind: str, content: bytes, signature: bytes) -> None:
    """Check a signature of a record, a tombstone or an entry of the log.

    Raises:
        RegistryError: it is another's, or of other content.
    """
    try:
        key.verify(signature, _signed(kind, content))
    except InvalidSignature:
        raise RegistryError(f"{kind}: its signature is not of this content by this registry's key") from None


def _signed(kind: str, content: bytes) -> bytes:
    return f"heartvoice {kind}\n".encode() + content


def open_keys(folder: Path, *, create: bool) -> ServiceKeys:
    """Read the keys of a folder; with `create` make them if there is no folder.

    Raises:
        InvalidRequestError: there are none, one is damaged, or others may read them.
        OSError: they cannot be read or written.
    """
    if create and not folder.exists():
        signing = Ed25519PrivateKey.generate()
        plain = serialization.NoEncryption()
        pem = signing.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        made = ServiceKeys(folder, new_key(), signing)
        place_folder(folder, {WRAPPING_KEY: made.wrapping, SIGNING_KEY: pem, PUBLIC_KEY: made.public_pem})
        return made
    absent = [name for name in (WRAPPING_KEY, SIGNING_KEY) if not (folder / name).is_file()]
    if absent:
        raise InvalidRequestError(
            f"registry keys: {str(folder)!r} lacks {', '.join(absent)}; name their folder by ${FOLDER_VARIABLE}. The "
            "first `heartvoice voice consent` makes them; a registry that is there needs those that it was made with"
        )
    wrapping = read_secret(folder / WRAPPING_KEY, field="registry keys")
    if len(wrapping) != KEY_BYTES:
        raise InvalidRequestError(f"{folder / WRAPPING_KEY}: expected {KEY_BYTES} bytes, got {len(wrapping)}")
    try:
        key = serialization.load_pem_private_key(read_secret(folder / SIGNING_KEY, field="registry keys"), None)
    except (ValueError, TypeError) as error:
        raise InvalidRequestError(f"{folder / SIGNING_KEY}: expected a private key as PEM: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidRequestError(f"{folder / SIGNING_KEY}: expected a key of Ed25519, got {type(key).__name__}")
    return ServiceKeys(folder, wrapping, key)
