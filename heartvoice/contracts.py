"""Every model's inputs and outputs, once.

From these specs come config.pbtxt, the graphs' dynamic axes, TensorRT profiles, the client's and the server's checks
and the tests' random inputs. Sizes that depend on the preset are axes here; an export's manifest pins them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from heartvoice.errors import InvalidRequestError

SAMPLE_RATE_HZ = 48_000
FRAMES_PER_S = 12.5
"""LM frames per second; one frame is one code per codebook, 80 ms."""
FRAME_HOP = 3840
"""Samples of one frame at 48 kHz."""
N_CODEBOOKS = 8
CODES_PER_UNIT = 93
"""Codec windows are multiples of 93 frames, 7.44 s (heartcodec spec, section 7)."""
LATENTS_PER_FRAME = 2
DECODER_HISTORY = 44
"""Latent frames of past that reach one sample of the scalar decoder (heartcodec spec, section 10)."""
DECODER_LOOKAHEAD = 2
"""Latent frames of future that reach one sample of the scalar decoder."""
MAX_RESPONSE_SAMPLES = 3_000_000 // (2 * 4)
"""Stereo float32 samples of one streamed response: plain gRPC clients stop at 4 MB."""
MAX_TEXT_BYTES = 20_000
"""UTF-8 bytes of lyrics, and of tags."""
MAX_DURATION_S = 240.0
MAX_FRAMES = round(MAX_DURATION_S * FRAMES_PER_S) + 1
"""Frames of the longest song; the reference makes one more than its duration (heartmula spec, section 9)."""

DType = Literal["BYTES", "FP32", "INT32", "INT64", "BOOL"]
NUMPY_DTYPE: dict[str, type[np.generic]] = {
    "BYTES": np.object_,
    "FP32": np.float32,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class Axis:
    """A dynamic axis: its name and the sizes that profiles and tests use."""

    name: str
    min: int = 1
    opt: int = 1
    max: int = 1


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `shape` excludes the batch axis that `max_batch_size` adds."""

    name: str
    dtype: DType
    shape: tuple[int | Axis, ...]
    doc: str = ""
    optional: bool = False

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape as Triton writes it: -1 for every axis."""
        return tuple(-1 if isinstance(axis, Axis) else axis for axis in self.shape)

    def describe(self) -> str:
        """`int32 [8, frame]`, for messages."""
        axes = ", ".join(axis.name if isinstance(axis, Axis) else str(axis) for axis in self.shape)
        return f"{self.dtype} [{axes}]"


@dataclass(frozen=True)
class Setting:
    """A typed optional input of shape [1] with a default and a range, both ends included."""

    name: str
    dtype: Literal["FP32", "INT64", "BOOL"]
    default: float | int | bool
    minimum: float | int | None = None
    maximum: float | int | None = None
    unit: str = ""
    doc: str = ""
    multiple: int | None = None

    @property
    def spec(self) -> TensorSpec:
        """The setting as a model input."""
        return TensorSpec(self.name, self.dtype, (1,), self.doc, optional=True)

    def describe(self) -> str:
        """`0 to 1000, in steps of 93`, for messages and help."""
        if self.minimum is None:
            return "true or false" if self.dtype == "BOOL" else "any"
        low, high = (f"{end:g}" if isinstance(end, float) else str(end) for end in (self.minimum, self.maximum))
        text = f"{low} to {high}"
        if self.multiple:
            text += f" in steps of {self.multiple}"
        return f"{text} {self.unit}".rstrip()

    def check(self, value: object) -> float | int | bool:
        """Return `value` as a Python number of this setting's type.

        Raises:
            InvalidRequestError: wrong type, NaN, out of range or off the steps; names field, limit and value.
        """
        if isinstance(value, np.generic):
            value = value.item()
        if self.dtype == "BOOL":
            if not isinstance(value, bool):
                raise InvalidRequestError(f"{self.name}: expected true or false, got {value!r}")
            return value
        allowed = (int,) if self.dtype == "INT64" else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed):
            kind = "an integer" if self.dtype == "INT64" else "a number"
            raise InvalidRequestError(f"{self.name}: expected {kind}, {self.describe()}, got {value!r}")
        if self.minimum is not None and self.maximum is not None and not self.minimum <= value <= self.maximum:
            raise InvalidRequestError(f"{self.name}: expected {self.describe()}, got {value!r}")  # NaN fails too
        if self.multiple and value % self.multiple:
            raise InvalidRequestError(f"{self.name}: expected {self.describe()}, got {value!r}")
        return float(value) if self.dtype == "FP32" else value


@dataclass(frozen=True)
class ModelSpec:
    """A model: its tensors, how Triton runs it and where its network runs."""

    name: str
    backend: Literal["python", "onnxruntime"]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    settings: tuple[Setting, ...] = ()
    decoupled: bool = False
    max_batch_size: int = 0
    kind: Literal["KIND_CPU", "KIND_AUTO"] = "KIND_CPU"
    local: bool = False
    """The model that owns its loop opens the graph in its own process; Triton loads it only when asked to."""
    doc: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def all_inputs(self) -> tuple[TensorSpec, ...]:
        """Declared inputs, then the settings."""
        return self.inputs + tuple(setting.spec for setting in self.settings)

    def input(self, name: str) -> TensorSpec:
        """The input called `name`; KeyError if there is none."""
        return _named(self.all_inputs, name)

    def output(self, name: str) -> TensorSpec:
        """The output called `name`; KeyError if there is none."""
        return _named(self.outputs, name)

    def setting(self, name: str) -> Setting:
        """The setting called `name`; KeyError if there is none."""
        return next(s for s in self.settings if s.name == name)


def _named(specs: Iterable[TensorSpec], name: str) -> TensorSpec:
    for spec in specs:
        if spec.name == name:
            return spec
    raise KeyError(name)


# ---------------------------------------------------------------------------------------------------------- axes

FRAME = Axis("frame", 1, 372, MAX_FRAMES)
WINDOW = Axis("window_frame", 1, 372, 372)
SAMPLE = Axis("sample", 1, MAX_RESPONSE_SAMPLES, 4 * CODES_PER_UNIT * FRAME_HOP)
LATENT_FRAME = Axis("latent_frame", 1, 744, 744 + DECODER_HISTORY)
LATENT = Axis("latent", 1, 256, 256)
LATENT_HALF = Axis("latent_half", 1, 128, 128)
STYLE = Axis("style", 1, 512, 512)
CONDITION = Axis("condition", 1, 512, 512)

# ------------------------------------------------------------------------------------------------------- settings

DURATION_S = Setting("duration_s", "FP32", 30.0, 1.0, MAX_DURATION_S, "s", "Longest song; the LM may end it earlier.")
MIN_DURATION_S = Setting(
    "min_duration_s", "FP32", 0.0, 0.0, MAX_DURATION_S, "s", "The LM cannot end the song before this."
)
SEED = Setting("seed", "INT64", 0, 0, 2**63 - 1, "", "Same inputs and seed, same song.")
TEMPERATURE = Setting("temperature", "FP32", 1.0, 0.0, 10.0, "", "LM sampling temperature; 0 takes the likeliest code.")
TOP_K = Setting("top_k", "INT64", 50, 1, 1000, "", "LM samples among this many likeliest codes.")
CFG_SCALE = Setting(
    "cfg_scale", "FP32", 1.5, 1.0, 10.0, "", "LM guidance by the prompt; 1 is none, and costs one row less."
)
CODEC_WINDOW = Setting(
    "codec_window", "INT64", 372, CODES_PER_UNIT, 4 * CODES_PER_UNIT, "frames",
    "Frames that the codec hears at once; fewer give earlier first audio.", multiple=CODES_PER_UNIT,
)  # fmt: skip
CODEC_STEPS = Setting("codec_steps", "INT64", 10, 1, 100, "", "Euler steps of the codec's flow.")
CODEC_GUIDANCE = Setting("codec_guidance", "FP32", 1.25, 1.0, 10.0, "", "Guidance of the codec's flow; 1 is none.")
RETURN_CODES = Setting("return_codes", "BOOL", False, doc="Also send the LM's codes, in the last responses.")
EVENTS = Setting("events", "BOOL", False, doc="Also send progress events between the payload responses.")

LM_SETTINGS = (DURATION_S, MIN_DURATION_S, SEED, TEMPERATURE, TOP_K, CFG_SCALE)
CODEC_SETTINGS = (CODEC_STEPS, CODEC_GUIDANCE)
SONG_SETTINGS = (*LM_SETTINGS, CODEC_WINDOW, *CODEC_SETTINGS, RETURN_CODES)

# -------------------------------------------------------------------------------------------------- shared tensors

LYRICS = TensorSpec("lyrics", "BYTES", (1,), "UTF-8 text; section marks such as [verse] are plain text.", optional=True)
TAGS = TensorSpec("tags", "BYTES", (1,), "UTF-8 text, comma separated: genre, mood, instruments.", optional=True)
STYLE_VECTOR = TensorSpec("style", "FP32", (STYLE,), "HeartMuLa's style slot; default zeros.", optional=True)
JOB_ID = TensorSpec("job_id", "BYTES", (1,), "Names the job, so that `cancel` can find it.", optional=True)
OWNER_PID = TensorSpec("owner_pid", "INT64", (1,), "Process on this host whose death ends the job.", optional=True)
CANCEL = TensorSpec("cancel", "BYTES", (1,), "A job_id to cancel; the request does nothing else.", optional=True)
JOB_INPUTS = (JOB_ID, OWNER_PID, CANCEL)

START = TensorSpec("START", "INT64", (1,), "First sample or frame of this response's payload.")
EVENT = TensorSpec("EVENT", "BYTES", (1,), "JSON: stage, done, total, seconds. Only if `events` is true.")
REPORT = TensorSpec("REPORT", "BYTES", (1,), "JSON, in the last response that is not empty.")
AUDIO = TensorSpec("AUDIO", "FP32", (2, SAMPLE), "48 kHz stereo; values may exceed 1.")
CODES_IN = TensorSpec("codes", "INT32", (N_CODEBOOKS, FRAME), "Codes of a finished song: skips the LM.", optional=True)
CODES_OUT = TensorSpec("CODES", "INT32", (N_CODEBOOKS, FRAME), "Code frames.")

# --------------------------------------------------------------------------------------------------------- models

HEARTMULA = ModelSpec(
    "heartmula",
    "python",
    inputs=(LYRICS, TAGS, STYLE_VECTOR, *JOB_INPUTS),
    outputs=(CODES_OUT, START, EVENT, REPORT),
    settings=(*LM_SETTINGS, EVENTS),
    decoupled=True,
    kind="KIND_AUTO",
    parameters={"max_jobs": "4", "max_queue": "16"},
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
    parameters={"max_jobs": "2", "max_queue": "16"},
    doc="One window of codes into audio: flow matching, then the scalar decoder.",
)  # fmt: skip

HEARTCODEC_DECODER = ModelSpec(
    "heartcodec_decoder",
    "onnxruntime",
    inputs=(TensorSpec("latents", "FP32", (LATENT_HALF, LATENT_FRAME), "One channel's half of the latents."),),
    outputs=(TensorSpec("audio", "FP32", (1, SAMPLE), "That channel's samples."),),
    max_batch_size=8,
    kind="KIND_AUTO",
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
    doc="One evaluation of the flow's velocity. Rows are independent: guidance is two rows, combined by the host.",
)


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
        doc="T positions through the backbone, then one frame through the depth decoder, sampled in the graph.",
    )


SONG = ModelSpec(
    "song",
    "python",
    inputs=(LYRICS, TAGS, STYLE_VECTOR, CODES_IN),
    outputs=(AUDIO, START, CODES_OUT, EVENT, REPORT),
    settings=(*SONG_SETTINGS, EVENTS),
    decoupled=True,
    parameters={"max_jobs": "4", "max_queue": "8"},
    doc="Lyrics and tags into a song, streamed while it is still being made.",
)

RENDER = ModelSpec(
    "render",
    "python",
    inputs=(*SONG.inputs, TensorSpec("format", "BYTES", (1,), "wav, flac, mp3 or ogg.", optional=True)),
    outputs=(TensorSpec("FILE", "BYTES", (1,), "The encoded file, at most 100 MB."), REPORT),
    settings=SONG_SETTINGS,
    parameters={"max_jobs": "2", "max_queue": "8"},
    doc="A whole song as one encoded file, for callers without streaming.",
)

MODELS: dict[str, ModelSpec] = {
    model.name: model
    for model in (
        SONG, RENDER, HEARTMULA, HEARTCODEC, HEARTCODEC_CONDITION, HEARTCODEC_FLOW, HEARTCODEC_DECODER,
    )
}  # fmt: skip
"""Every model with a committed, preset-independent config.pbtxt: all but `heartmula_step`, whose inputs depend on the
number of layers and whose config is therefore written by the export."""

AUDIO_FORMATS = ("wav", "flac", "mp3", "ogg")
MAX_FILE_BYTES = 100_000_000

LOADED = tuple(model.name for model in MODELS.values() if not model.local)
"""What a server loads by default; a local graph is opened by the model that owns its loop."""
