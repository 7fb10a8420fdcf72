"""Registered voices: a caller names its own by id, and the server gets the reference and the consent record's id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from heartvoice.contracts.tensors import VOICE, VOICE_CONSENT, VOICE_ID
from heartvoice.errors import EngineError, ModelUnavailableError, RegistryError
from heartvoice.gateway import request_parser
from heartvoice.gateway.access_log import Call
from heartvoice.gateway.rate_limits import Quota

if TYPE_CHECKING:
    from heartvoice.voices.records import VoiceReference
    from heartvoice.voices.registry import Registry

log = logging.getLogger(__name__)
T = TypeVar("T")


class RegisteredVoices:
    """A registry of voices whose owners are the gateway's callers, by their names.

    It is read at each request, so that a voice that was revoked a moment ago does not sing.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare; `open` reads the registry.

        Args:
            folder: of the registry. Its keys are where `heartvoice.voices.keys.default_folder` says.
        """
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "registered-voices")  # a registry belongs to the thread that opened it
        self._registry: Registry | None = None

    async def open(self) -> None:
        """Open and check the registry.

        Raises:
            InvalidRequestError: there is none, or its keys are missing.
            RegistryError: it was changed, is damaged, or belongs to other keys.
            OSError: it cannot be read.
        """
        from heartvoice.voices.registry import Registry  # needs the extra `trust`

        self._registry = await self._in_thread(Registry, self._folder)

    async def close(self) -> None:
        """Close the registry."""
        if self._registry is not None:
            await self._in_thread(self._registry.close)
        self._thread.shutdown(wait=False)

    async def resolve(self, message: bytes, voice_id: str, call: Call, quota: Quota) -> bytes:
        """Return a checked request with the voice's reference and consent record in place of its id.

        Raises:
            InvalidRequestError: the caller has no such voice, or it may not sing. Another's is as one that is not.
            QuotaError: the reference exceeds what the caller may send.
            ModelUnavailableError: the registry is busy.
            EngineError: the registry cannot be read, or is not what was written.
        """
        found = await self._reference(call.caller, voice_id)
        quota.added(len(found.file))
        call.consent_records.append(found.consent_record)
        return with_reference(message, found)

    async def _reference(self, owner: str, voice_id: str) -> VoiceReference:
        if self._registry is None:
            raise EngineError("the registry of voices must be opened first")
        try:
            return await self._in_thread(self._registry.reference, owner, voice_id)
        except ModelUnavailableError as error:
            log.warning("a registered voice was not found in time: %s", error)
            raise ModelUnavailableError("voice_id: the registry of voices is busy; try again") from error
        except (RegistryError, OSError) as error:  # the text names files of this host
            log.error("the registry of voices cannot be used: %s", error)
            raise EngineError("voice_id: the registry of voices cannot be used; see the gateway's log") from error

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def voice_id_of(parts: request_parser.Parts) -> str:
    """Return the registered voice that a checked request names; "" if it names none."""
    for index, tensor in enumerate(parts.head.inputs):
        if tensor.name == VOICE_ID.name:
            sent = parts.raw[index][request_parser.LENGTH_BYTES :] if parts.raw else tensor.contents.bytes_contents[0]
            return bytes(sent).decode()
    return ""


def with_reference(message: bytes, found: VoiceReference) -> bytes:
    """Return a checked request whose voice id is replaced by a reference and the consent record's id."""
    parts = request_parser.split(message)
    inputs, raw = parts.head.inputs, list(parts.raw)
    index = next(index for index, tensor in enumerate(inputs) if tensor.name == VOICE_ID.name)
    del inputs[index]
    del raw[index : index + 1]
    left = request_parser.Parts(parts.head, raw)
    return request_parser.with_texts(left, {VOICE: found.file, VOICE_CONSENT: found.consent.encode()})
