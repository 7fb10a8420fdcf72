"""What signs manifests: a certificate chain with its key, or with a callback to an HSM or agent."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.provenance.certificates import (
    Sign,
    algorithm_of,
    check_leaf,
    file_signature,
    read_chain,
    read_key,
)

_AGENT_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Keys:
    """What signs manifests.

    Attributes:
        chain: certificates as PEM, the leaf first.
        algorithm: C2PA's name of it.
        sign: signs a message; may call an HSM.
        voice_key: makes voices' public ids out of their sha256.
        anchors: certificates as PEM that the operator's own files are verified against.
    """

    chain: bytes
    algorithm: str
    sign: Sign
    voice_key: bytes
    anchors: bytes


def callback_keys(chain: bytes, sign: Sign, *, voice_key: bytes, anchors: bytes, field: str = "certificate") -> Keys:
    """Make keys whose private half is elsewhere, such as in an HSM.

    Args:
        chain: certificates as PEM, the leaf first, as C2PA wants them (emailProtection, digitalSignature).
        sign: see `Sign`.
        voice_key: 32 secret bytes.
        anchors: see `Keys`.
        field: what messages call the chain.

    Raises:
        InvalidRequestError: C2PA would refuse the certificate.
    """
    leaf = read_chain(chain, field=field)[0]
    check_leaf(leaf, field=field)
    return Keys(chain, algorithm_of(leaf.public_key(), field=field), sign, voice_key, anchors)


def file_keys(chain: bytes, key: bytes, *, voice_key: bytes, anchors: bytes, field: str = "certificate") -> Keys:
    """Make keys out of a certificate chain and its private key, both as PEM.

    Raises:
        InvalidRequestError: as `callback_keys`, or the key is not the certificate's.
    """
    private = read_key(key, field="key")
    made = callback_keys(chain, file_signature(private), voice_key=voice_key, anchors=anchors, field=field)
    if private.public_key() != read_chain(chain, field=field)[0].public_key():
        raise InvalidRequestError(f"key: expected the key of the first certificate of {field}, got another")
    return made


def agent_signature(command: list[str]) -> Sign:
    """Return what signs by a program: message on its standard input, raw signature on its standard output."""

    def sign(message: bytes) -> bytes:
        try:
            done = subprocess.run(command, input=message, capture_output=True, timeout=_AGENT_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"agent {command[0]}: {error}") from error
        if done.returncode or not done.stdout:
            said = done.stderr.decode("utf-8", "replace").strip()[-200:]
            raise EngineError(f"agent {command[0]}: no signature, exit code {done.returncode}: {said}")
        return done.stdout

    return sign
