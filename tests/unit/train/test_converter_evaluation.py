"""The converter's evaluation: the product's conversion over modules, shares of the ceiling, and bars."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from heartvoice.config.presets import DEMO_STYLE, DEMO_SVC
from heartvoice.contracts.graphs import CONTENT_ENCODER, SVC_FLOW, SVC_REGULATOR, SVC_STYLE, VOCODER
from heartvoice.evaluation.judges import Judges
from heartvoice.models.load import AnyConfig, load_network, random_checkpoint
from heartvoice.stages.svc.settings import ConvertSettings
from train.demo.converter import evaluate
from train.demo.converter.evaluate import MEL, ConverterFigures, ConverterNetworks, missed, summary

SIZES = replace(
    DEMO_SVC,
    whisper=replace(DEMO_SVC.whisper, d_model=16, encoder_layers=1, encoder_ffn_dim=16),
    regulator=replace(DEMO_SVC.regulator, channels=16, in_channels=16),
    dit=replace(DEMO_SVC.dit, hidden_dim=16, num_heads=1, depth=1, content_dim=16),
    vocoder=replace(
        DEMO_SVC.vocoder, upsample_rates=(64, 8), upsample_kernel_sizes=(64, 8), upsample_initial_channel=8,
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1,),),
    ),
)  # fmt: skip


class Steady:
    """An F0 stage that hears 200 Hz everywhere."""

    def track(self, audio: NDArray[np.float32], level_dbfs: float = -np.inf) -> NDArray[np.float32]:
        return np.full(len(audio) // 160 + 1, 200.0, np.float32)


def figures(after: float, cents: float | None = 10.0, words: float | None = 0.2) -> ConverterFigures:
    return ConverterFigures(
        "one", {}, {"resemblyzer": (0.5, after, 0.9), MEL: (-8.0, -2.0, 0.0)}, cents, 0.9, words, 0.15, 0.3
    )


def test_a_random_converter_is_measured_as_the_product_converts() -> None:
    sizes = SIZES
    modules: dict[str, AnyConfig] = {
        CONTENT_ENCODER.name: sizes.whisper, SVC_REGULATOR.name: sizes.regulator, SVC_FLOW.name: sizes.dit,
        SVC_STYLE.name: DEMO_STYLE, VOCODER.name: sizes.vocoder,
    }  # fmt: skip
    networks = ConverterNetworks(
        {name: load_network(each, random_checkpoint(each, 0)) for name, each in modules.items()}
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        judges = Judges({}, Steady(), None, {})  # type: ignore[arg-type]
        settings = ConvertSettings(steps=1, guidance=0.0)
        (found,) = evaluate.evaluate(sizes, networks, Steady(), judges, settings, 1)  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(threads)
    before, after, own = found.likeness[MEL]
    assert after < before < own == 0.0
    assert found.share[MEL] < 0  # noise is no singing
    assert found.words is None
    assert found.rtf > 0


def test_bars_are_shares_of_the_ceiling_by_two_judges_pitch_and_words() -> None:
    means = summary([figures(0.7), figures(0.8, 12.0)])
    assert means["share_resemblyzer"] == pytest.approx(0.625)
    assert means["share_mel"] == pytest.approx(0.75)
    assert means["f0_cents"] == pytest.approx(11.0)
    assert means["words_more"] == pytest.approx(0.05)
    assert missed(means) == []
    assert missed(summary([figures(0.6, 25.0, 0.4)])) == ["share_resemblyzer", "f0_cents", "words_more"]
    alone = replace(figures(0.8, None, None), likeness={"resemblyzer": (0.5, 0.8, 0.9)})
    assert missed(summary([alone])) == ["judges", "f0_cents", "words_more"]
