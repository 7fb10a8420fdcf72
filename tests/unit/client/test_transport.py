"""A transport of one's own, through the public names alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.client import AsyncClient, AudioChunk, Client, Event, Song, Transport
from heartvoice.errors import (
    DeadlineError,
    EngineError,
    InvalidRequestError,
    ModelUnavailableError,
)

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "integrate.md"
REPORT = {"seed": 7, "preset": "tiny", "random_weights": True}
VOICE = (np.full(5 * 16_000, 0.1, np.float32), 16_000)
UNIT = np.eye(1, 256, dtype=np.float32)[0]


class Recorder:
    """A fake server: answers every model, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.left = False

    def infer(self, model: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append((model, inputs))
        if model == "render":
            return {"FILE": b"file", "REPORT": REPORT}
        return {"EMBEDDING": UNIT, "REPORT": {"encoder": "resemblyzer", "seconds": 5.0}}

    def stream(self, model: str, inputs: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        self.asked.append((model, inputs))
        stems = "STEMS" if model == "demucs" else "AUDIO"
        shape = (1, 2, 4800) if model == "demucs" else (2, 4800)
        try:
            yield {"EVENT": {"stage": "lm", "done": 1, "total": 2, "seconds": 0.1}}
            yield {stems: np.full(shape, 0.5), "START": [0]}
            yield {stems: np.full(shape, 0.25), "START": [4800]}
            yield {"REPORT": REPORT | {"converted": True, "warnings": [], "sources": ["vocals"]}}
        finally:
            self.left = True


class Once(Recorder):
    """Fails its first call."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error: Exception | None = error

    def stream(self, model: str, inputs: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        yield from super().stream(model, inputs)


class Saying(Recorder):
    """Answers a song with these responses."""

    def __init__(self, *responses: Mapping[str, Any]) -> None:
        super().__init__()
        self._responses = responses

    def stream(self, model: str, inputs: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        yield from self._responses


def song_of(transport: Transport, *, is_async: bool, **arguments: Any) -> Song:
    """A song of either client."""
    if not is_async:
        with Client(transport=transport) as client:
            return client.song("la", "pop", **arguments)

    async def work() -> Song:
        async with AsyncClient(transport=transport) as client:
            return await client.song("la", "pop", **arguments)

    return asyncio.run(work())


@pytest.mark.parametrize("is_async", [False, True])
class TestBothClients:
    def test_a_transport_gets_the_tensors_and_answers_with_tensors(self, is_async: bool) -> None:
        transport, events = Recorder(), list[Event]()
        song = song_of(transport, is_async=is_async, duration_s=4, seed=7, on_event=events.append)
        assert song.audio.shape == (2, 9600)
        assert song.report.seed == 7
        assert [event.stage for event in events] == ["lm"]
        ((model, inputs),) = transport.asked
        assert model == "song"
        assert inputs["lyrics"][0] == b"la"
        assert inputs["duration_s"].dtype == np.float32
        assert inputs["seed"] == [7]

    def test_requests_are_checked_before_the_transport_is_asked(self, is_async: bool) -> None:
        transport = Recorder()
        with pytest.raises(InvalidRequestError, match="duration_s"):
            song_of(transport, is_async=is_async, duration_s=-1)
        assert not transport.asked

    def test_unavailability_is_tried_again_and_other_errors_are_not(self, is_async: bool) -> None:
        assert song_of(Once(ModelUnavailableError("busy")), is_async=is_async).audio.size
        with pytest.raises(DeadlineError, match="late"):
            song_of(Once(DeadlineError("late")), is_async=is_async)

    @pytest.mark.parametrize(
        ("responses", "message"),
        [
            ([{"SOUND": [1.0]}], "'SOUND'"),
            ([{"AUDIO": np.zeros((3, 9)), "START": [0]}], "AUDIO: expected"),
            ([{"AUDIO": np.zeros((2, 9)), "START": [5]}], "5"),
            ([{"AUDIO": np.zeros((2, 9)), "START": [0]}], "report"),
        ],
    )
    def test_answers_are_checked_as_a_servers(self, is_async: bool, responses: Any, message: str) -> None:
        with pytest.raises(EngineError, match=message):
            song_of(Saying(*responses), is_async=is_async)


def test_every_call_goes_by_the_transport() -> None:
    transport = Recorder()
    with Client(transport=transport) as client:
        assert client.server_ready()
        assert client.model_ready("song")
        assert not client.model_ready("opera")
        assert client.render("la")[0] == b"file"
        assert client.cover(VOICE, VOICE, consent="me").report.converted
        assert client.separate(VOICE, sources="vocals")["vocals"].shape == (2, 9600)
        assert client.embed(VOICE).encoder == "resemblyzer"
    assert [model for model, _ in transport.asked] == ["render", "cover", "demucs", "speaker_encoder"]


def test_every_call_of_the_asynchronous_client_does_too() -> None:
    transport = Recorder()

    async def work() -> None:
        async with AsyncClient(transport=transport) as client:
            assert await client.server_ready()
            assert not await client.model_ready("opera")
            assert (await client.render("la"))[0] == b"file"
            assert (await client.embed(VOICE)).encoder == "resemblyzer"

    asyncio.run(work())
    assert [model for model, _ in transport.asked] == ["render", "speaker_encoder"]


def test_leaving_a_stream_closes_the_transports_generator() -> None:
    transport = Recorder()
    with Client(transport=transport) as client, closing(client.stream("la")) as messages:
        assert isinstance(next(messages), AudioChunk)
        assert not transport.left
    assert transport.left


def test_shared_memory_needs_a_server() -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidRequestError, match="shared_memory"):
            kind(transport=Recorder(), shared_memory=True)


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    match = re.search(r"<!-- snippet: transport -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert match
    exec(match[1], {})
    assert capsys.readouterr().out == "1.0 [b'la'] InvalidRequestError\n"
