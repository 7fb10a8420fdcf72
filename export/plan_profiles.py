"""Derives TensorRT's optimisation profiles from the axes of the contract.

Axes that a preset fixes (`GraphModel.axes`) have one size. The others range from `Axis.min` to `Axis.max` and are tuned
for `Axis.opt`. The batch is `ModelSpec.plan_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from heartvoice.config.presets import Preset, RmvpeConfig, WavlmConfig
from heartvoice.contracts.tensors import MAX_BANK_FRAMES, SPEAKER_FRAME
from heartvoice.contracts.types import Axis, TensorSpec
from heartvoice.export.layout import GraphModel
from heartvoice.stages.f0 import RMVPE_MULTIPLE, RMVPE_WHOLE_FRAMES

Shape = tuple[int, ...]


@dataclass(frozen=True)
class InputProfile:
    """Smallest, optimal and largest shape of one input."""

    least: Shape
    usual: Shape
    most: Shape

    @property
    def fixed(self) -> bool:
        """True if all three shapes are equal."""
        return self.least == self.most


def axis_overrides(model: GraphModel, preset: Preset) -> dict[str, Axis]:
    """Return axes whose range depends on the preset's engine.

    RMVPE takes frames in multiples of 32; WavLM takes samples where other speaker encoders take filter bank frames.
    """
    if model.network == "f0" and isinstance(preset.f0, RmvpeConfig):
        return {"f0_input": Axis("f0_input", RMVPE_MULTIPLE, RMVPE_WHOLE_FRAMES, RMVPE_WHOLE_FRAMES)}
    if model.network == "speaker":
        speaker, frame = preset.speaker, SPEAKER_FRAME
        if isinstance(speaker, WavlmConfig):
            return {frame.name: Axis(frame.name, speaker.least_samples, frame.max, frame.max)}
        return {frame.name: Axis(frame.name, frame.min, frame.opt, MAX_BANK_FRAMES)}
    return {}


def profile(model: GraphModel, preset: Preset) -> dict[str, InputProfile]:
    """Return the profile of a graph by input."""
    overrides = axis_overrides(model, preset)
    return {spec.name: _input(spec, model, overrides) for spec in model.spec.inputs}


def _input(spec: TensorSpec, model: GraphModel, overrides: Mapping[str, Axis]) -> InputProfile:
    usual, most = model.spec.plan_rows
    axes = [Axis(model.batch, 1, usual, most)] if model.batch else []
    for axis in spec.shape:
        if not isinstance(axis, Axis):
            axes.append(Axis("", axis, axis, axis))
        elif axis.name in model.axes:
            axes.append(Axis(axis.name, *[model.axes[axis.name]] * 3))
        else:
            axes.append(overrides.get(axis.name, axis))
    return InputProfile(
        tuple(axis.min for axis in axes), tuple(axis.opt for axis in axes), tuple(axis.max for axis in axes)
    )


def trtexec_shapes(shapes: Mapping[str, InputProfile]) -> list[str]:
    """Return the profile as arguments of NVIDIA's `trtexec`, for builds without this package."""

    def joined(part: str) -> str:
        return ",".join(
            f"{name}:{'x'.join(map(str, getattr(entry, part)))}" for name, entry in shapes.items() if not entry.fixed
        )

    return [f"--minShapes={joined('least')}", f"--optShapes={joined('usual')}", f"--maxShapes={joined('most')}"]
