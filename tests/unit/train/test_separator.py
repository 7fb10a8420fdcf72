"""The separator's training: sources of the world, its loss, and weights that an export opens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from heartvoice.config.presets import DEMO_SEPARATOR
from heartvoice.models.demucs import build_separator, open_separator
from tests.support.demo_band import DemoBand
from train.demo import separator
from train.demo.separator import PARTS_OF, SeparatorTask
from train.demo.songs import held_out_song, training_song
from train.frame.loop import Options, train
from train.frame.task import Moment

SMALL = replace(
    DEMO_SEPARATOR, channels=4, bottom_channels=8, t_layers=1, t_heads=2, dconv_comp=2, nfft=2048, segment="8/25"
)
"""A network whose segment is four frames."""
SAMPLES = 14_112


@pytest.fixture(scope="module", autouse=True)
def _whole_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def task() -> SeparatorTask:
    songs, held_out = [training_song(0).codes], [held_out_song(0).codes]
    return SeparatorTask(SMALL, DemoBand(), songs, held_out, {"band": "of tests"})


def test_a_batch_has_each_source_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separator, "ALONE", 0.0)
    made = task()
    batch = made.compose(Moment(0, 10), np.random.default_rng(0)).numpy()
    assert batch.shape == (separator.N_CROPS, len(PARTS_OF), 2, SAMPLES)
    assert batch.dtype == np.float32
    bass = batch[:, SMALL.sources.index("bass")]
    spectrum = np.abs(np.fft.rfft(bass[0, 0]))
    assert np.fft.rfftfreq(SAMPLES, 1 / SMALL.samplerate)[spectrum.argmax()] < 200  # as the band plays it
    again = made.compose(Moment(0, 10), np.random.default_rng(0)).numpy()
    assert np.array_equal(batch, again)
    with pytest.raises(ValueError, match="segment: expected whole frames of 3528 samples, got 441 samples more"):
        SeparatorTask(replace(SMALL, segment="0.33"), DemoBand(), [], [], {})
    with pytest.raises(ValueError, match="songs: expected one of more than 4 frames"):
        SeparatorTask(SMALL, DemoBand(), [training_song(0).codes[:, :4]], [], {})


def test_its_loss_falls_and_its_weights_are_those_of_the_package(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made, moment = task(), Moment(0, 10)
    batch = made.compose(moment, np.random.default_rng(1))
    assert train(task, Options(state=tmp_path / "state", steps=8))
    with torch.no_grad():
        before = float(made.loss(batch, moment)[0])
        made.network.load_state_dict(torch.load(tmp_path / "state/state.pt", weights_only=True)["network"])
        assert float(made.loss(batch, moment)[0]) < before - 0.01
    figures = made.check()
    assert figures["worst_db"] <= figures["si_sdr_db"]
    assert figures["mix_db"] < 10
    made.write(tmp_path / "weights")

    sizes, source = open_separator(tmp_path / "weights/demucs", DEMO_SEPARATOR)
    assert sizes == SMALL
    network = build_separator(sizes)
    network.load_state_dict({name: torch.from_numpy(source.array(name)) for name in sorted(source.names)})
    mix = torch.randn(1, 2, SAMPLES) * 0.1
    made.network.eval()
    with torch.no_grad():
        expected, found = made.network(mix), network.models[0](mix)  # type: ignore[operator, index]
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-2)  # float16 weights
