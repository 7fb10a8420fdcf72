"""The operator's keys as a folder: a local CA and its leaf, or certificate and key of one's own."""

from __future__ import annotations

import io
import json
import os
import secrets
import shlex
import wave
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from heartvoice.contracts.claims import Claim, Making
from heartvoice.errors import InvalidRequestError
from heartvoice.provenance.certificates import make_chain, read_chain
from heartvoice.provenance.keys import Keys, agent_signature, callback_keys, file_keys
from heartvoice.provenance.signer import ManifestSigner
from heartvoice.provenance.verification import verify_stream
from heartvoice.secret_files import place_folder, read_secret

FOLDER_VARIABLE = "HEARTVOICE_KEYS"
ANCHORS, CHAIN, SIGNING_KEY, CA_KEY, AGENT, VOICE_KEY = (
    "anchors.pem", "chain.pem", "signing.key", "ca.key", "agent.json", "voice.key",
)  # fmt: skip
_VOICE_KEY_BYTES = 32


def default_folder() -> Path:
    """Return the folder of the keys: $HEARTVOICE_KEYS, or `heartvoice/keys` in the user's configuration."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "heartvoice" / "keys"


def default_anchors() -> bytes:
    """Return the anchors of the default folder; b"" if it has no keys.

    Raises:
        InvalidRequestError: a part of the keys is missing.
    """
    folder = default_folder()
    return (folder / ANCHORS).read_bytes() if has_keys(folder) else b""


def init_keys(folder: Path, organisation: str) -> bool:
    """Make a local CA and a leaf in `folder`; False if keys are there already, which stay as they are.

    Raises:
        InvalidRequestError: something else is there.
        OSError: nothing can be written there.
    """
    if has_keys(folder):
        load_keys(folder)
        return False
    ca, ca_key, chain, leaf_key = make_chain(organisation)
    files = {ANCHORS: ca, CA_KEY: ca_key, CHAIN: chain, SIGNING_KEY: leaf_key, VOICE_KEY: _new_voice_key()}
    try_keys(_keys(files))
    place_folder(folder, files)
    return True


def import_keys(folder: Path, *, chain: bytes, key: bytes | None, agent: str, anchors: bytes | None) -> None:
    """Keep the operator's own certificate in `folder`, with its key or the command that signs.

    Args:
        folder: without keys so far.
        chain: certificates as PEM, the leaf first.
        key: the private key as PEM; None if `agent` signs.
        agent: command line; see `agent_signature`.
        anchors: root certificates as PEM; None is the chain's last certificate.

    Raises:
        InvalidRequestError: C2PA refuses the certificate, the key is another's, or keys are there already.
        EngineError: the agent does not sign.
    """
    if has_keys(folder):
        raise InvalidRequestError(f"folder: expected none with keys, got {str(folder)!r}; move it away first")
    if anchors is None:
        anchors = read_chain(chain, field="certificate")[-1].public_bytes(serialization.Encoding.PEM)
    read_chain(anchors, field="anchors")
    files = {ANCHORS: anchors, CHAIN: chain, VOICE_KEY: _new_voice_key()}
    files |= {SIGNING_KEY: key} if key is not None else {AGENT: json.dumps(shlex.split(agent)).encode()}
    try_keys(_keys(files))
    place_folder(folder, files)


def has_keys(folder: Path) -> bool:
    """Return True if keys are in `folder`.

    Raises:
        InvalidRequestError: only a part of them is there, or something that is no folder.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise InvalidRequestError(f"keys: expected a folder, got {str(folder)!r}, which is something else")
    present = {each.name for each in folder.iterdir()}
    if not present:
        return False
    missing = [name for name in (ANCHORS, CHAIN, VOICE_KEY) if name not in present]
    if not {SIGNING_KEY, AGENT} & present:
        missing.append(SIGNING_KEY)
    if missing:
        raise InvalidRequestError(
            f"keys: {str(folder)!r} lacks {', '.join(missing)}, and nothing in it is overwritten: move it away, or "
            "choose another folder"
        )
    return True


def load_keys(folder: Path) -> Keys:
    """Read the keys of a folder.

    Raises:
        InvalidRequestError: there are none, they are damaged or expired, or others than the owner may read a secret.
        OSError: they cannot be read.
    """
    if not has_keys(folder):
        raise InvalidRequestError(f"keys: none in {str(folder)!r}; make some by `heartvoice keys init`")
    files = {}
    for name in (ANCHORS, CHAIN, VOICE_KEY, SIGNING_KEY, AGENT):
        path = folder / name
        if path.exists():
            secret = name in (VOICE_KEY, SIGNING_KEY)
            files[name] = read_secret(path, field="keys") if secret else path.read_bytes()
    return _keys(files)


def _keys(files: Mapping[str, bytes]) -> Keys:
    chain, voice_key, anchors = files[CHAIN], files[VOICE_KEY], files[ANCHORS]
    if len(voice_key) < _VOICE_KEY_BYTES:
        raise InvalidRequestError(f"{VOICE_KEY}: expected {_VOICE_KEY_BYTES} bytes, got {len(voice_key)}")
    if SIGNING_KEY in files:
        return file_keys(chain, files[SIGNING_KEY], voice_key=voice_key, anchors=anchors, field=CHAIN)
    try:
        command = json.loads(files[AGENT])
    except ValueError as error:
        raise InvalidRequestError(f"{AGENT}: expected a JSON list of words: {error}") from error
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise InvalidRequestError(f"{AGENT}: expected a JSON list of words, got {command!r}")
    return callback_keys(chain, agent_signature(command), voice_key=voice_key, anchors=anchors, field=CHAIN)


def try_keys(keys: Keys) -> None:
    """Sign a trial and read it back.

    Raises:
        InvalidRequestError: the result is not trusted under the keys' own anchors.
        EngineError: nothing was signed.
    """
    source, target = io.BytesIO(), io.BytesIO()
    with wave.open(source, "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes(bytes(2000))
    source.seek(0)
    ManifestSigner(keys).sign(Claim(Making.CREATED, {}), "wav", source, target, title="trial.wav")
    found = verify_stream(target, "wav", anchors=keys.anchors)
    if found.state != "trusted":
        why = ", ".join(found.problems)
        raise InvalidRequestError(
            f"certificate: expected a trial's signature to be trusted, it is {found.state}: {why}"
        )


def _new_voice_key() -> bytes:
    return secrets.token_bytes(_VOICE_KEY_BYTES)
