"""The class that serves each Python model. The export writes one line over it as the model's `1/model.py`."""

from __future__ import annotations

from heartvoice.contracts.models import (
    COVER,
    DEMUCS,
    HEARTCODEC,
    HEARTMULA,
    RENDER,
    SONG,
    SPEAKER_ENCODER,
    SVC,
)

ADAPTERS: dict[str, tuple[str, str]] = {
    SONG.name: ("heartvoice.serving.song", "SongModel"),
    COVER.name: ("heartvoice.serving.cover", "CoverModel"),
    RENDER.name: ("heartvoice.serving.render", "RenderModel"),
    HEARTMULA.name: ("heartvoice.serving.heartmula", "HeartmulaModel"),
    HEARTCODEC.name: ("heartvoice.serving.heartcodec", "HeartcodecModel"),
    DEMUCS.name: ("heartvoice.serving.demucs", "DemucsModel"),
    SPEAKER_ENCODER.name: ("heartvoice.serving.speaker_encoder", "SpeakerEncoderModel"),
    SVC.name: ("heartvoice.serving.svc", "SvcModel"),
}
"""Module and class by model name. A rename here is a new `repository.FORMAT`: exported files import these names."""


def adapter_text(model: str) -> str:
    """The text of a model's `1/model.py`; Triton's Python backend looks for `TritonPythonModel`.

    Raises:
        KeyError: the model has no Python adapter.
    """
    module, name = ADAPTERS[model]
    return f"from {module} import {name} as TritonPythonModel\n"
