"""Spleeter against golden vectors, whose masks and waves upstream computed, and its windows against the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heartvoice.arrays import Array
from heartvoice.checkpoints.safetensors_reader import Checkpoint
from heartvoice.checkpoints.spleeter import SpleeterTensors, open_spleeter
from heartvoice.config.presets import SpleeterConfig
from heartvoice.errors import CheckpointError, EngineError, InvalidRequestError
from heartvoice.evaluation.measures import si_sdr_db
from heartvoice.export.spleeter_graph import build_spleeter
from heartvoice.models.load import load_network, random_checkpoint
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.separation.spleeter import SpleeterTransform
from heartvoice.stages.separation.stage import SeparateStage
from tests.support import weights_files
from tests.support.golden_cases import GoldenFolder, all_folders
from tests.support.graphs import engine_of
from tests.support.music import band, song
from tests.support.separation import Samples, separate, separate_in_windows

OFFICIAL = SpleeterConfig()
WAVE_ERROR, CORE_ERROR = 1e-5, 1e-4
FILTERS = (2, 3, 4, 5, 6, 7)
SMALL = SpleeterConfig(n_fft=256, hop=64, frames=64, bins=64, filters=FILTERS)
"""For fakes: 4096 samples between segments."""


def of_family(wanted: str) -> list[Any]:
    """Golden folders of Spleeter whose names begin so."""
    found = [each for each in all_folders() if each.kind.startswith(f"spleeter/{wanted}")]
    return [pytest.param(each, id=each.label) for each in found]


class Network:
    """The module as `Networks`."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, self.n_calls = module, 0

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        assert name == "spleeter"
        self.n_calls += 1
        return {"estimates": self.module(torch.from_numpy(inputs["magnitudes"])).numpy()}


class Fake:
    """Estimates that depend on the place in the segment, as those of real networks do."""

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        share = np.linspace(0.1, 0.9, SMALL.frames * SMALL.bins, dtype=np.float32).reshape(SMALL.frames, SMALL.bins)
        seen = inputs["magnitudes"].astype(np.float32)
        return {"estimates": np.stack([share * seen, (1 - share) * seen], axis=1)}


@lru_cache(maxsize=2)
def official(bins: int) -> Network:
    sizes = replace(OFFICIAL, bins=bins)
    return Network(load_network(sizes, open_spleeter(weights_files.spleeter(), sizes)))


def wave_of(folder: GoldenFolder) -> Samples:
    file = folder.path / "wave.flac"
    wave = soundfile.read(file, dtype="int16")[0] if file.is_file() else folder.io["wave_int16"]
    return np.ascontiguousarray((wave / 32_768).astype(np.float32).T)


def upstream(folder: GoldenFolder) -> tuple[SpleeterConfig, SeparateStage]:
    """Upstream's masks for both stems, at the vectors' bins."""
    bins, above = folder.config.get("F", 1024), folder.config.get("mask_extension", "zeros")
    sizes = replace(OFFICIAL, bins=bins, mask_above=above, residual=False)
    return sizes, SeparateStage(official(bins), sizes)


# ------------------------------------------------------------------------------------------------------------- goldens


@pytest.mark.parametrize("folder", of_family("tiny"))
def test_module_and_graph_are_upstreams(folder: GoldenFolder, tmp_path: Path) -> None:
    spectrogram = np.ascontiguousarray(folder.io["spectrogram"].transpose(0, 3, 1, 2))
    config = folder.config
    sizes = SpleeterConfig(
        sources=tuple(config["instruments"]), filters=tuple(config["filters"]), frames=spectrogram.shape[2],
        bins=spectrogram.shape[3], elu=config.get("conv_activation") == "ELU", softmax="softmax" in folder.kind,
    )  # fmt: skip
    source = SpleeterTensors(Checkpoint.open(folder.path / "weights.safetensors"), sizes)
    module = load_network(sizes, source)(torch.from_numpy(spectrogram)).numpy()
    graph = (
        engine_of(build_spleeter(sizes, source), tmp_path)
        .run({"magnitudes": spectrogram})["estimates"]
        .astype(np.float32)
    )
    for index, name in enumerate(sizes.sources):
        want = folder.io[f"{name}_spectrogram"].transpose(0, 3, 1, 2)
        np.testing.assert_allclose(module[:, index], want, rtol=0, atol=CORE_ERROR)
        np.testing.assert_allclose(graph[:, index], want, rtol=0, atol=CORE_ERROR)


@pytest.mark.parametrize("folder", of_family("core"))
def test_official_networks_are_upstreams(folder: GoldenFolder) -> None:
    spectrogram = np.ascontiguousarray(folder.io["spectrogram"].transpose(0, 3, 1, 2))
    got = official(1024).module(torch.from_numpy(spectrogram)).numpy()
    for index, name in enumerate(("vocals", "accompaniment")):
        np.testing.assert_allclose(got[:, index], folder.io[name].transpose(0, 3, 1, 2), rtol=0, atol=CORE_ERROR)


@pytest.mark.parametrize("folder", of_family("e2e"))
def test_stems_are_upstreams(folder: GoldenFolder) -> None:
    _, stage = upstream(folder)
    stems = dict(zip(("vocals", "accompaniment"), separate(stage, wave_of(folder)), strict=True))
    compared = 0
    for name, stem in stems.items():
        for label, got in (
            (name, stem), (f"{name}_every_16", stem[:, ::16]),
            (f"{name}_seam", stem[:, folder.config.get("seam_start", 0) :]),
        ):  # fmt: skip
            if label in folder.io:
                want = folder.io[label].T
                np.testing.assert_allclose(got[:, : want.shape[1]], want, rtol=0, atol=WAVE_ERROR)
                compared += 1
    assert compared >= 2


@pytest.mark.parametrize("folder", of_family("e2e_short"))
def test_spectrum_and_masks_are_upstreams(folder: GoldenFolder) -> None:
    sizes, _ = upstream(folder)
    wave, n_frames = wave_of(folder), folder.config["frames"]
    padded = np.zeros((2, (n_frames - 1) * sizes.hop + sizes.n_fft), np.float32)
    padded[:, sizes.n_fft : sizes.n_fft + wave.shape[1]] = wave
    spectrum = SpleeterTransform(sizes).forward(padded)
    want = folder.io["stft_frame0_2"]
    np.testing.assert_allclose(spectrum[:, :3].transpose(1, 2, 0), want[..., 0] + 1j * want[..., 1], rtol=0, atol=1e-4)
    magnitudes = np.zeros((1, 2, sizes.frames, sizes.bins), np.float32)
    magnitudes[0, :, :n_frames] = np.abs(spectrum[..., : sizes.bins])
    estimates = official(sizes.bins).run("spleeter", {"magnitudes": magnitudes})["estimates"].astype(np.float32)
    found = estimates[0, 0, :, 10:14].transpose(1, 2, 0)
    np.testing.assert_allclose(found, folder.io["spec_vocals_frames10_14"], rtol=0, atol=CORE_ERROR)


@pytest.mark.parametrize("folder", of_family("lengths"))
def test_every_length_is_upstreams(folder: GoldenFolder) -> None:
    sizes, stage = upstream(folder)
    lengths = sorted(int(name[3:].partition(".")[0]) for name in folder.io if name.endswith(".frames"))
    assert lengths
    for length in lengths:
        stems = separate(stage, wave_of(folder)[:, :length])
        assert folder.io[f"len{length}.frames"] == -(-(length + sizes.n_fft) // sizes.hop)
        for stem, name in zip(stems, ("vocals", "accompaniment"), strict=True):
            np.testing.assert_allclose(stem.T, folder.io[f"len{length}.{name}"], rtol=0, atol=WAVE_ERROR)
    assert not separate(stage, np.zeros((2, 2048), np.float32)).any()


def test_vocals_of_a_known_mix_are_found() -> None:
    mix, vocals, instrumental = song(8.0)
    found = separate(SeparateStage(official(OFFICIAL.bins), OFFICIAL), mix)
    before, after = si_sdr_db(mix, vocals), si_sdr_db(found[0], vocals)
    assert before is not None
    assert after is not None
    assert after > max(12.0, before + 8.0)
    rest = si_sdr_db(found[1], instrumental)
    assert rest is not None
    assert rest > 6.0


# ------------------------------------------------------------------------------------------------------------- windows


@settings(max_examples=25, deadline=None)
@given(
    n_samples=st.integers(1, 4 * SMALL.stride_samples),
    segments_per_window=st.integers(1, 3),
    sources=st.sampled_from([(), ("vocals",), ("instrumental",)]),
)
def test_windows_give_the_samples_of_the_whole_bit_for_bit(
    n_samples: int, segments_per_window: int, sources: tuple[str, ...]
) -> None:
    audio, stage = np.resize(band(1.0), (2, n_samples)).astype(np.float32), SeparateStage(Fake(), SMALL)
    whole = separate(stage, audio, sources=sources)
    assert whole.shape == (len(sources) or 2, 2, n_samples)
    np.testing.assert_array_equal(separate_in_windows(stage, audio, segments_per_window, sources), whole)


def test_stems_add_up_to_the_recording() -> None:
    audio = band(0.5)
    stems = separate(SeparateStage(Fake(), SMALL), audio)
    np.testing.assert_allclose(stems.sum(axis=0), audio, rtol=0, atol=1e-6)
    assert np.abs(stems[0]).max() > 0.01


def test_a_source_of_another_engine_is_refused_with_its_name() -> None:
    stage = SeparateStage(Fake(), SMALL)
    with pytest.raises(
        InvalidRequestError, match=r"vocals, instrumental \(spleeter\), got drums; .*htdemucs"
    ) as raised:
        list(stage.separate(SeparationRequest(np.zeros((2, 9), np.float32), sources=("drums",))))
    assert "htdemucs_ft" in str(raised.value)


def test_a_window_of_another_length_is_refused() -> None:
    request = SeparationRequest(np.zeros((2, 5000), np.float32), more=True)
    with pytest.raises(InvalidRequestError, match="more: expected 4032 new samples and a multiple of 4096, got 5000"):
        list(SeparateStage(Fake(), SMALL).separate(request))


def test_estimates_of_another_shape_are_the_networks_error() -> None:
    class Other:
        def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
            return {"estimates": np.zeros((1, 3, 2, SMALL.frames, SMALL.bins), np.float32)}

    with pytest.raises(EngineError, match=r"spleeter: unexpected estimates \[3, 2, 64, 64\]"):
        separate(SeparateStage(Other(), SMALL), np.zeros((2, 9), np.float32))


# ------------------------------------------------------------------------------------------------------------- weights


def test_a_data_file_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.data-00000-of-00001"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match="expected the 78614080 bytes of 148 tensors, got 100"):
        open_spleeter(path, OFFICIAL)
    with pytest.raises(CheckpointError, match="cannot be opened"):
        open_spleeter(tmp_path / "none", OFFICIAL)


def test_tensors_of_another_network_are_refused() -> None:
    source = random_checkpoint(SMALL, 0)
    with pytest.raises(CheckpointError, match="missing batch_normalization/beta"):
        SpleeterTensors(source, SMALL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"frames": 96}, "frames: expected a multiple of 64"), ({"bins": 192}, "bins: expected at most 129, got 192"),
     ({"mask_above": "mirror"}, "mask_above: expected zeros or average, got mirror")],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build_spleeter(replace(SMALL, **changes), random_checkpoint(SMALL, 0))
