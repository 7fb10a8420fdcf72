"""A repository whose language model was also exported for onnxruntime's own operators: the server takes that graph."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from heartvoice.client import Client
from heartvoice.config.presets import PRESETS, with_separator
from heartvoice.contracts.messages import AudioChunk
from heartvoice.errors import EngineError
from heartvoice.export.repository import export_repository
from heartvoice.export.weights import random_weights
from heartvoice.pipeline.in_process import InProcessStages, make_song
from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from heartvoice.stages.lm.engine import GraphEngine
from heartvoice.stages.lm.engine_ort import OrtEngine
from heartvoice.stages.lm.factory import open_engine
from tests.fakes.networks import text
from tests.support.raw import OF_SONGS

WORDS = {"lyrics": "La la la", "duration_s": 4.0, "min_duration_s": 4.0, "seed": 11}


@pytest.fixture(scope="module")
def with_ort(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    root = Path(shutil.copytree(repository.root, tmp_path_factory.mktemp("ort") / "tiny"))
    written = export_repository(random_weights(with_separator(PRESETS["tiny"], "htdemucs"), 0), root, quantize="none")
    assert [result.model for result in written if result.written] == ["heartmula_step_ort"]
    return Repository(root)


def song(repository: Repository, engine: str) -> np.ndarray:
    inputs = {name: np.array([value]) for name, value in WORDS.items() if name != "lyrics"}
    messages = make_song(repository, InProcessStages(repository, engine=engine), {"lyrics": text("La la la"), **inputs})
    return np.concatenate([message.audio for message in messages if isinstance(message, AudioChunk)], axis=1)


def test_the_engine_is_that_of_the_graph_that_is_there(repository: Repository, with_ort: Repository) -> None:
    assert isinstance(open_engine(repository), GraphEngine)
    assert isinstance(open_engine(with_ort), OrtEngine)
    assert isinstance(open_engine(with_ort, "standard"), GraphEngine)
    with pytest.raises(EngineError, match="heartmula_step_ort"):
        open_engine(repository, "ort")
    with pytest.raises(EngineError, match="engine: expected one of auto, standard, ort, torch, got 'fast'"):
        open_engine(repository, "fast")


def test_both_engines_sing_the_same_song_and_so_does_the_server(
    with_ort: Repository, new_server: Callable[..., EmbeddedServer]
) -> None:
    expected = song(with_ort, "standard")
    assert np.array_equal(song(with_ort, "ort"), expected)
    assert np.array_equal(song(with_ort, "torch"), expected)
    server = new_server(with_ort.root, models=OF_SONGS)
    with Client(server.url) as client:
        assert np.array_equal(client.song(**WORDS).audio, expected)  # type: ignore[arg-type]
