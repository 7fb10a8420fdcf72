"""Optimisation profiles from the contract's axes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heartvoice.config.presets import F0S, PRESETS, SPEAKERS, Preset
from heartvoice.contracts import triton_config
from heartvoice.contracts.graphs import CONTENT_ENCODER, SVC_FLOW, heartmula_step
from heartvoice.contracts.models import HEARTCODEC_FLOW, SPEAKER_NETWORK
from heartvoice.contracts.types import Axis
from heartvoice.export.layout import graph_models
from heartvoice.export.plan_profiles import profile, trtexec_shapes
from heartvoice.stages import f0, speaker
from heartvoice.stages.svc import content

MODELS = {preset: graph_models(PRESETS[preset]) for preset in PRESETS}
CASES = [(preset, name) for preset, models in MODELS.items() for name, model in models.items() if model.spec.plan]


@pytest.mark.parametrize(("preset", "name"), CASES)
def test_profiles_follow_the_contract_and_the_preset(preset: str, name: str) -> None:
    model = MODELS[preset][name]
    for spec in model.spec.inputs:
        entry = profile(model, PRESETS[preset])[spec.name]
        axes = list(spec.shape)
        shapes = list(zip(entry.least, entry.usual, entry.most, strict=True))
        if model.batch:
            assert shapes.pop(0) == (1, *model.spec.plan_rows)
        for axis, (least, usual, most) in zip(axes, shapes, strict=True):
            assert 0 < least <= usual <= most
            if not isinstance(axis, Axis):
                assert (least, most) == (axis, axis)
            elif axis.name in model.axes:
                assert (least, most) == (model.axes[axis.name],) * 2
            elif axis.name not in ("f0_input", "speaker_frame"):
                assert (least, usual, most) == (axis.min, axis.opt, axis.max)


def test_rmvpe_hears_whole_multiples_of_its_stride() -> None:
    preset: Preset = replace(PRESETS["tiny"], f0=F0S["rmvpe"])
    entry = profile(graph_models(preset)["f0_network"], preset)["features"]
    lengths = {shape[2] for shape in (entry.least, entry.usual, entry.most)}
    assert lengths == {f0.RMVPE_MULTIPLE, f0.RMVPE_WHOLE_FRAMES}


@pytest.mark.parametrize("engine", SPEAKERS)
def test_speaker_encoders_hear_frames_or_samples(engine: str) -> None:
    preset: Preset = replace(PRESETS["tiny"], speaker=SPEAKERS[engine])
    entry = profile(graph_models(preset)["speaker_network"], preset)["features"]
    lengths = [shape[1] for shape in (entry.least, entry.usual, entry.most)]
    assert lengths == ([5200, 160_000, 160_000] if engine == "wavlm" else [1, 160, speaker.PIECE_FRAMES])


def test_no_stage_sends_more_rows_than_a_plan_takes() -> None:
    assert SPEAKER_NETWORK.plan_rows[1] >= speaker.BATCH
    assert CONTENT_ENCODER.plan_rows[1] >= content.MAX_BATCH
    for flow in (HEARTCODEC_FLOW, SVC_FLOW):
        assert flow.plan_rows[0] == 2  # guidance: a conditional and an unconditional row


@pytest.mark.parametrize("name", [name for _, name in CASES if _ == "tiny"])
def test_triton_lets_no_more_rows_through_than_the_plan_takes(name: str) -> None:
    spec = MODELS["tiny"][name].spec
    text = triton_config.to_config_text(spec, "tensorrt")
    rows = spec.plan_rows[1] if spec.max_batch_size else 0
    assert f"max_batch_size: {rows}\n" in text
    assert rows <= spec.max_batch_size
    assert 'default_model_filename: "model.plan"' in text
    assert "TYPE_FP16" not in text  # inputs and outputs stay float32


def test_language_model_has_no_tensorrt_config() -> None:
    step = heartmula_step(3)
    assert "tensorrt" not in triton_config.variants(step)


def test_trtexec_is_told_the_shapes_that_vary() -> None:
    shapes = profile(MODELS["tiny"]["svc_regulator"], PRESETS["tiny"])
    assert trtexec_shapes(shapes)[0] == "--minShapes=content:1x1x24,content_index:1,f0_bins:1x1"
