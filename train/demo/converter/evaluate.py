"""Measures a trained converter on singers that no training hears, by the product's own conversion."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.checkpoints.official import CAMPPLUS
from heartvoice.config.presets import DEMO_STYLE, DEMO_SVC
from heartvoice.config.svc import SVC_HOP, SvcConfig
from heartvoice.contracts.constants import F0_RATE_HZ, SAMPLE_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.graphs import CONTENT_ENCODER, SVC_FLOW, SVC_REGULATOR, SVC_STYLE, VOCODER
from heartvoice.evaluation.judges import Judges
from heartvoice.evaluation.measures import log_mel_db, mel_distance_db, pitch_kept
from heartvoice.export.svc_weights import open_converter
from heartvoice.models.load import load_network
from heartvoice.models.speaker import open_campplus
from heartvoice.runtime.networks import Networks
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.svc.exact import ExactConversion
from heartvoice.stages.svc.settings import ConvertSettings
from heartvoice.stages.svc.stage import ConvertStage
from train.demo.codec_evaluation import score_pitch
from train.demo.converter.singers import HELD_OUT, random_singer
from train.demo.converter.singing import SLOT, line_of, sing
from train.demo.gate import listed_covers
from train.demo.renderer import Renderer
from train.demo.score import Score

Samples = NDArray[np.float32]

FIRST_SINGER = HELD_OUT + 1000
REFERENCE_SLOTS = 350
LEAST_SHARE, MOST_CENTS, MOST_WORDS = 0.5, 20.0, 0.1
MEL = "mel"
"""The judge that needs no weights: how near mel spectra are to those of the target's own singing."""


@dataclass(frozen=True)
class ConverterFigures:
    """One conversion."""

    name: str
    share: dict[str, float]
    """By judge: (after - before) / (self - before), of likenesses to the target's voice."""
    likeness: dict[str, tuple[float, float, float]]
    """By judge: before, after, and of the target's own singing."""
    f0_cents: float | None
    f0_within_50: float | None
    words: float | None
    """Lyric error of the converted voice ..."""
    own_words: float | None
    """... and of the target's own singing of the same."""
    rtf: float
    """Seconds of conversion for a second of singing."""
    heard: dict[str, str] = field(default_factory=dict)


class ConverterNetworks:
    """The converter's networks as modules, under the names of their graphs; a `Networks`."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        """Take the modules by the graphs' names."""
        self._modules = modules
        self._run: Mapping[str, Callable[[Mapping[str, torch.Tensor]], tuple[str, torch.Tensor]]] = {
            CONTENT_ENCODER.name: lambda given: ("content", modules[CONTENT_ENCODER.name](given["log_mel"])),
            SVC_REGULATOR.name: lambda given: (
                "cond", modules[SVC_REGULATOR.name](given["content"], given["content_index"], given["f0_bins"]),
            ),
            SVC_FLOW.name: lambda given: (
                "velocity", modules[SVC_FLOW.name](**{**given, "t": given["t"][:, 0]}),
            ),
            SVC_STYLE.name: lambda given: ("embedding", modules[SVC_STYLE.name](given["features"])),
            VOCODER.name: lambda given: ("audio", modules[VOCODER.name](given["mel"])),
        }  # fmt: skip

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:  # noqa: ARG002 (as Networks.run)
        """Run a module; see `Networks.run`."""
        with torch.inference_mode():
            output, found = self._run[name]({key: torch.from_numpy(np.array(each)) for key, each in inputs.items()})
        return {output: found.numpy()}


def open_networks(folder: Path) -> tuple[SvcConfig, Networks]:
    """Open a trained converter as an export does: strictly, by the product's classes.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit.
    """
    sizes, sources = open_converter(folder, DEMO_SVC)
    modules = {
        CONTENT_ENCODER.name: load_network(sizes.whisper, sources["svc_content"]),
        SVC_REGULATOR.name: load_network(sizes.regulator, sources["svc_regulator"]),
        SVC_FLOW.name: load_network(sizes.dit, sources["svc_cfm"]),
        SVC_STYLE.name: load_network(DEMO_STYLE, open_campplus(folder / CAMPPLUS, DEMO_STYLE)),
        VOCODER.name: load_network(sizes.vocoder, sources["vocoder"]),
    }
    return sizes, ConverterNetworks(modules)


def evaluate(
    sizes: SvcConfig, networks: Networks, f0: F0Stage, judges: Judges, settings: ConvertSettings, n_covers: int
) -> list[ConverterFigures]:
    """Convert songs of two lines to held-out singers, and measure each."""
    stage = ConvertStage(networks, sizes, f0, DEMO_STYLE.n_bands)
    return [
        _measured(stage, judges, settings, cover.name, cover.score, cover.reference, FIRST_SINGER + number)
        for number, cover in enumerate(listed_covers()[:n_covers])
    ]


def _measured(
    stage: ConvertStage, judges: Judges, settings: ConvertSettings, name: str, score: Score, other: Score, singer: int
) -> ConverterFigures:
    rng = np.random.default_rng(singer)
    target = random_singer(singer)
    spoken = line_of(other.codes)
    first = int(np.flatnonzero(spoken.sounds)[0])
    reference = sing(spoken, target, rng)[first * SLOT :][: REFERENCE_SLOTS * SLOT]
    source = resample(Renderer().parts(score.codes)["voice"], SAMPLE_RATE_HZ, STEM_RATE_HZ)
    began = time.process_time()
    voice = stage.voice(reference, settings.prompt_s)
    conversion = ExactConversion(stage, source, voice, settings)
    converted = np.concatenate(list(conversion))
    seconds = time.process_time() - began
    factor = 2 ** (float(conversion.report()["shift_semitones"]) / 12)
    own = sing(line_of(score.codes).at(factor), target, rng)
    likeness = {}
    speech = {side: _speech(audio) for side, audio in (("before", source), ("after", converted), ("own", own))}
    for judge, speaker in judges.speakers.items():
        wanted = speaker.embed(_speech(reference))
        likeness[judge] = tuple(float(speaker.embed(audio) @ wanted) for audio in speech.values())
    sides = (_at_one_level(each[: len(converted) // SVC_HOP * SVC_HOP]) for each in (source, converted, own))
    before, after, same = (log_mel_db(each) for each in sides)
    far = [mel_distance_db(each, same) for each in (before, after)]
    if None not in far:
        likeness[MEL] = (-float(far[0] or 0), -float(far[1] or 0), 0.0)
    within, cents = None, None
    if judges.f0 is not None:
        contours = [judges.f0.track(speech[side]) for side in ("own", "after")]
        n = min(map(len, contours))
        hz = score_pitch(score.codes, round(len(speech["own"]) / SPEECH_RATE_HZ * F0_RATE_HZ) + 1)[:n] * factor
        within, cents = pitch_kept(np.pad(hz, (0, n - len(hz))), contours[0][:n], contours[1][:n])
    words, heard = {}, {}
    if judges.lyrics is not None:
        found = judges.lyrics.judge(score.lyrics, {side: speech[side] for side in ("after", "own")}).errors
        words = {side: each.error for side, each in found.items()}
        heard = {side: each.heard for side, each in found.items()}
    return ConverterFigures(
        name, {judge: _share(*three) for judge, three in likeness.items()}, likeness, cents, within,  # type: ignore[arg-type]
        words.get("after"), words.get("own"), round(seconds * STEM_RATE_HZ / len(source), 3), heard,
    )  # fmt: skip


def summary(figures: Sequence[ConverterFigures]) -> dict[str, float]:
    """Return the means over all conversions; shares are those of the mean likenesses."""
    made: dict[str, float] = {}
    for judge in figures[0].likeness:
        before, after, own = np.mean([each.likeness[judge] for each in figures], axis=0)
        made |= {f"share_{judge}": _share(before, after, own)}
    cents = [each.f0_cents for each in figures if each.f0_cents is not None]
    within = [each.f0_within_50 for each in figures if each.f0_within_50 is not None]
    more = [each.words - each.own_words for each in figures if each.words is not None and each.own_words is not None]
    if cents:
        made |= {"f0_cents": float(np.median(cents)), "f0_within_50": float(np.mean(within))}
    if more:
        made |= {
            "words": float(np.mean([each.words for each in figures if each.words is not None])),
            "words_more": float(np.mean(more)),
        }
    made["rtf"] = float(np.mean([each.rtf for each in figures]))
    return {name: round(value, 4) for name, value in made.items()}


def missed(means: Mapping[str, float]) -> list[str]:
    """Return the bars that are not reached, or not measured."""
    shares = [name for name in means if name.startswith("share_")]
    short = [name for name in shares if means[name] < LEAST_SHARE]
    if len(shares) < 2:
        short.append("judges")
    short += [name for name, most in (("f0_cents", MOST_CENTS), ("words_more", MOST_WORDS))
              if not means.get(name, np.inf) <= most]  # fmt: skip
    return short


def _share(before: float, after: float, own: float) -> float:
    return float((after - before) / (own - before)) if own != before else 0.0


def _speech(audio: Samples) -> Samples:
    return resample(audio, STEM_RATE_HZ, SPEECH_RATE_HZ)


def _at_one_level(audio: Samples) -> Samples:
    return np.asarray(audio * (0.1 / max(float(np.sqrt(np.mean(audio**2))), 1e-6)), np.float32)
