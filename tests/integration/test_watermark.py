"""Songs that a real server marks: the same bits in stream, file and this process, and the mark is found in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from heartvoice.audio.decode import decode
from heartvoice.cli.main import app
from heartvoice.client import Client
from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.contracts.messages import AudioChunk
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.pipeline.in_process import InProcessStages, make_song
from heartvoice.pipeline.watermarking import Watermark
from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from heartvoice.watermark import ALGORITHM, detect, make_key
from tests.support.raw import Raw
from tests.support.servers import running_server

MODELS = ("song", "render", "cover", "heartcodec", "heartcodec_decoder", "heartmula")
CODES = np.random.default_rng(4).integers(0, 256, (8, 300), np.int32)
QUICK: dict[str, Any] = {"codec_steps": 1, "codec_window": 93}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "watermark.key"
    make_key(path)
    return path


@pytest.fixture(scope="module")
def marking(repository: Repository, key_file: Path) -> Iterator[EmbeddedServer]:
    """A server whose operator marks songs."""
    with running_server(repository.root, models=MODELS, watermark_key=key_file) as running:
        yield running


def test_a_marked_song_is_the_same_in_stream_file_and_process_and_its_mark_is_found(
    marking: EmbeddedServer, repository: Repository, key_file: Path, tmp_path: Path
) -> None:
    key = bytes.fromhex(key_file.read_text().strip())
    with Client(marking.url, timeout_s=100) as client:
        song = client.song(codes=CODES, seed=3, **QUICK)
        file, report = client.render(codes=CODES, seed=3, file_format="wav", **QUICK)
        path = tmp_path / "song.wav"
        path.write_bytes(file)
        with pytest.raises(InvalidRequestError, match="voice: expected a recording of a person"):
            client.cover(path, (song.audio, SAMPLE_RATE_HZ), consent="me")
    inputs = {"codes": CODES, "seed": np.array([3]), **{name: np.array([value]) for name, value in QUICK.items()}}
    messages = make_song(
        repository, InProcessStages(repository), inputs, watermark=Watermark(key, repository.weights_sha256)
    )
    local = np.concatenate([each.audio for each in messages if isinstance(each, AudioChunk)], axis=1)
    assert np.array_equal(song.audio, local)
    marked = song.report.raw["watermark"]
    assert marked == report.raw["watermark"]
    assert (marked["on"], marked["alg"]) == (True, ALGORITHM)
    sound = decode(file, field="file", max_s=600)
    assert np.abs(sound.audio - 10 ** (report.raw["gain_db"] / 20) * song.audio).max() < 2**-15
    assert detect(sound.audio, SAMPLE_RATE_HZ, key).payload == int(marked["payload"], 16)
    found = CliRunner().invoke(app, ["verify", str(path), "--watermark-key", str(key_file), "--json"])
    result = json.loads(found.stdout)
    assert (found.exit_code, result["state"]) == (1, "unsigned")
    assert result["watermark"]["payload"] == marked["payload"]
    assert f"mark of the key: found, of a song, payload {marked['payload']}" in found.stderr


def test_a_callers_song_is_the_same_after_a_retry_and_another_callers_is_another(marking: EmbeddedServer) -> None:
    def song(**caller: str) -> tuple[bytes, str]:
        named = {name: np.array([value.encode()], object) for name, value in caller.items()}
        inputs = {"codes": CODES, "codec_steps": np.array([1]), "codec_window": np.array([93]), **named}
        with Raw(marking.url) as raw:
            responses = list(raw.stream("song", inputs, timeout=100))
        audio = np.concatenate([each["AUDIO"] for each in responses if "AUDIO" in each], axis=1)
        report = next(json.loads(each["REPORT"][0]) for each in responses if "REPORT" in each)
        return audio.tobytes(), report["watermark"]["payload"]

    alice, again, bob, nobody = song(caller="alice"), song(caller="alice"), song(caller="bob"), song()
    assert alice == again
    assert len({alice, bob, nobody}) == len({payload for _, payload in (alice, bob, nobody)}) == 3


def test_without_a_key_nothing_is_marked_and_the_report_says_so(client: Client, key_file: Path) -> None:
    song = client.song(codes=CODES, seed=3, **QUICK)
    assert song.report.raw["watermark"] == {"on": False}
    key = bytes.fromhex(key_file.read_text().strip())
    assert not detect(song.audio, SAMPLE_RATE_HZ, key, speeds=False).found


def test_a_server_does_not_start_with_a_key_that_cannot_be_read(repository: Repository, tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidRequestError, match="watermark key: cannot read"),
        running_server(repository.root, models=("song",), watermark_key=tmp_path / "none.key"),
    ):
        raise EngineError("it started")
