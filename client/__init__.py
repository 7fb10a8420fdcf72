"""Command line, Python clients and wire format: needs the base install only."""

from heartvoice.client.aio import AsyncClient
from heartvoice.client.audio_files import AudioFile
from heartvoice.client.messages import AudioChunk, CodesChunk, Event, Message, Report, Song, SongRequest
from heartvoice.client.sync import Client

__all__ = [
    "AsyncClient",
    "AudioChunk",
    "AudioFile",
    "Client",
    "CodesChunk",
    "Event",
    "Message",
    "Report",
    "Song",
    "SongRequest",
]
