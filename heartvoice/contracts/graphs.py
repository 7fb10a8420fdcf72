"""The networks' inputs and outputs: the language model's, and the converter's."""

from __future__ import annotations

from dataclasses import replace

from heartvoice.config.presets import CampplusConfig
from heartvoice.config.svc import SVC_HOP, BigvganConfig, DitConfig, RegulatorConfig, WhisperConfig
from heartvoice.contracts.constants import N_CODEBOOKS
from heartvoice.contracts.tensors import STYLE
from heartvoice.contracts.types import Axis, ModelSpec, TensorSpec

MAX_SVC_FRAMES = 51_680
"""Mel frames of the longest recording, 600 s."""
MAX_CONTENT_FRAMES = 30_001
"""Content frames of the longest recording."""
SVC_CONTEXT = 2580
"""Mel frames that the flow hears at once, prompt included (seed_vc spec, section 12)."""

LOG_MEL_BAND = Axis("log_mel_band", 80, 80, 128)
LOG_MEL_FRAME = Axis("log_mel_frame", 3000, 3000, 3000)
CONTENT_POSITION = Axis("content_position", 1500, 1500, 1500)
CONTENT = Axis("content", 1, 768, 768)
CONTENT_FRAME = Axis("content_frame", 1, 1501, MAX_CONTENT_FRAMES)
CONDITION_FRAME = Axis("condition_frame", 1, 2583, MAX_SVC_FRAMES)
SVC_CONDITION = Axis("svc_condition", 1, 768, 768)
SVC_FRAME = Axis("svc_frame", 1, SVC_CONTEXT, SVC_CONTEXT)
MEL_BAND = Axis("mel_band", 1, 128, 128)
SVC_STYLE_WIDTH = Axis("svc_style_width", 1, 192, 192)
SVC_STYLE_FRAME = Axis("svc_style_frame", 3, 1198, 2498)
"""Filter bank frames at 100 per second: 12 s of reference, and 25 s."""
SVC_STYLE_BAND = Axis("svc_style_band", 8, 80, 80)
VOCODER_FRAME = Axis("vocoder_frame", 1, 256, 1024)
"""Mel frames of one call: a chunk and what it hears beside itself."""
VOCODER_SAMPLE = Axis("vocoder_sample", 1, 256 * SVC_HOP, 1024 * SVC_HOP)

CONTENT_ENCODER = ModelSpec(
    "content_encoder",
    "onnxruntime",
    inputs=(TensorSpec("log_mel", "FP32", (LOG_MEL_BAND, LOG_MEL_FRAME), "One window, padded by silence to 30 s."),),
    outputs=(TensorSpec("content", "FP32", (CONTENT_POSITION, CONTENT), "Its content, 50 frames a second."),),
    max_batch_size=4,
    kind="KIND_AUTO",
    plan_rows=(1, 4),
    doc="Whisper's encoder: what is sung, without who sings it.",
)

SVC_REGULATOR = ModelSpec(
    "svc_regulator",
    "onnxruntime",
    inputs=(
        TensorSpec("content", "FP32", (1, CONTENT_FRAME, CONTENT), "Content of a whole recording."),
        TensorSpec("content_index", "INT64", (CONDITION_FRAME,), "Content frame of each mel frame."),
        TensorSpec("f0_bins", "INT64", (1, CONDITION_FRAME), "Pitch bin of each mel frame."),
    ),
    outputs=(TensorSpec("cond", "FP32", (1, CONDITION_FRAME, SVC_CONDITION), "The flow's condition."),),
    kind="KIND_AUTO",
    doc="Content and pitch of a whole recording onto mel frames; every frame depends on all others.",
)

SVC_FLOW = ModelSpec(
    "svc_flow",
    "onnxruntime",
    inputs=(
        TensorSpec("x", "FP32", (SVC_FRAME, MEL_BAND), "State; zero on the prompt's frames."),
        TensorSpec("prompt_x", "FP32", (SVC_FRAME, MEL_BAND), "The prompt's mel, zero elsewhere."),
        TensorSpec("style", "FP32", (SVC_STYLE_WIDTH,), "Style vector."),
        TensorSpec("cond", "FP32", (SVC_FRAME, SVC_CONDITION), "Condition of prompt and window."),
        TensorSpec("t", "FP32", (1,), "Flow time in [0, 1)."),
    ),
    outputs=(TensorSpec("velocity", "FP32", (SVC_FRAME, MEL_BAND)),),
    max_batch_size=16,
    kind="KIND_AUTO",
    local=True,
    plan_rows=(2, 4),
    doc="One evaluation of the flow's velocity. Rows are independent: guidance is two rows, combined by the host; an "
    "unconditional row has zeros in prompt_x, style and cond.",
)

SVC_STYLE = ModelSpec(
    "svc_style",
    "onnxruntime",
    inputs=(TensorSpec("features", "FP32", (SVC_STYLE_FRAME, SVC_STYLE_BAND), "Filter bank, mean over time removed."),),
    outputs=(TensorSpec("embedding", "FP32", (SVC_STYLE_WIDTH,), "The flow's style, not normalised."),),
    max_batch_size=4,
    kind="KIND_AUTO",
    plan_rows=(1, 2),
    doc="CAMPPlus as the converter hears it: the reference's timbre.",
)

VOCODER = ModelSpec(
    "vocoder",
    "onnxruntime",
    inputs=(TensorSpec("mel", "FP32", (MEL_BAND, VOCODER_FRAME), "Natural logarithms of mel magnitudes."),),
    outputs=(TensorSpec("audio", "FP32", (1, VOCODER_SAMPLE), "Samples at 44.1 kHz in [-1, 1]."),),
    max_batch_size=4,
    kind="KIND_AUTO",
    plan_rows=(1, 2),
    doc="BigVGAN: mel frames into samples.",
)


def content_axes(sizes: WhisperConfig) -> dict[str, int]:
    """The contract's axes that the content encoder's sizes fix."""
    positions = sizes.max_source_positions
    return {
        "log_mel_band": sizes.num_mel_bins,
        "log_mel_frame": 2 * positions,
        "content_position": positions,
        "content": sizes.d_model,
    }


def regulator_axes(sizes: RegulatorConfig) -> dict[str, int]:
    """The contract's axes that the regulator's sizes fix."""
    return {"content": sizes.in_channels, "svc_condition": sizes.channels}


def flow_axes(sizes: DitConfig) -> dict[str, int]:
    """The contract's axes that the flow's sizes fix."""
    return {"mel_band": sizes.in_channels, "svc_condition": sizes.content_dim, "svc_style_width": sizes.style_dim}


def style_axes(sizes: CampplusConfig) -> dict[str, int]:
    """The contract's axes that the style encoder's sizes fix."""
    return {"svc_style_band": sizes.n_bands, "svc_style_width": sizes.embedding}


def vocoder_axes(sizes: BigvganConfig) -> dict[str, int]:
    """The contract's axes that the vocoder's sizes fix."""
    return {"mel_band": sizes.num_mels}


def heartmula_step(num_layers: int) -> ModelSpec:
    """The LM's graph for a backbone of `num_layers`: prompt and frame are the same graph, with T new positions.

    Its batch axes are explicit, since songs (S) and rows (R, two for a guided song) differ. Row r belongs to song
    row_song[r] and is unconditional if cond_row[row_song[r]] is another row (design decision 13).
    """
    songs, rows = Axis("song", 1, 1, 16), Axis("row", 1, 2, 32)
    new, past = Axis("new_position", 1, 1, 3584), Axis("past_position", 0, 512, 3584)
    kv_head, head = Axis("kv_head", 1, 8, 8), Axis("head", 1, 128, 128)
    past_kv = tuple(
        TensorSpec(f"{kind}_past_{layer}", "FP32", (rows, kv_head, past, head), "Cache; read below `position` only.")
        for layer in range(num_layers)
        for kind in "kv"
    )
    new_kv = tuple(
        TensorSpec(f"{kind}_new_{layer}", "FP32", (rows, kv_head, new, head), "For the host to write into the cache.")
        for layer in range(num_layers)
        for kind in "kv"
    )
    return ModelSpec(
        "heartmula_step",
        "onnxruntime",
        inputs=(
            TensorSpec("text_ids", "INT64", (songs, new), "Text id, or -1 where the position is an audio frame."),
            TensorSpec("codes", "INT64", (songs, N_CODEBOOKS), "The previous frame, for positions without text."),
            TensorSpec("style", "FP32", (songs, STYLE), "Style vector."),
            TensorSpec("style_index", "INT64", (songs,), "New position that the style overwrites; -1 none."),
            TensorSpec("n_new", "INT64", (songs,), "How many of the new positions are real; the rest is padding."),
            TensorSpec("position", "INT64", (rows,), "Cached positions of each row; the first new position."),
            TensorSpec("row_song", "INT64", (rows,), "Song of each row."),
            TensorSpec("cond_row", "INT64", (songs,), "Conditional row of each song."),
            TensorSpec("uncond_row", "INT64", (songs,), "Unconditional row; the conditional one if unguided."),
            TensorSpec("temperature", "FP32", (songs,), "Above 0; the host turns 0 into top_k 1."),
            TensorSpec("top_k", "INT64", (songs,)),
            TensorSpec("cfg_scale", "FP32", (songs,)),
            TensorSpec("uniform", "FP32", (songs, N_CODEBOOKS), "In [0, 1): one draw for each codebook."),
            TensorSpec("allow_eos", "BOOL", (songs,), "Whether EOS may be drawn."),
            *past_kv,
        ),
        outputs=(
            TensorSpec("next_codes", "INT64", (songs, N_CODEBOOKS), "The frame after the last real position."),
            TensorSpec("logits", "FP32", (songs, N_CODEBOOKS, Axis("audio_id", 1, 8197, 8197)), "After guidance."),
            *new_kv,
        ),
        kind="KIND_AUTO",
        local=True,
        plan=False,
        doc="T positions through the backbone, then one frame through the depth decoder, sampled in the graph.",
    )


def heartmula_step_ort(num_layers: int) -> ModelSpec:
    """`heartmula_step` for onnxruntime's own operations: the cache comes back with the new positions in it.

    Where `k_present_*` and `k_past_*` are bound to the same memory, new positions are written in place and nothing is
    copied. Prompts (T > 1) begin at position 0, except that a single row may begin anywhere.
    """
    standard = heartmula_step(num_layers)
    present = Axis("present_position", 1, 512, 3584)
    codes, logits, *new = standard.outputs
    return replace(
        standard,
        name="heartmula_step_ort",
        inputs=tuple(_with_positions(tensor) for tensor in standard.inputs),
        outputs=(codes, logits, *(_present(tensor, present) for tensor in new)),
    )


def _with_positions(tensor: TensorSpec) -> TensorSpec:
    if "_past_" not in tensor.name:
        return tensor
    return replace(tensor, doc="Cache; row r is read below `position[r]` only.")


def _present(tensor: TensorSpec, axis: Axis) -> TensorSpec:
    rows, heads, _, width = tensor.shape
    name = tensor.name.replace("_new_", "_present_")
    return TensorSpec(name, tensor.dtype, (rows, heads, axis, width), "The cache with the new positions.")
