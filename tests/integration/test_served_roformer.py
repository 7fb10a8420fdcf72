"""A RoFormer behind the separator's slot of a real server: tiny, with random weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from heartvoice.client import Client
from heartvoice.config.presets import PRESETS, with_separator
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.contracts.messages import StemsChunk
from heartvoice.contracts.models import DEMUCS, ROFORMER
from heartvoice.errors import InvalidRequestError
from heartvoice.export.repository import export_repository
from heartvoice.export.weights import random_weights
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.separation.stage import SeparateStage
from tests.support import music
from tests.support.servers import running_server

PRESET = with_separator(PRESETS["tiny"], "mel_band_roformer")


@pytest.fixture(scope="module")
def roformer(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    root = Path(shutil.copytree(repository.root, tmp_path_factory.mktemp("roformer") / "tiny"))
    export_repository(random_weights(PRESET, 0), root)  # all but the separator are up to date
    return Repository(root)


@pytest.fixture(scope="module")
def client(roformer: Repository) -> Iterator[Client]:
    """Two models alone."""
    with running_server(roformer.root, models=(DEMUCS.name, ROFORMER.name)) as server, Client(server.url) as made:
        yield made


def test_it_separates_as_it_does_without_a_server(client: Client, roformer: Repository) -> None:
    mix = music.song(9.0)[0]  # one chunk, and the beginning of another
    served = client.separate((mix, STEM_RATE_HZ))
    stage = SeparateStage(LocalNetworks(roformer), roformer.preset.separator)
    pieces = [each.stems for each in stage.separate(SeparationRequest(mix)) if isinstance(each, StemsChunk)]
    assert tuple(served) == roformer.preset.separator.sources == ("vocals", "instrumental")
    np.testing.assert_array_equal(np.stack(list(served.values())), np.concatenate(pieces, axis=2))
    np.testing.assert_allclose(served["vocals"] + served["instrumental"], mix, rtol=0, atol=1e-5)
    assert np.abs(served["vocals"]).max() > 1e-4
    assert (served.report.raw["separator"], served.report.random_weights) == ("roformer", True)


def test_a_stem_that_it_lacks_is_refused_by_name(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match=r"sources: expected some of vocals, instrumental .*drums"):
        client.separate((music.song(2.0)[0], STEM_RATE_HZ), sources="drums")
