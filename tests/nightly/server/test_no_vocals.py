"""A recording in which nobody sings, through the real server, with a separator that can tell."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.audio.dsp import resample
from heartvoice.client import Client
from heartvoice.config.presets import PRESETS, htdemucs_of, with_separator
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.errors import InvalidRequestError
from heartvoice.export.repository import export_repository
from heartvoice.export.weights import random_weights
from heartvoice.models.load import TensorSource
from heartvoice.runtime.repository import Repository
from tests.support import music
from tests.support.raw import OF_CONVERSION, OF_COVERS
from tests.support.servers import running_server
from tests.support.speech import say

SEPARATOR = htdemucs_of("tiny")
CONSENT = "the author of these tests, for these tests"


class Silent(TensorSource):
    """A separator's weights with a vocals stem that is always silent: its last convolutions give zeros."""

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        self.names = source.names

    def where(self, name: str) -> str:
        return self._source.where(name)

    def sha256(self) -> dict[str, str]:
        return {"test": "silent vocals"}

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(name)

    def _pieces(self, name: str) -> Iterator[Any]:
        value = self._source.array(name)
        for branch, per_source in (("decoder", 4), ("tdecoder", 2)):
            last = f"models.0.{branch}.{SEPARATOR.depth - 1}.conv_tr"
            vocals = slice(per_source * SEPARATOR.sources.index("vocals"), None)
            if name == f"{last}.weight":
                value[:, vocals] = 0
            elif name == f"{last}.bias":
                value[vocals] = 0
        yield value.reshape(-1)


@pytest.fixture(scope="module")
def client(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    weights = random_weights(with_separator(PRESETS["tiny"], "htdemucs"), 0)
    source = Silent(weights.source("separator"))
    known = replace(
        weights, opened={**weights.opened, "separator": lambda: source},
        published={**weights.published, "separator": "made by a test"},
    )  # fmt: skip
    root = Path(shutil.copytree(repository.root, tmp_path_factory.mktemp("silent") / "tiny"))
    export_repository(known, root)  # all but the separator are up to date
    with running_server(root, models=(*OF_COVERS, *OF_CONVERSION)) as server, Client(server.url) as made:
        yield made


@pytest.fixture(scope="module")
def voice() -> tuple[np.ndarray, int]:
    return say("The lake lay still that morning, and nobody had yet thought of the boats or the weather."), 16_000


INSTRUMENTAL = (music.band(9.0), STEM_RATE_HZ)


def test_nobody_sings_passthrough(client: Client, voice: tuple[np.ndarray, int]) -> None:
    song = client.cover(INSTRUMENTAL, voice, consent=CONSENT)
    assert song.report.raw["converted"] is False
    assert np.array_equal(song.audio, resample(INSTRUMENTAL[0], STEM_RATE_HZ, SAMPLE_RATE_HZ))
    assert "AI-generated" not in song.report.comment


def test_nobody_sings_error(client: Client, voice: tuple[np.ndarray, int]) -> None:
    with pytest.raises(InvalidRequestError, match="recording: no vocals found"):
        client.cover(INSTRUMENTAL, voice, consent=CONSENT, no_vocals="error")


def test_nobody_sings_convert(client: Client, voice: tuple[np.ndarray, int]) -> None:
    song = client.cover(INSTRUMENTAL, voice, consent=CONSENT, no_vocals="convert")
    assert song.report.raw["converted"] is True
    assert song.report.raw["similarity"]["before"] is None, "nothing audible to judge"
