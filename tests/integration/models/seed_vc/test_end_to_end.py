"""A whole conversion against the reference's, over PyTorch modules and over graphs alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from heartvoice.contracts.constants import MAX_PROMPT_S
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.svc.content import sinc_resample
from heartvoice.stages.svc.mel import n_mel_frames
from heartvoice.stages.svc.pitch import shifted
from heartvoice.stages.svc.settings import AutoPitch, ConvertSettings
from heartvoice.stages.svc.stage import ConvertStage, Floats
from heartvoice.stages.svc.voice_features import VoiceFeatures, from_the_start
from heartvoice.stages.svc.windows import WindowJoiner
from tests.support.golden_cases import GoldenFolder, assert_close, folders
from tests.support.svc_conversion import (
    F0,
    RATE_HZ,
    Called,
    Kind,
    golden_sources,
    graph_runs,
    loudest_pitch,
    module_runs,
)
from tests.support.svc_networks import frames_last


def cases(wanted: str) -> list[Any]:
    """One parameter for each recorded conversion whose entry has `wanted`; those of several windows are slow."""
    return [
        pytest.param(folder, name, id=f"{folder.label}::{name}")
        for folder in folders("seed_vc/e2e")
        for name, entry in folder.config.items()
        if isinstance(entry, dict) and "steps" in entry and wanted in entry
    ]


KINDS = pytest.mark.parametrize("kind", ["modules", "graphs"])
WAVE, MEL = 1e-4, 1e-4


class Recording(ConvertStage):
    """A stage that remembers what it vocodes."""

    mels: list[Floats]

    def vocode(self, mel: Floats) -> Floats:
        self.mels.append(mel)
        return super().vocode(mel)


@lru_cache(maxsize=2)
def stage_of(folder: GoldenFolder, kind: Kind) -> Recording:
    sources = golden_sources(folder)
    networks = Called(module_runs(sources) if kind == "modules" else graph_runs(sources))
    return Recording(networks, sources.sizes, F0Stage(networks, F0))


class Case:
    """One recorded conversion: its pitch, its style and its noise are given."""

    def __init__(self, folder: GoldenFolder, name: str) -> None:
        self.config: dict[str, Any] = folder.config[name]
        self.tensors = {key.removeprefix(f"{name}."): value for key, value in folder.io.items() if key.startswith(name)}
        self.style = folder.io["style"][0]
        auto: AutoPitch = "exact" if self.config["auto_f0"] else "off"
        self.settings = ConvertSettings(
            steps=self.config["steps"], guidance=self.config["cfg"], pitch_shift=self.config["semitone"],
            auto_pitch=auto, prompt_s=MAX_PROMPT_S,
        )  # fmt: skip

    def reference(self) -> Floats:
        """All of it, before it is cut."""
        given = "ref_tile_int16" if "ref_tile_int16" in self.tensors else "ref_int16"
        wave = _float(self.tensors[given])
        return np.resize(wave, self.config.get("ref_given_samples", len(wave)))

    def voice(self, stage: ConvertStage) -> VoiceFeatures:
        reference = self.reference()
        assert from_the_start(len(reference), MAX_PROMPT_S)
        used = reference[: int(MAX_PROMPT_S * RATE_HZ)]
        assert len(used) == self.config.get("ref_used_samples", len(used))
        return stage.voice_of(used, self.tensors["f0_ref"], self.style)

    def cond(self, stage: ConvertStage, voice: VoiceFeatures) -> Floats:
        source, f0 = _float(self.tensors["source_int16"]), self.tensors["f0_src"]
        n_frames = int(n_mel_frames(len(source)) * self.config.get("length_adjust", 1.0))
        semitones = self.settings.automatic_shift(f0, voice.f0) + self.settings.pitch_shift
        return stage.condition(stage.content(sinc_resample(source)), shifted(f0, semitones), n_frames)

    def noise(self, index: int, n_frames: int) -> Floats:
        """The last frames of what was recorded: some cases keep the prompt's, too."""
        found: Floats = frames_last(self.tensors[f"noise{index}"])[0, -n_frames:]
        assert len(found) == n_frames
        return found

    def targets(self) -> Iterator[Floats]:
        for name in sorted(name for name in self.tensors if name.startswith("vc_target")):
            yield self.tensors[name][0].T


def _float(samples: np.ndarray) -> Floats:
    return samples.astype(np.float32) / np.float32(32768)


@KINDS
@pytest.mark.parametrize(("folder", "name"), cases("steps"))
def test_a_conversion_is_the_references(folder: GoldenFolder, name: str, kind: Kind) -> None:
    stage, case = stage_of(folder, kind), Case(folder, name)
    voice = case.voice(stage)
    cond = case.cond(stage, voice)
    if "cat_condition" in case.tensors:
        assert_close(np.concatenate([voice.cond, cond]), case.tensors["cat_condition"][0], 1e-4)
    windows = stage.plan(len(cond), voice)
    if "chunks" in case.config:
        assert [window.end - window.start + voice.n_frames for window in windows] == case.config["chunks"]
    joiner, parts = WindowJoiner(), []
    stage.mels = []
    for window, wave in stage.waves(cond, voice, case.settings, draw=case.noise):
        parts.append(joiner.add(wave, last=window.last))
    song = np.concatenate(parts)
    assert len(song) == case.config["out_samples"]
    assert_close(song, case.tensors["wave_out"].reshape(-1), WAVE)
    for mel, target in zip(stage.mels, case.targets(), strict=True):
        assert_close(mel, target[-len(mel) :], MEL)


@pytest.mark.parametrize(("folder", "name"), cases("ref_given_samples"))
def test_a_voice_of_25_s_is_the_references_first_25_s(folder: GoldenFolder, name: str) -> None:
    """What `voice` cuts out itself is what the reference was given: the reference before the cut is longer."""
    sources, case = golden_sources(folder), Case(folder, name)
    given = {"f0_network": loudest_pitch, "svc_style": lambda inputs: {"embedding": case.style[None]}}
    networks = Called(module_runs(sources) | given)
    f0 = F0Stage(networks, F0)
    stage = ConvertStage(networks, sources.sizes, f0)
    found, expected = stage.voice(case.reference(), MAX_PROMPT_S), case.voice(stage)
    assert (found.start_s, found.prompt_s, found.n_frames) == (0.0, MAX_PROMPT_S, expected.n_frames)
    louder = found.gain_db * np.log(10) / 20  # what `voice` brings a prompt to its level by, in a log-mel
    assert_close(found.mel - np.float32(louder), expected.mel, 1e-3)  # quiet bins are near the floor of the logarithm
    used = sinc_resample(case.reference()[: int(MAX_PROMPT_S * RATE_HZ)])
    assert np.array_equal(found.f0, f0.track(used))
    assert networks.calls.count("f0_network") == 2  # nothing is chosen, so nothing else is listened to
