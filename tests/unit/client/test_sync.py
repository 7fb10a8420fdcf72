"""What only the synchronous client does: generators, threads, close."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from heartvoice.client import AudioChunk, Client
from heartvoice.client.connection import LOOKAHEAD_BYTES
from heartvoice.errors import InvalidRequestError, RequestCancelledError
from tests.fakes.server import FakeServer, audio, endless_song, error_response, samples, scripted, silent_song
from tests.support.distant import distant


def close_once_asked(server: FakeServer, client: Client) -> None:
    """Close the client from another thread soon after its request has arrived."""

    def work() -> None:
        server.wait_for_request()
        client.close()

    threading.Thread(target=work).start()


def test_nothing_is_sent_before_the_first_next(server: FakeServer) -> None:
    with Client(server.url) as client:
        stream = client.stream(tags="pop")
        time.sleep(0.1)
        assert not server.requests
        next(stream)
        assert len(server.requests) == 1


def test_closing_the_generator_cancels_on_the_server(server: FakeServer) -> None:
    server.song = endless_song
    with Client(server.url) as client:
        stream = client.stream(tags="pop", events=True)
        for message in stream:
            if isinstance(message, AudioChunk):
                break
        assert not server.cancelled.is_set()
        stream.close()
        assert server.cancelled.wait(60)


def test_a_finished_song_is_not_cancelled(server: FakeServer) -> None:
    with Client(server.url) as client:
        client.song(tags="pop")
        assert not server.cancelled.wait(0.2)


def test_an_error_in_on_event_cancels_on_the_server(server: FakeServer) -> None:
    server.song = endless_song

    def stop(_: object) -> None:
        raise ZeroDivisionError

    with Client(server.url) as client:
        with pytest.raises(ZeroDivisionError):
            client.song(tags="pop", on_event=stop)
        assert server.cancelled.wait(60)


@pytest.mark.parametrize("song", [endless_song, silent_song])
def test_close_ends_songs_of_other_threads(server: FakeServer, song: object) -> None:
    server.song = song  # type: ignore[assignment]
    client = Client(server.url)
    close_once_asked(server, client)
    with pytest.raises(RequestCancelledError, match="song: the client was closed"):
        client.song(tags="pop")
    assert server.cancelled.wait(60)


def test_close_ends_a_render(server: FakeServer) -> None:
    server.render = lambda request, context: list(silent_song(request, context))
    client = Client(server.url)
    close_once_asked(server, client)
    with pytest.raises(RequestCancelledError, match="render: the client was closed"):
        client.render(tags="pop")


def test_close_ends_the_wait_between_retries(server: FakeServer) -> None:
    server.song = scripted(error_response("UNAVAILABLE: busy"))
    client = Client(server.url, retries=100)
    close_once_asked(server, client)
    with pytest.raises(RequestCancelledError):
        client.song(tags="pop")


def test_a_closed_client_says_so(server: FakeServer) -> None:
    with Client(server.url) as client:
        pass
    with pytest.raises(RequestCancelledError, match="the client was closed"):
        client.song(tags="pop")
    with pytest.raises(RequestCancelledError, match="the client was closed"):
        client.server_ready()


def test_one_client_serves_many_threads(server: FakeServer) -> None:
    with Client(server.url) as client, ThreadPoolExecutor(8) as pool:
        songs = list(pool.map(lambda seed: client.song(tags="pop", seed=seed), range(16)))
    for song in songs:
        np.testing.assert_array_equal(song.audio, samples(0, 76_800))
    assert len({request.id for request in server.requests}) == 16


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"url": "http://127.0.0.1:8000"}, "url: expected host:port"),
        ({"url": ""}, "url: expected host:port"),
        ({"timeout_s": float("nan")}, "timeout_s: expected a number above 0, got nan"),
        ({"retries": -1}, "retries: expected 0 or more, got -1"),
        ({"private_key": b"x"}, "private_key, certificate_chain: expected both or neither"),
        ({"root_certificates": "/nowhere.pem"}, "root_certificates: cannot read '/nowhere.pem'"),
    ],
)
def test_bad_connection_arguments_are_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Client(**arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(text)


def test_a_fast_stream_waits_for_a_slow_reader(server: FakeServer) -> None:
    """A way with a delay stands for a busy machine; gRPC's default took 276 MB ahead on it."""
    n_samples, n_read, sent = 250_000, 60, [0]

    def fast_song(request: Any, context: Any) -> Iterator[Any]:
        for start in range(0, 400 * n_samples, n_samples):
            yield audio(start, n_samples)
            sent[0] += 1

    server.song = fast_song
    with distant(server.url, delay_s=0.03) as url, Client(url) as client:
        stream = client.stream(lyrics="la")
        for _ in range(n_read):
            next(stream)
        time.sleep(1.0)  # time for whatever it takes ahead
        ahead = (sent[0] - n_read) * n_samples * 2 * 4
        assert ahead <= LOOKAHEAD_BYTES + 3 * n_samples * 2 * 4, "more is held than is allowed and under way"
        stream.close()


def test_a_distant_server_is_reached_at_the_first_try(server: FakeServer) -> None:
    with distant(server.url, delay_s=0.2) as url, Client(url, retries=0) as client:
        assert client.song(lyrics="la").audio.shape[0] == 2
