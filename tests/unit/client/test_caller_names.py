"""Errors about recordings, in the caller's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from heartvoice.errors import InvalidRequestError
from tests.fakes.server import FakeServer, error_response, scripted
from tests.support.callers import Caller

FILE, VOICE = "file: expected WAV, got AAC", "voice: expected WAV, got AAC"


def refusing(text: str) -> Any:
    """A unary model that refuses its request."""

    def refuse(request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)

    return refuse


@pytest.mark.parametrize(
    ("method", "model", "text", "name"),
    [
        ("stream_cover", "cover", FILE, "recording song.m4a"),
        ("cover", "cover", FILE, "recording song.m4a"),
        ("cover", "cover", VOICE, "voice"),
        ("stream_stems", "demucs", FILE, "recording song.m4a"),
        ("separate", "demucs", FILE, "recording song.m4a"),
        ("stream", "song", VOICE, "voice"),
        ("render_cover", "render", FILE, "recording song.m4a"),
        ("embed", "speaker_encoder", FILE, "recording song.m4a"),
    ],
)
def test_a_refused_recording_is_named_by_argument_and_file(
    server: FakeServer, caller: Caller, folder: Path, method: str, model: str, text: str, name: str
) -> None:
    (folder / "song.m4a").write_bytes(b"AAC")
    unary = model in ("render", "speaker_encoder")
    setattr(
        server, model, refusing(f"INVALID_ARG: {text}") if unary else scripted(error_response(f"INVALID_ARG: {text}"))
    )
    arguments: dict[str, Any] = {} if method == "stream" else {"recording": "song.m4a"}
    if method == "stream":
        arguments["lyrics"] = "la"
    if model not in ("demucs", "speaker_encoder"):
        arguments |= {"voice": b"AAC", "consent": "me"}
    call = caller.items if method.startswith("stream") else caller.call
    with pytest.raises(InvalidRequestError) as caught:
        call(method, server.url, **arguments)
    assert str(caught.value) == f"{name}: expected WAV, got AAC"
