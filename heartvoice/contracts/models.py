"""Every model's inputs and outputs, once.

From these specs come config.pbtxt, the graphs' dynamic axes, TensorRT profiles, the client's and the server's checks
and the tests' random inputs. Sizes that depend on the preset are axes here; an export's manifest pins them.
"""

from __future__ import annotations

from dataclasses import replace

from heartvoice.contracts.constants import (
    DECODER_HISTORY,
    MAX_UNREAD_MB,
    N_CODEBOOKS,
)
from heartvoice.contracts.graphs import CONTENT_ENCODER, SVC_FLOW, SVC_REGULATOR, SVC_STYLE, VOCODER
from heartvoice.contracts.settings import (
    CODEC_SETTINGS,
    COVER_SETTINGS,
    EVENTS,
    FORGET,
    LIVE,
    LM_SETTINGS,
    MORE,
    RENDER_SETTINGS,
    SEED,
    SONG_SETTINGS,
    SVC_SETTINGS,
)
from heartvoice.contracts.tensors import (
    AUDIO,
    AUTO_PITCH,
    CALLER,
    CHUNK_FRAME,
    CHUNK_VALUE,
    CODES_IN,
    CODES_OUT,
    CONDITION,
    CONVERSION_INPUTS,
    EMBEDDING,
    EVENT,
    F0_BIN,
    F0_FEATURE,
    F0_INPUT,
    F0_OUTPUT,
    JOB_INPUTS,
    LATENT,
    LATENT_FRAME,
    LATENT_HALF,
    LYRICS,
    MAGNITUDE_BIN,
    MAGNITUDE_FRAME,
    MIX_STEMS,
    RECORDING_INPUTS,
    REFERENCE_CHECK,
    REPORT,
    SAMPLE,
    SEGMENT,
    SOURCE,
    SPEAKER_BAND,
    SPEAKER_FRAME,
    SPECTRUM_BIN,
    SPECTRUM_FRAME,
    START,
    STEM,
    STEM_SAMPLE,
    STYLE_VECTOR,
    SVC_STATE,
    TAGS,
    UNKNOWN_WORDS,
    VOICE,
    VOICE_ID,
    VOICE_INPUTS,
    WINDOW,
)
from heartvoice.contracts.types import (
    Axis,
    ModelSpec,
    TensorSpec,
)

HEARTMULA = ModelSpec(
    "heartmula",
    "python",
    inputs=(LYRICS, TAGS, UNKNOWN_WORDS, STYLE_VECTOR, *JOB_INPUTS),
    outputs=(CODES_OUT, START, EVENT, REPORT),
    settings=(*LM_SETTINGS, EVENTS),
    decoupled=True,
    kind="KIND_AUTO",
    parameters={"max_jobs": "4", "max_queue": "16", "engine": "auto", "max_unread_mb": str(MAX_UNREAD_MB)},
    doc="Lyrics and tags into code frames, sent as they are made.",
)

HEARTCODEC = ModelSpec(
    "heartcodec",
    "python",
    inputs=(
        TensorSpec("codes", "INT32", (N_CODEBOOKS, WINDOW), "One window of codes.", optional=True),
        TensorSpec(
            "context_latents", "FP32", (Axis("context_frame", 1, 104, 742), LATENT),
            "The previous window's latents that this window begins with.", optional=True,
        ),
        TensorSpec(
            "history_latents", "FP32", (Axis("history_frame", 1, DECODER_HISTORY, DECODER_HISTORY), LATENT),
            "Latents before this window, so that its first samples are exact.", optional=True,
        ),
        TensorSpec("window_index", "INT64", (1,), "Keys the window's noise together with `seed`.", optional=True),
        *JOB_INPUTS,
    ),
    outputs=(AUDIO, TensorSpec("LATENTS", "FP32", (LATENT_FRAME, LATENT), "The window's latents.")),
    settings=(SEED, *CODEC_SETTINGS),
    kind="KIND_AUTO",
    parameters={"max_jobs": "2", "max_queue": "16", "engine": "onnxruntime"},
    doc="One window of codes into audio: flow matching, then the scalar decoder.",
)  # fmt: skip

HEARTCODEC_DECODER = ModelSpec(
    "heartcodec_decoder",
    "onnxruntime",
    inputs=(TensorSpec("latents", "FP32", (LATENT_HALF, LATENT_FRAME), "One channel's half of the latents."),),
    outputs=(TensorSpec("audio", "FP32", (1, SAMPLE), "That channel's samples."),),
    max_batch_size=8,
    kind="KIND_AUTO",
    plan_rows=(2, 4),
    doc="The scalar decoder: latents of one channel into its waveform.",
)

HEARTCODEC_CONDITION = ModelSpec(
    "heartcodec_condition",
    "onnxruntime",
    inputs=(TensorSpec("codes", "INT32", (N_CODEBOOKS, WINDOW), "Codes; -1 contributes nothing."),),
    outputs=(TensorSpec("mu", "FP32", (LATENT_FRAME, CONDITION), "The flow's condition, two frames for each code."),),
    max_batch_size=8,
    kind="KIND_AUTO",
    local=True,
    plan_rows=(1, 4),
    doc="RVQ lookup and projection of one window of codes.",
)

HEARTCODEC_FLOW = ModelSpec(
    "heartcodec_flow",
    "onnxruntime",
    inputs=(
        TensorSpec("x", "FP32", (LATENT_FRAME, LATENT), "Noisy latents."),
        TensorSpec("context", "FP32", (LATENT_FRAME, LATENT), "In-context latents, zero elsewhere."),
        TensorSpec("mu", "FP32", (LATENT_FRAME, CONDITION), "Condition; zeros in an unconditional row."),
        TensorSpec("t", "FP32", (1,), "Flow time in [0, 1)."),
    ),
    outputs=(TensorSpec("velocity", "FP32", (LATENT_FRAME, LATENT)),),
    max_batch_size=16,
    kind="KIND_AUTO",
    local=True,
    plan_rows=(2, 4),
    doc="One evaluation of the flow's velocity. Rows are independent: guidance is two rows, combined by the host.",
)

SONG = ModelSpec(
    "song",
    "python",
    inputs=(LYRICS, TAGS, UNKNOWN_WORDS, STYLE_VECTOR, CODES_IN, *CONVERSION_INPUTS, CALLER),
    outputs=(AUDIO, START, CODES_OUT, MIX_STEMS, EVENT, REPORT),
    settings=(*SONG_SETTINGS, EVENTS),
    decoupled=True,
    parameters={"max_jobs": "4", "max_queue": "8", "max_unread_mb": str(MAX_UNREAD_MB)},
    doc="Lyrics and tags into a song, in a reference's voice if there is one; streamed while it is still being made.",
)

HTDEMUCS = ModelSpec(
    "htdemucs",
    "onnxruntime",
    inputs=(
        TensorSpec("mix", "FP32", (2, SEGMENT), "One segment at 44.1 kHz."),
        TensorSpec("spectrum", "FP32", (4, SPECTRUM_BIN, SPECTRUM_FRAME), "Its STFT: left re, im, right re, im."),
    ),
    outputs=(
        TensorSpec("spectra", "FP32", (SOURCE, 4, SPECTRUM_BIN, SPECTRUM_FRAME), "Each source's STFT, likewise."),
        TensorSpec("waves", "FP32", (SOURCE, 2, SEGMENT), "The time branch, to be added to the inverse STFT."),
    ),
    max_batch_size=4,
    kind="KIND_AUTO",
    bf16=True,
    plan_rows=(1, 2),
    doc="Demucs' hybrid transformer without its STFT: one segment into its sources.",
)

SPLEETER = ModelSpec(
    "spleeter",
    "onnxruntime",
    inputs=(TensorSpec("magnitudes", "FP32", (2, MAGNITUDE_FRAME, MAGNITUDE_BIN), "One segment's STFT, left, right."),),
    outputs=(TensorSpec("estimates", "FP32", (SOURCE, 2, MAGNITUDE_FRAME, MAGNITUDE_BIN), "Each source's, likewise."),),
    max_batch_size=2,
    kind="KIND_AUTO",
    plan_rows=(1, 2),
    doc="Spleeter's U-nets, one a source: magnitudes of one segment into those of its sources.",
)

ROFORMER = ModelSpec(
    "roformer",
    "onnxruntime",
    inputs=(
        TensorSpec("features", "FP32", (CHUNK_FRAME, CHUNK_VALUE), "One chunk's STFT: bin, channel, real, imaginary."),
    ),
    outputs=(TensorSpec("masks", "FP32", (STEM, CHUNK_FRAME, CHUNK_VALUE), "Complex masks of its stems, likewise."),),
    max_batch_size=2,
    kind="KIND_AUTO",
    plan_rows=(1, 2),
    doc="BS-RoFormer or MelBand-RoFormer without STFT: one chunk into the masks of its stems.",
)

SEPARATOR_GRAPHS: dict[str, ModelSpec] = {spec.name: spec for spec in (HTDEMUCS, SPLEETER, ROFORMER)}
"""The separators' graphs by engine; a repository has the one of its preset."""

DEMUCS = ModelSpec(
    "demucs",
    "python",
    inputs=(
        *RECORDING_INPUTS,
        TensorSpec("sources", "BYTES", (1,), "Comma separated names of the wanted stems; default all.", optional=True),
        TensorSpec("context", "INT64", (1,), "Leading samples that earlier requests have separated.", optional=True),
        TensorSpec(
            "carry", "FP32", (SOURCE, 2, STEM_SAMPLE), "CARRY of the request that this one goes on from.", optional=True
        ),
        *JOB_INPUTS,
    ),
    outputs=(
        TensorSpec("STEMS", "FP32", (SOURCE, 2, STEM_SAMPLE), "Wanted stems at 44.1 kHz."),
        START,
        TensorSpec("CARRY", "FP32", (SOURCE, 2, STEM_SAMPLE), "Unfinished overlap, if `more`."),
        EVENT,
        REPORT,
    ),
    settings=(MORE, EVENTS),
    decoupled=True,
    parameters={"max_jobs": "4", "max_queue": "16", "max_unread_mb": str(MAX_UNREAD_MB)},
    doc="A recording into its stems, segment by segment.",
)

SPEAKER_NETWORK = ModelSpec(
    "speaker_network",
    "onnxruntime",
    inputs=(
        TensorSpec(
            "features", "FP32", (SPEAKER_FRAME, SPEAKER_BAND), "Filter bank frames; WavLM: samples, one a frame."
        ),
    ),
    outputs=(TensorSpec("embedding", "FP32", (EMBEDDING,), "As the network gives it."),),
    max_batch_size=64,
    kind="KIND_AUTO",
    plan_rows=(8, 16),
    doc="The network of the speaker encoder: Resemblyzer, CAMPPlus, ECAPA-TDNN or WavLM.",
)

SPEAKER_ENCODER = ModelSpec(
    "speaker_encoder",
    "python",
    inputs=(*RECORDING_INPUTS, REFERENCE_CHECK, *JOB_INPUTS),
    outputs=(TensorSpec("EMBEDDING", "FP32", (EMBEDDING,), "Unit vector: a dot product is a cosine."), REPORT),
    parameters={"max_jobs": "4", "max_queue": "32"},
    doc="Who speaks or sings, as a unit vector.",
)

F0_NETWORK = ModelSpec(
    "f0_network",
    "onnxruntime",
    inputs=(TensorSpec("features", "FP32", (F0_FEATURE, F0_INPUT), "16 kHz samples, or log-mel frames."),),
    outputs=(TensorSpec("activations", "FP32", (F0_OUTPUT, F0_BIN), "Hz and confidence, or salience bins."),),
    max_batch_size=8,
    kind="KIND_AUTO",
    plan_rows=(1, 2),
    doc="The network of the F0 stage.",
)

SVC = ModelSpec(
    "svc",
    "python",
    inputs=(
        TensorSpec(
            "vocals",
            "FP32",
            (STEM_SAMPLE,),
            "Vocals at 44.1 kHz, going on where the last request ended.",
            optional=True,
        ),
        *VOICE_INPUTS,
        TensorSpec(
            "voice_key", "BYTES", (1,), "Names a voice that an earlier request sent, in place of it.", optional=True
        ),
        AUTO_PITCH,
        TensorSpec("state", "FP32", (SVC_STATE,), "STATE of the request that this one goes on from.", optional=True),
        *JOB_INPUTS,
    ),
    outputs=(
        TensorSpec("VOCALS", "FP32", (STEM_SAMPLE,), "Converted vocals, in all up to 511 samples shorter."),
        START,
        TensorSpec("STATE", "FP32", (SVC_STATE,), "If `more`."),
        EVENT,
        REPORT,
    ),
    settings=(SEED, *SVC_SETTINGS, LIVE, MORE, FORGET, EVENTS),
    decoupled=True,
    kind="KIND_AUTO",
    parameters={"max_jobs": "2", "max_queue": "16", "max_unread_mb": str(MAX_UNREAD_MB), "engine": "onnxruntime"},
    doc="Vocals into the same vocals in another voice.",
)

COVER = ModelSpec(
    "cover",
    "python",
    inputs=(*RECORDING_INPUTS, *CONVERSION_INPUTS, CALLER),
    outputs=(AUDIO, START, MIX_STEMS, EVENT, REPORT),
    settings=(*COVER_SETTINGS, EVENTS),
    decoupled=True,
    parameters={"max_jobs": "4", "max_queue": "8", "max_unread_mb": str(MAX_UNREAD_MB)},
    doc="A recording with another singer, streamed while it is still being made.",
)

RENDER = ModelSpec(
    "render",
    "python",
    inputs=(
        *SONG.inputs,
        *RECORDING_INPUTS,
        TensorSpec("format", "BYTES", (1,), "wav, flac, mp3 or ogg.", optional=True),
    ),
    outputs=(TensorSpec("FILE", "BYTES", (1,), "The encoded file, at most 100 MB."), REPORT),
    settings=RENDER_SETTINGS,
    parameters={"max_jobs": "2", "max_queue": "8"},
    doc="A whole song or cover as one encoded file, for callers without streaming; a recording makes it a cover.",
)

MODELS: dict[str, ModelSpec] = {
    model.name: model
    for model in (
        SONG, COVER, RENDER, HEARTMULA, HEARTCODEC, HEARTCODEC_CONDITION, HEARTCODEC_FLOW, HEARTCODEC_DECODER,
        DEMUCS, HTDEMUCS, SPLEETER, ROFORMER, SPEAKER_ENCODER, SPEAKER_NETWORK, F0_NETWORK,
        SVC, CONTENT_ENCODER, SVC_REGULATOR, SVC_FLOW, SVC_STYLE, VOCODER,
    )
}  # fmt: skip
"""Every model with a committed, preset-independent config.pbtxt: all but `heartmula_step`, whose inputs depend on the
number of layers and whose config is therefore written by the export."""

LOADED = tuple(model.name for model in MODELS.values() if not model.local)
"""Models that a server may load. The model that owns a loop opens its graph itself."""


def models_with(separator: str) -> dict[str, ModelSpec]:
    """Return `MODELS` of a repository with this separator engine: without the graphs of the others."""
    return {name: spec for name, spec in MODELS.items() if name == separator or name not in SEPARATOR_GRAPHS}


def with_voice_ids(model: ModelSpec) -> ModelSpec:
    """Return a model as a gateway with a registry offers it: whoever takes a reference takes `voice_id`, too."""
    return replace(model, inputs=(*model.inputs, VOICE_ID)) if VOICE in model.inputs else model
