"""What only the asynchronous client does: tasks, generators, close."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from heartvoice.client import AsyncClient, AudioChunk
from heartvoice.errors import RequestCancelledError
from tests.fakes.server import FakeServer, endless_song, error_response, scripted, silent_song


def run(server: FakeServer, use: Callable[[AsyncClient], Awaitable[Any]], **options: Any) -> Any:
    """Run `use` with a client in a fresh event loop."""

    async def main() -> Any:
        async with AsyncClient(server.url, **options) as client:
            return await use(client)

    return asyncio.run(main())


@pytest.mark.parametrize(("method", "song"), [("song", endless_song), ("song", silent_song), ("render", silent_song)])
def test_cancelling_the_task_cancels_on_the_server(server: FakeServer, method: str, song: Any) -> None:
    server.song = song
    server.render = lambda request, context: list(song(request, context))

    async def use(client: AsyncClient) -> None:
        task = asyncio.create_task(getattr(client, method)(tags="pop"))
        await asyncio.to_thread(server.wait_for_request)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.cancelled.wait, 3)

    run(server, use)


def test_closing_the_generator_cancels_on_the_server(server: FakeServer) -> None:
    server.song = endless_song

    async def use(client: AsyncClient) -> None:
        async with aclosing(client.stream(tags="pop")) as stream:
            async for message in stream:
                if isinstance(message, AudioChunk):
                    break
        assert await asyncio.to_thread(server.cancelled.wait, 3)

    run(server, use)


@pytest.mark.parametrize("song", [endless_song, silent_song])
def test_close_ends_songs_of_other_tasks_without_cancelling_them(server: FakeServer, song: Any) -> None:
    server.song = song

    async def use(client: AsyncClient) -> None:
        task = asyncio.create_task(client.song(tags="pop"))
        await asyncio.to_thread(server.wait_for_request)
        await client.close()
        with pytest.raises(RequestCancelledError, match="song: the client was closed"):
            await task
        assert await asyncio.to_thread(server.cancelled.wait, 3)

    run(server, use)


def test_close_ends_the_wait_between_retries(server: FakeServer) -> None:
    server.song = scripted(error_response("UNAVAILABLE: busy"))

    async def use(client: AsyncClient) -> None:
        task = asyncio.create_task(client.song(tags="pop"))
        await asyncio.to_thread(server.wait_for_request)
        await client.close()
        with pytest.raises(RequestCancelledError):
            await task

    run(server, use, retries=100)


def test_a_closed_client_says_so(server: FakeServer) -> None:
    async def use(client: AsyncClient) -> None:
        await client.close()
        with pytest.raises(RequestCancelledError, match="the client was closed"):
            await client.server_ready()

    run(server, use)


def test_songs_of_one_client_run_side_by_side(server: FakeServer) -> None:
    async def use(client: AsyncClient) -> list[Any]:
        return await asyncio.gather(*(client.song(tags="pop", seed=seed) for seed in range(8)))

    assert [song.duration_s for song in run(server, use)] == [1.6] * 8
