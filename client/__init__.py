"""Command line, Python clients and wire format: needs the base install only.

Names are imported on first use, so that `heartvoice --help` does not wait for gRPC.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heartvoice.audio.encode import AudioFile
    from heartvoice.client.aio import AsyncClient
    from heartvoice.client.arguments import (
        ConnectionArguments,
        CoverArguments,
        RenderArguments,
        RenderCoverArguments,
        SongArguments,
    )
    from heartvoice.client.messages import (
        AudioChunk,
        CodesChunk,
        Embedding,
        Event,
        Message,
        Report,
        Song,
        StemsChunk,
        StemsMessage,
        StemsReport,
    )
    from heartvoice.client.recordings import Recording, RecordingLike, as_recording
    from heartvoice.client.registered_voices import RegisteredVoice
    from heartvoice.client.requests import SongRequest
    from heartvoice.client.stems import Stems
    from heartvoice.client.sync import Client
    from heartvoice.client.transport import Transport
    from heartvoice.client.voices import Voices

__all__ = [
    "AsyncClient",
    "AudioChunk",
    "AudioFile",
    "Client",
    "CodesChunk",
    "ConnectionArguments",
    "CoverArguments",
    "Embedding",
    "Event",
    "Message",
    "Recording",
    "RecordingLike",
    "RegisteredVoice",
    "RenderArguments",
    "RenderCoverArguments",
    "Report",
    "Song",
    "SongArguments",
    "SongRequest",
    "Stems",
    "StemsChunk",
    "StemsMessage",
    "StemsReport",
    "Transport",
    "Voices",
    "as_recording",
]

_MODULES = {
    "AsyncClient": "heartvoice.client.aio",
    "AudioFile": "heartvoice.audio.encode",
    "Client": "heartvoice.client.sync",
    "Recording": "heartvoice.client.recordings",
    "RecordingLike": "heartvoice.client.recordings",
    "RegisteredVoice": "heartvoice.client.registered_voices",
    "SongRequest": "heartvoice.client.requests",
    "Stems": "heartvoice.client.stems",
    "as_recording": "heartvoice.client.recordings",
    "Transport": "heartvoice.client.transport",
    "Voices": "heartvoice.client.voices",
    **dict.fromkeys(
        ("ConnectionArguments", "CoverArguments", "RenderArguments", "RenderCoverArguments", "SongArguments"),
        "heartvoice.client.arguments",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES.get(name, "heartvoice.client.messages")), name)
    return value
