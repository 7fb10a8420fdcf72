"""Every model's inputs and outputs, once.

From these specs come config.pbtxt, the graphs' dynamic axes, TensorRT profiles, the client's and the server's checks
and the tests' random inputs. Sizes that depend on the preset are axes here; an export's manifest pins them.
"""

from __future__ import annotations

from heartvoice.specs import NUMPY_DTYPE, Axis, ModelSpec, Setting, TensorSpec
from heartvoice.svc_contracts import CONTENT_ENCODER, SVC_FLOW, SVC_REGULATOR, SVC_STYLE, VOCODER

__all__ = ["NUMPY_DTYPE", "Axis", "ModelSpec", "Setting", "TensorSpec"]  # the types, for whoever needs both

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
STEM_RATE_HZ = 44_100
"""Separation and conversion work at this rate; vocals go from one to the other untouched."""
SPEECH_RATE_HZ = 16_000
"""Speaker and F0 networks hear this rate."""
F0_RATE_HZ = 100
"""F0 contours, whatever the engine's own grid: Hz, 0 = unvoiced."""
MIN_INPUT_RATE_HZ, MAX_INPUT_RATE_HZ = 8_000, 192_000
MAX_CHANNELS = 2
MIN_RECORDING_S, MAX_RECORDING_S = 1.0, 600.0
MIN_VOICE_S, MAX_VOICE_S = 3.0, 60.0
MAX_CONSENT_CHARS = 500
MAX_RESPONSE_BYTES = 3_000_000

# ---------------------------------------------------------------------------------------------------------- axes

FRAME = Axis("frame", 1, 372, MAX_FRAMES)
WINDOW = Axis("window_frame", 1, 372, 372)
SAMPLE = Axis("sample", 1, MAX_RESPONSE_SAMPLES, 4 * CODES_PER_UNIT * FRAME_HOP)
LATENT_FRAME = Axis("latent_frame", 1, 744, 744 + DECODER_HISTORY)
LATENT = Axis("latent", 1, 256, 256)
LATENT_HALF = Axis("latent_half", 1, 128, 128)
STYLE = Axis("style", 1, 512, 512)
CONDITION = Axis("condition", 1, 512, 512)
CHANNEL = Axis("channel", 1, 2, MAX_CHANNELS)
INPUT_SAMPLE = Axis("input_sample", 1, 30 * SAMPLE_RATE_HZ, int(MAX_RECORDING_S) * MAX_INPUT_RATE_HZ)
VOICE_SAMPLE = Axis("voice_sample", 1, 12 * SAMPLE_RATE_HZ, int(MAX_VOICE_S) * MAX_INPUT_RATE_HZ)
STEM_SAMPLE = Axis("stem_sample", 1, 257_985, int(MAX_RECORDING_S) * STEM_RATE_HZ)
SOURCE = Axis("source", 1, 4, 6)
SEGMENT = Axis("segment_sample", 1, 343_980, 343_980)
SPECTRUM_BIN = Axis("spectrum_bin", 1, 2048, 2048)
SPECTRUM_FRAME = Axis("spectrum_frame", 1, 336, 336)
SPEAKER_FRAME = Axis("speaker_frame", 1, 160, 6000)
SPEAKER_BAND = Axis("speaker_band", 40, 40, 80)
EMBEDDING = Axis("embedding", 192, 256, 256)
F0_INPUT = Axis("f0_input", 1, 3200, 485_376)
F0_FEATURE = Axis("f0_feature", 1, 128, 128)
F0_OUTPUT = Axis("f0_output", 1, 3200, 3200)
F0_BIN = Axis("f0_bin", 2, 360, 360)
SVC_STATE = Axis("svc_state", 1, 1, 10_000_000)

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

VOCAL_GAIN_DB = Setting("vocal_gain_db", "FP32", 0.0, -24.0, 12.0, "dB", "Louder or softer vocals in the mix.")
MORE = Setting("more", "BOOL", False, doc="Another request goes on where this one ends.")
COVER_SETTINGS = (SEED, VOCAL_GAIN_DB)

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
FILE_IN = TensorSpec("file", "BYTES", (1,), "An encoded recording: WAV, FLAC, OGG or MP3.", optional=True)
AUDIO_IN = TensorSpec("audio", "FP32", (CHANNEL, INPUT_SAMPLE), "Samples, in place of `file`.", optional=True)
SAMPLE_RATE = TensorSpec("sample_rate", "INT64", (1,), "Of `audio`, in Hz.", optional=True)
RECORDING_INPUTS = (FILE_IN, AUDIO_IN, SAMPLE_RATE)
VOICE = TensorSpec("voice", "BYTES", (1,), "An encoded voice reference of 3 to 60 s.", optional=True)
VOICE_AUDIO = TensorSpec("voice_audio", "FP32", (CHANNEL, VOICE_SAMPLE), "Samples, in place of `voice`.", optional=True)
VOICE_SAMPLE_RATE = TensorSpec("voice_sample_rate", "INT64", (1,), "Of `voice_audio`, in Hz.", optional=True)
VOICE_CONSENT = TensorSpec(
    "voice_consent", "BYTES", (1,),
    f"Who consents to the use of the voice, and how; at most {MAX_CONSENT_CHARS} characters. Required with a voice.",
    optional=True,
)  # fmt: skip
VOICE_INPUTS = (VOICE, VOICE_AUDIO, VOICE_SAMPLE_RATE, VOICE_CONSENT)
NO_VOCALS = TensorSpec(
    "no_vocals", "BYTES", (1,), "What a recording without vocals becomes: error, passthrough or convert.", optional=True
)

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
    doc="Demucs' hybrid transformer without its STFT: one segment into its sources.",
)

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
    parameters={"max_jobs": "4", "max_queue": "16"},
    doc="A recording into its stems, segment by segment.",
)

SPEAKER_NETWORK = ModelSpec(
    "speaker_network",
    "onnxruntime",
    inputs=(TensorSpec("features", "FP32", (SPEAKER_FRAME, SPEAKER_BAND), "Filter bank frames."),),
    outputs=(TensorSpec("embedding", "FP32", (EMBEDDING,), "As the network gives it."),),
    max_batch_size=64,
    kind="KIND_AUTO",
    doc="The network of the speaker encoder.",
)

SPEAKER_ENCODER = ModelSpec(
    "speaker_encoder",
    "python",
    inputs=(*RECORDING_INPUTS, *JOB_INPUTS),
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
    doc="The network of the F0 stage.",
)

SVC = ModelSpec(
    "svc",
    "python",
    inputs=(
        TensorSpec("vocals", "FP32", (STEM_SAMPLE,), "Vocals at 44.1 kHz, going on where the last request ended."),
        VOICE_AUDIO,
        VOICE_SAMPLE_RATE,
        TensorSpec("voice_key", "BYTES", (1,), "Names a voice that an earlier request sent.", optional=True),
        TensorSpec("state", "FP32", (SVC_STATE,), "STATE of the request that this one goes on from.", optional=True),
        *JOB_INPUTS,
    ),
    outputs=(
        TensorSpec("VOCALS", "FP32", (STEM_SAMPLE,), "Converted vocals, in all up to 511 samples shorter."),
        TensorSpec("STATE", "FP32", (SVC_STATE,), "If `more`."),
        REPORT,
    ),
    settings=(SEED, MORE),
    parameters={"max_jobs": "2", "max_queue": "16"},
    doc="Vocals into the same vocals in another voice.",
)
"""The converter's contract. No model of it is in the repository yet; a server whose repository has one makes covers."""

COVER = ModelSpec(
    "cover",
    "python",
    inputs=(*RECORDING_INPUTS, *VOICE_INPUTS, NO_VOCALS),
    outputs=(AUDIO, START, EVENT, REPORT),
    settings=(*COVER_SETTINGS, EVENTS),
    decoupled=True,
    parameters={"max_jobs": "4", "max_queue": "8"},
    doc="A recording with another singer, streamed while it is still being made.",
)

RENDER = ModelSpec(
    "render",
    "python",
    inputs=(
        *SONG.inputs, *COVER.inputs, TensorSpec("format", "BYTES", (1,), "wav, flac, mp3 or ogg.", optional=True),
    ),
    outputs=(TensorSpec("FILE", "BYTES", (1,), "The encoded file, at most 100 MB."), REPORT),
    settings=(*SONG_SETTINGS, *(setting for setting in COVER_SETTINGS if setting not in SONG_SETTINGS)),
    parameters={"max_jobs": "2", "max_queue": "8"},
    doc="A whole song or cover as one encoded file, for callers without streaming; a recording makes it a cover.",
)  # fmt: skip

MODELS: dict[str, ModelSpec] = {
    model.name: model
    for model in (
        SONG, COVER, RENDER, HEARTMULA, HEARTCODEC, HEARTCODEC_CONDITION, HEARTCODEC_FLOW, HEARTCODEC_DECODER,
        DEMUCS, HTDEMUCS, SPEAKER_ENCODER, SPEAKER_NETWORK, F0_NETWORK,
        CONTENT_ENCODER, SVC_REGULATOR, SVC_FLOW, SVC_STYLE, VOCODER,
    )
}  # fmt: skip
"""Every model with a committed, preset-independent config.pbtxt: all but `heartmula_step`, whose inputs depend on the
number of layers and whose config is therefore written by the export."""

CALLABLE = {**MODELS, SVC.name: SVC}
"""Every model that another may call."""

AUDIO_FORMATS = ("wav", "flac", "mp3", "ogg")
MAX_FILE_BYTES = 100_000_000
NO_VOCALS_MODES = ("error", "passthrough", "convert")

_OF_SVC = (CONTENT_ENCODER, SVC_REGULATOR, SVC_STYLE, VOCODER)
LOADED = tuple(model.name for model in MODELS.values() if not model.local and model not in _OF_SVC)
"""What a server loads by default; a local graph is opened by the model that owns its loop, and the converter's own
native graphs wait for the model `svc`, which is not there yet."""
