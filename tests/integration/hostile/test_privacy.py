"""No log, other caller or process list may learn what someone sings, whose voice it is, or who agreed."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from heartvoice.client import Client
from heartvoice.errors import EngineError, HeartvoiceError
from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from tests.support import music
from tests.support.hostile.case import one
from tests.support.hostile.tensor_cases import voice
from tests.support.raw import OF_SONGS, Raw, with_broken_writer
from tests.support.servers import running_server

LYRICS, TAGS, CONSENT = "xylophonic quetzal", "zitherish, oboeing", "Zebediah Quill, by letter"
TITLE = "Unreleased Demo Number Nine"
SHORT: dict[str, Any] = {"duration_s": 1.0, "codec_steps": 1}


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.url) as made:
        yield made


@pytest.fixture(scope="module")
def reference() -> bytes:
    """A recording whose tags and samples are somebody's own."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 16_000, 1, format="FLAC") as out:
        out.title = TITLE
        out.write(voice()[0])
    return file.getvalue()


def secrets(reference: bytes) -> list[bytes]:
    """All that may not be found, in the spellings that a log could have them in."""
    texts = [word for text in (LYRICS, TAGS, CONSENT, TITLE) for word in text.replace(",", "").split() if len(word) > 5]
    samples = (reference[-64:-32], voice()[0, 1000:1008].tobytes())
    return [
        *(text.encode() for text in texts),
        *(base64.b64encode(LYRICS.encode())[:20], LYRICS.encode().hex().encode()),
        *samples,
        *(sample.hex().encode() for sample in samples),
        *(repr(sample)[2:-1].encode() for sample in samples),
        repr(float(voice()[0, 1000]))[:9].encode(),
    ]


def found(server: EmbeddedServer, reference: bytes) -> list[bytes]:
    assert server.options.log_path is not None
    log = Path(server.options.log_path).read_bytes()
    assert b"loaded " in log
    return [secret for secret in secrets(reference) if secret in log]


def test_the_log_holds_nothing_of_jobs_that_end_well_or_badly(
    server: EmbeddedServer, client: Client, reference: bytes
) -> None:
    client.song(lyrics=LYRICS, tags=TAGS, voice=reference, consent=CONSENT, no_vocals="convert", svc_steps=1, **SHORT)
    stream = client.stream(lyrics=LYRICS, tags=TAGS, events=True, duration_s=60.0)
    next(stream)
    stream.close()  # cancelled
    refused: list[Callable[[], object]] = [
        lambda: client.song(lyrics=LYRICS + "</tag>", tags=TAGS, **SHORT),
        lambda: client.song(lyrics=f"{LYRICS} \x07", tags=TAGS, **SHORT),
        lambda: client.song(lyrics=LYRICS * 1000, **SHORT | {"duration_s": 240.0}),
        lambda: client.song(lyrics=LYRICS, voice=reference[:300], consent=CONSENT, **SHORT),
        lambda: client.cover(music.encode(voice()[0], 16_000), reference[:300], consent=CONSENT),
    ]
    for call in refused:
        with pytest.raises(HeartvoiceError) as caught:
            call()
        assert CONSENT not in str(caught.value)
    with Raw(server.url) as raw:
        key = {
            "vocals": voice(0.3, 44_100)[0],
            "voice_key": one(LYRICS.encode()),
            "voice_consent": one(CONSENT.encode()),
        }
        assert "NOT_FOUND" in next(raw.stream("svc", key))["error"]
    assert found(server, reference) == []


def test_no_command_line_holds_anything_of_a_job(server: EmbeddedServer, client: Client, reference: bytes) -> None:
    with closing(client.stream(lyrics=LYRICS, tags=TAGS, events=True, duration_s=60.0)) as stream:
        next(stream)
        processes = [server.pid, *server.stub_pids().values()]
        lines = b"\n".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes)
        variables = b"\n".join(Path(f"/proc/{pid}/environ").read_bytes() for pid in processes)
    assert b"triton" in lines
    for secret in secrets(reference):
        assert secret not in lines
        assert secret not in variables


def test_shared_memory_is_for_the_servers_user_alone(server: EmbeddedServer, client: Client) -> None:
    client.song(codes=np.zeros((8, 2), np.int32), codec_steps=1)
    maps = Path(f"/proc/{server.pid}/maps").read_text()
    regions = {Path(line.split()[-1]) for line in maps.splitlines() if "/dev/shm/heartvoice" in line}
    assert regions
    assert {oct(region.stat().st_mode & 0o777) for region in regions if region.exists()} == {"0o600"}


@pytest.fixture(scope="module")
def broken(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server whose language model fails with the lyrics in its error, and logs at DEBUG."""
    folder = tmp_path_factory.mktemp("broken")
    root = with_broken_writer(repository.root, folder / "repository")
    with running_server(root, log_path=folder / "server.log", models=OF_SONGS) as running:
        yield running


def test_an_unforeseen_failure_tells_its_caller_and_the_log_nothing_of_the_job(
    broken: EmbeddedServer, reference: bytes
) -> None:
    with Client(broken.url) as client:
        with pytest.raises(EngineError) as caught:
            client.song(lyrics=LYRICS, tags=TAGS, **SHORT)
        song = client.song(codes=np.zeros((8, 2), np.int32), codec_steps=1)
    assert str(caught.value) == "heartmula: internal error (ValueError); see the server's log"
    assert song.audio.shape == (2, 7680)
    assert broken.options.log_path is not None
    log = Path(broken.options.log_path).read_text(errors="replace")
    assert "heartmula: failed, builtins.ValueError" in log
    assert "in work" in log, "the place is told"
    assert "DEBUG" in log, "even at DEBUG"
    assert found(broken, reference) == []
