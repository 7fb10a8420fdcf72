"""Separation, embeddings and similarity through the real server."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from heartvoice.cli.main import app
from heartvoice.client import Client
from heartvoice.contracts.constants import MAX_RESPONSE_BYTES, STEM_RATE_HZ
from heartvoice.errors import InvalidRequestError
from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from tests.fakes.networks import text
from tests.support import music
from tests.support.raw import Raw
from tests.support.speech import say

SECONDS = 12.0
"""Three windows of the separator."""


@pytest.fixture(scope="module")
def recording() -> bytes:
    return music.encode(music.song(SECONDS)[0], STEM_RATE_HZ, "WAV", "FLOAT")


def test_stems_of_a_file(server: EmbeddedServer, client: Client, recording: bytes, repository: Repository) -> None:
    stems = client.separate(recording)
    assert tuple(stems) == repository.preset.separator.sources
    assert all(stem.shape == (2, round(SECONDS * STEM_RATE_HZ)) for stem in stems.values())
    with Raw(server.url) as raw:
        inputs = {"file": np.array([recording], object), "sources": text("vocals")}
        responses = [r for r in raw.stream("demucs", inputs, timeout=60) if r]
    position = 0
    for response in responses[:-1]:
        assert response["START"][0] == position
        assert response["STEMS"].nbytes <= MAX_RESPONSE_BYTES
        position += response["STEMS"].shape[2]
    vocals = np.concatenate([r["STEMS"] for r in responses[:-1]], axis=2)[0]
    assert np.array_equal(vocals, stems["vocals"])
    assert json.loads(responses[-1]["REPORT"][0])["sources"] == ["vocals"]


def test_several_separations_at_once_are_those_alone(client: Client) -> None:
    recordings = [(music.song(seconds)[0], STEM_RATE_HZ) for seconds in (2.0, 4.0, 9.0)]
    alone = [client.separate(r, sources=["vocals"])["vocals"] for r in recordings]
    together: dict[int, np.ndarray] = {}

    def work(index: int) -> None:
        together[index] = client.separate(recordings[index], sources=["vocals"])["vocals"]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, stem in enumerate(alone):
        assert np.array_equal(together[index], stem)


def test_the_same_voice_is_nearer_than_another(client: Client) -> None:
    def embed(words: str, voice: str) -> np.ndarray:
        return client.embed((say(words, voice=voice), 16_000)).vector

    first = "Every evening the lamps along the harbour were lit one after the other by an old man."
    second = "Nobody remembers who built the bridge, but all of us have crossed it in the rain."
    same = float(embed(first, "en") @ embed(second, "en"))
    other = float(embed(first, "en") @ embed(second, "en+f3"))
    assert same > other + 0.1
    assert float(np.linalg.norm(embed(first, "en"))) == pytest.approx(1.0, abs=1e-5)


def test_recordings_are_checked_if_asked_for(client: Client) -> None:
    words = [
        say("Nobody remembers who built the bridge, but all of us have crossed it.", voice=v) for v in ("en", "en+f3")
    ]
    both = (np.concatenate(words), 16_000)
    (warning,) = client.embed(both, reference_check="warn").warnings
    assert warning.startswith("audio: two voices")
    with pytest.raises(InvalidRequestError, match="recording: expected one voice alone, got two voices"):
        client.embed(both, reference_check="strict")
    band = (music.band(4.0, 16_000), 16_000)
    with pytest.raises(InvalidRequestError, match="recording: expected somebody who speaks or sings"):
        client.embed(band, reference_check="warn")
    with pytest.raises(InvalidRequestError, match="voice: expected somebody who speaks or sings"):
        client.cover((music.song(2.0)[0], STEM_RATE_HZ), band, consent="nobody")


def test_similarity_names_the_recording_that_breaks_the_rules(server: EmbeddedServer, tmp_path: Path) -> None:
    words = [say("Nobody remembers who built the bridge, but all have crossed it.", voice=v) for v in ("en", "en+f3")]
    recordings = {
        "one": words[0], "two": np.concatenate(words), "band": music.band(4.0, 16_000).T, "rest": np.zeros(64_000),
    }  # fmt: skip
    for name, audio in recordings.items():
        soundfile.write(tmp_path / f"{name}.wav", audio, 16_000)

    def compared(first: str, second: str, *options: str) -> tuple[int, str]:
        files = [str(tmp_path / f"{name}.wav") for name in (first, second)]
        result = CliRunner().invoke(app, ["similarity", *files, "--url", server.url, *options])
        return result.exit_code, result.output

    code, said = compared("one", "two")
    assert (code, "two voices" in said) == (0, True), said
    for first, second, options, message in (
        ("one", "two", ["--reference-check", "strict"], r"^error: B \S+two\.wav: expected one voice alone"),
        ("band", "one", [], r"^error: A \S+band\.wav: expected somebody who speaks or sings"),
        ("one", "rest", [], r"^error: B \S+rest\.wav: expected "),
    ):
        code, said = compared(first, second, *options)
        assert code == 2, said
        assert re.search(message, said.replace("\n", " ")), said
