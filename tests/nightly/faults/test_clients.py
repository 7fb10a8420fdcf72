"""Callers that read nothing for a while, vanish without a word, or leave at any stage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from heartvoice.client import AudioChunk, Client, Event
from heartvoice.client.messages import Message
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.server import command_line
from heartvoice.server.server import EmbeddedServer
from tests.fakes.networks import text
from tests.support import music
from tests.support.faults.jobs import CONSENT, SONG_S, Running, left_behind, recovery_s, song
from tests.support.faults.proxy import Forwarder
from tests.support.faults.recorder import Recorder
from tests.support.raw import OF_SONGS, Metrics, Raw, outputs
from tests.support.waiting import wait_until

KEEPALIVE_S = 2.0
VOICE = (music.singer(4.0, STEM_RATE_HZ, seed=3)[None], STEM_RATE_HZ)


def n_cancelled(server: EmbeddedServer) -> float:
    return Metrics(server.metrics_url).value("heartvoice_jobs_total", model="song", outcome="CANCELLED")


@pytest.mark.timeout(180)
def test_a_caller_that_reads_nothing_delays_only_itself(
    server: EmbeddedServer, client: Client, alone: Callable[[str], np.ndarray], record: Recorder
) -> None:
    """One of eight; its song is made at full speed, and waits for it."""
    expected = alone("song")
    seconds = np.array([SONG_S], np.float32)
    inputs = {"lyrics": text("la la la"), "duration_s": seconds, "min_duration_s": seconds}
    with Raw(server.url) as raw:
        call = raw.call("song", inputs | {"codec_window": np.array([93])}, timeout=120)
        began = time.monotonic()
        readers = [Running(lambda: song(client)) for _ in range(7)]
        for reader in readers:
            assert np.array_equal(reader.wait().samples, expected)
        wait_until(lambda: server.live_jobs() == 0, 60.0, "the song waits for its reader")
        stalled_s = time.monotonic() - began
        parts = [outputs(message.infer_response).get("AUDIO") for message in call]
    made = np.concatenate([part for part in parts if part is not None], axis=1)
    assert np.array_equal(made, expected)
    record(
        "one caller of eight reads nothing until all others are done", saw="its whole song, right, when it reads",
        after_s=stalled_s, others="7 songs: same samples as alone", left=left_behind(server),
    )  # fmt: skip


@pytest.mark.timeout(120)
def test_a_caller_that_vanishes_without_a_word_frees_its_job(
    new_server: Callable[..., EmbeddedServer], record: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "KEEPALIVE_S", KEEPALIVE_S)
    server = new_server(models=OF_SONGS)
    forwarder = Forwarder(server.url)
    with Client(server.url) as near:
        expected = song(near)
        with Client(forwarder.url, retries=0) as far:
            stream = far.stream(lyrics="la", duration_s=240.0, min_duration_s=240.0, codec_window=93)
            next(stream)
            forwarder.cut()
            assert server.live_jobs() > 0
            bystander = Running(lambda: song(near))
            took = wait_until(lambda: n_cancelled(server) > 0, 5 * KEEPALIVE_S, "its job goes on")
            forwarder.close()
            stream.close()
        assert np.array_equal(bystander.wait().samples, expected)
        recovered = recovery_s(lambda: song(near, duration_s=1.0, min_duration_s=1.0), time.monotonic())
    record(
        f"a caller vanishes without FIN (forwarder that stops; keep-alive {KEEPALIVE_S:g} s in this test)",
        saw=f"its job ends as CANCELLED after {took:.1f} s", after_s=took, others="song: same samples as alone",
        recovery_s=recovered, left=left_behind(server),
    )  # fmt: skip


def stage_events(stream: Generator[Message, None, None], stage: str) -> Iterator[Message]:
    for message in stream:
        yield message
        if isinstance(message, Event) and message.stage == stage:
            return
        if stage == "audio" and isinstance(message, AudioChunk):
            return


SONG_STAGES = ("lm", "codec", "separate", "convert", "mix", "audio")
COVER_STAGES = ("separate", "convert", "mix", "audio")


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("kind", "stages"),
    [("song", SONG_STAGES), ("cover", COVER_STAGES)],
)
def test_a_caller_may_leave_at_every_stage(
    server: EmbeddedServer, client: Client, record: Recorder, kind: str, stages: tuple[str, ...]
) -> None:
    took: dict[str, float] = {}
    for stage in stages:
        if kind == "song":
            words = {"lyrics": "la la la", "duration_s": 30.0, "min_duration_s": 30.0, "codec_window": 93}
            stream = client.stream(**words, voice=VOICE, consent=CONSENT, live=True, svc_steps=2, events=True)  # type: ignore[arg-type]
        else:
            recording = (music.song(20.0)[0], STEM_RATE_HZ)
            stream = client.stream_cover(recording, VOICE, consent=CONSENT, live=True, svc_steps=2, events=True)
        seen = list(stage_events(stream, stage))
        last = seen[-1]
        assert isinstance(last, AudioChunk) if stage == "audio" else isinstance(last, Event) and last.stage == stage
        stream.close()
        took[stage] = wait_until(lambda: server.live_jobs() == 0, 60.0, f"jobs still live after {stage}")
    slowest = max(took, key=lambda name: took[name])
    left = left_behind(server)
    record(
        f"a caller of {kind} with a voice leaves at {', '.join(stages)}", saw="CANCELLED", recovery_s=took[slowest],
        others=f"slowest to end: {slowest}", left=left,
    )  # fmt: skip
    assert not left


_CLIENT = """
import sys
from heartvoice.client import Client
stream = Client(sys.argv[1]).stream(lyrics="la", duration_s=240.0, min_duration_s=240.0, codec_window=93)
for message in stream:
    print("x", flush=True)
"""


@contextmanager
def far_host() -> Iterator[tuple[list[str], str, Callable[[], None]]]:
    """A network namespace as another host: a command that runs there, our address as it sees it, and how to cut it."""
    name, near, far = f"hv{os.getpid()}", f"hvn{os.getpid() % 10000}", f"hvf{os.getpid() % 10000}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        ip("addr", "add", "198.18.77.1/30", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", name, "addr", "add", "198.18.77.2/30", "dev", far)
        ip("-n", name, "link", "set", far, "up")
        yield ["ip", "netns", "exec", name], "198.18.77.1", lambda: ip("-n", name, "link", "set", far, "down")
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.timeout(180)
def test_a_host_whose_network_is_cut_frees_its_job(
    new_server: Callable[..., EmbeddedServer], record: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server listens on loopback alone, so a forwarder stands between; the link beyond it goes down."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2 for a network namespace")
    monkeypatch.setattr(command_line, "KEEPALIVE_S", KEEPALIVE_S)
    server = new_server(models=OF_SONGS)
    with far_host() as (there, address, cut):
        forwarder = Forwarder(server.url, host=address)
        process = subprocess.Popen(
            [*there, sys.executable, "-c", _CLIENT, forwarder.url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"x\n"
        cut()
        took = wait_until(lambda: server.live_jobs() == 0, 5 * KEEPALIVE_S, "its job goes on")
        assert n_cancelled(server) == 1
        assert process.poll() is None, "the caller has noticed: that is another fault"
        process.kill()
        process.wait()
        process.stdout.close()
        forwarder.close()
    record(
        f"a caller's network is cut (namespace, link down; keep-alive {KEEPALIVE_S:g} s in this test)",
        saw="nothing: it waits until its own deadline or keep-alive", after_s=took, left=left_behind(server),
    )  # fmt: skip
