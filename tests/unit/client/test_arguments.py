"""The typed keyword arguments: those of the contract, checked by mypy and at the call."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from mypy import api

from heartvoice.client import (
    AsyncClient,
    Client,
    ConnectionArguments,
    CoverArguments,
    RenderArguments,
    RenderCoverArguments,
    SongArguments,
)
from heartvoice.client.connection import Connection
from heartvoice.client.requests import CoverRequest, SongRequest
from heartvoice.contracts import COVER_SETTINGS, RENDER_SETTINGS, SONG_SETTINGS
from heartvoice.errors import InvalidRequestError, UnknownSettingError

ROOT = Path(__file__).parents[3]
VOICE = b"a voice"
SONG_PARTS = set(SongRequest.__dataclass_fields__) - {"lyrics", "tags", "settings"}
COVER_PARTS = set(CoverRequest.__dataclass_fields__) - {"recording", "voice", "consent", "settings"}
COVER_FILE_SETTINGS = [setting for setting in COVER_SETTINGS if setting in RENDER_SETTINGS]


@pytest.mark.parametrize(
    ("arguments", "parts", "settings"),
    [
        (SongArguments, SONG_PARTS, SONG_SETTINGS),
        (RenderArguments, SONG_PARTS, RENDER_SETTINGS),
        (CoverArguments, COVER_PARTS, COVER_SETTINGS),
        (RenderCoverArguments, COVER_PARTS, COVER_FILE_SETTINGS),
    ],
)
def test_arguments_are_those_of_the_contract(arguments: Any, parts: set[str], settings: Any) -> None:
    hints = get_type_hints(arguments)
    assert set(hints) == parts | {setting.name for setting in settings}
    for setting in settings:
        kind = {"FP32": float, "INT64": int, "BOOL": bool}[setting.dtype]
        assert kind in hints[setting.name].__args__, setting.name


def test_connection_arguments_are_those_of_a_connection() -> None:
    assert set(get_type_hints(ConnectionArguments)) == set(Connection.__dataclass_fields__) - {"url"}


def test_every_argument_is_described_once() -> None:
    kinds = (SongArguments, RenderArguments, CoverArguments, RenderCoverArguments)
    described = [re.findall(r"^        (\w+): ", kind.__doc__ or "", re.MULTILINE) for kind in kinds]
    names = [name for names in described for name in names]
    assert set(names) == set(SongArguments.__annotations__)
    assert [name for name, n in Counter(names).items() if n > 1] == ["stems"], "of a song and of a cover"


def test_an_unknown_keyword_is_a_type_error_at_the_call() -> None:
    with Client() as client:
        calls = (client.stream, client.song, client.render)
        for call in calls:
            with pytest.raises(TypeError, match=r"sed: .* has no such setting; did you mean seed\?") as caught:
                call(sed=3)  # type: ignore[call-arg]
            assert isinstance(caught.value, InvalidRequestError)
        for cover in (client.stream_cover, client.cover, client.render_cover):
            with pytest.raises(UnknownSettingError, match="qqq: "):
                cover(VOICE, VOICE, consent="me", qqq=3)  # type: ignore[call-arg]
    for kind in (Client, AsyncClient):
        with pytest.raises(TypeError, match="'tsl'"):
            kind(tsl=True)  # type: ignore[call-arg]


def test_required_arguments_stay_required() -> None:
    with Client() as client:
        with pytest.raises(TypeError, match="'voice'"):
            client.cover(VOICE, consent="me")  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="'consent'"):
            client.cover(VOICE, VOICE)  # type: ignore[call-arg]


CALLS = """\
import numpy as np
from heartvoice.client import AsyncClient, Client, SongRequest

client = Client("host:1", tls=True, retries=2)
client.song("la", "pop", duration_s=8, seed=np.int64(7), top_k=None, live=True, voice="me.wav", consent="me")
client.song(SongRequest("la"), timeout_s=5.0)
client.render("la", file_format="flac", temperature=np.float32(0.5))
client.cover("song.wav", (np.zeros(9), 48000), consent="me", stems=True, auto_pitch="off")
client.render_cover("song.wav", b"me", consent="me", seed=1)
Client(tsl=True)  # wrong: unknown name
Client(retries="2")  # wrong: type
client.song("la", duration_s="8")  # wrong: type
client.song("la", duration=8)  # wrong: unknown name
client.stream("la", consent=None)  # wrong: type
client.render("la", stems=True)  # wrong: a file has no stems
client.cover("song.wav", consent="me")  # wrong: no voice
client.cover("song.wav", "me.wav")  # wrong: no consent
client.cover("song.wav", "me.wav", consent="me", duration_s=8)  # wrong: unknown name
client.stream_cover("song.wav", "me.wav", consent="me", seed=0.5)  # wrong: type


async def main() -> None:
    other = AsyncClient("host:1", timeout_s=5)
    await other.song("la", "pop", duration_s=8, seed=7)
    await other.cover("song.wav", "me.wav", consent="me", pitch_shift=2)
    await other.song("la", seed="7")  # wrong: type
    await other.cover("song.wav", "me.wav", consent="me", duration_s=8)  # wrong: unknown name
"""


@pytest.mark.slow
def test_mypy_accepts_right_calls_and_rejects_wrong_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the configuration and its cache are
    file = tmp_path / "calls.py"
    file.write_text(CALLS, encoding="utf-8")
    output, errors, _ = api.run(["--config-file", "pyproject.toml", "--hide-error-context", str(file)])
    assert not errors
    found = {int(number) for number in re.findall(rf"{file.name}:(\d+): error", output)}
    wrong = {number for number, line in enumerate(CALLS.splitlines(), 1) if "# wrong" in line}
    assert found == wrong, output
