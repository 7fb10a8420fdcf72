"""The typed keyword arguments: those of the contract, checked by mypy and at the call."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, get_type_hints

import pytest

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
        with pytest.raises(InvalidRequestError, match="consent: missing, expected who consents"):
            client.cover(VOICE, VOICE)
