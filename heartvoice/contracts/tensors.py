"""The axes and tensors that several models share."""

from __future__ import annotations

from heartvoice.contracts.constants import (
    AUTO_PITCH_HELP,
    CODES_PER_UNIT,
    DECODER_HISTORY,
    DEFAULT_AUTO_PITCH,
    FRAME_HOP,
    MAX_CHANNELS,
    MAX_CONSENT_CHARS,
    MAX_FRAMES,
    MAX_INPUT_RATE_HZ,
    MAX_RECORDING_S,
    MAX_RESPONSE_SAMPLES,
    N_CODEBOOKS,
    SAMPLE_RATE_HZ,
    STEM_RATE_HZ,
    UNKNOWN_WORDS_HELP,
)
from heartvoice.contracts.types import Axis, TensorSpec

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
VOICE_SAMPLE = Axis("voice_sample", 1, 12 * SAMPLE_RATE_HZ, int(MAX_RECORDING_S) * MAX_INPUT_RATE_HZ)
STEM_SAMPLE = Axis("stem_sample", 1, 257_985, int(MAX_RECORDING_S) * STEM_RATE_HZ)
SOURCE = Axis("source", 1, 4, 6)
SEGMENT = Axis("segment_sample", 1, 343_980, 343_980)
SPECTRUM_BIN = Axis("spectrum_bin", 1, 2048, 2048)
SPECTRUM_FRAME = Axis("spectrum_frame", 1, 336, 336)
MAGNITUDE_FRAME = Axis("magnitude_frame", 64, 512, 512)
MAGNITUDE_BIN = Axis("magnitude_bin", 64, 1024, 2048)
STEM = Axis("stem", 1, 1, 8)
CHUNK_FRAME = Axis("chunk_frame", 1, 801, 4096)
CHUNK_VALUE = Axis("chunk_value", 1, 4100, 8196)
SPEAKER_FRAME = Axis("speaker_frame", 1, 160, 160_000)
"""Filter bank frames, 100 a second, up to `MAX_BANK_FRAMES`; or samples at 16 kHz."""
MAX_BANK_FRAMES = 6000
SPEAKER_BAND = Axis("speaker_band", 1, 40, 80)
EMBEDDING = Axis("embedding", 192, 256, 512)
F0_INPUT = Axis("f0_input", 1, 3200, 485_376)
F0_FEATURE = Axis("f0_feature", 1, 128, 128)
F0_OUTPUT = Axis("f0_output", 1, 3200, 3200)
F0_BIN = Axis("f0_bin", 2, 360, 360)
SVC_STATE = Axis("svc_state", 1, 1, 10_000_000)

# -------------------------------------------------------------------------------------------------- shared tensors

LYRICS = TensorSpec("lyrics", "BYTES", (1,), "UTF-8 text; section marks such as [verse] are plain text.", optional=True)
TAGS = TensorSpec(
    "tags", "BYTES", (1,), "UTF-8 text: genre, mood, instruments, with or without blanks after the commas.",
    optional=True,
)  # fmt: skip
UNKNOWN_WORDS = TensorSpec("unknown_words", "BYTES", (1,), UNKNOWN_WORDS_HELP, optional=True)
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
FILE_IN = TensorSpec("file", "BYTES", (1,), "An encoded recording: WAV, AIFF, FLAC, OGG or MP3.", optional=True)
AUDIO_IN = TensorSpec("audio", "FP32", (CHANNEL, INPUT_SAMPLE), "Samples, in place of `file`.", optional=True)
SAMPLE_RATE = TensorSpec("sample_rate", "INT64", (1,), "Of `audio`, in Hz.", optional=True)
RECORDING_INPUTS = (FILE_IN, AUDIO_IN, SAMPLE_RATE)
VOICE = TensorSpec(
    "voice", "BYTES", (1,), "An encoded voice reference of 3 s or more; at most 60 s of it are used.", optional=True
)
VOICE_AUDIO = TensorSpec("voice_audio", "FP32", (CHANNEL, VOICE_SAMPLE), "Samples, in place of `voice`.", optional=True)
VOICE_SAMPLE_RATE = TensorSpec("voice_sample_rate", "INT64", (1,), "Of `voice_audio`, in Hz.", optional=True)
VOICE_CONSENT = TensorSpec(
    "voice_consent", "BYTES", (1,),
    f"Who consents to the use of the voice, and how; at most {MAX_CONSENT_CHARS} characters. Required with a voice.",
    optional=True,
)  # fmt: skip
VOICE_INPUTS = (VOICE, VOICE_AUDIO, VOICE_SAMPLE_RATE, VOICE_CONSENT)
VOICE_ID = TensorSpec(
    "voice_id", "BYTES", (1,), "A registered voice of the caller's, in place of a reference and its consent.",
    optional=True,
)  # fmt: skip
"""A gateway's input alone: it sends the server the voice's reference, and the id of its consent record."""
CALLER = TensorSpec(
    "caller", "BYTES", (1,), "Who asks, by a gateway's word. It changes the watermark's payload, and nothing else.",
    optional=True,
)  # fmt: skip
"""The gateway's own input: it refuses what callers send under this name."""
NO_VOCALS = TensorSpec(
    "no_vocals", "BYTES", (1,), "What a recording without vocals becomes: error, passthrough or convert.", optional=True
)
AUTO_PITCH = TensorSpec(
    "auto_pitch", "BYTES", (1,),
    f"{AUTO_PITCH_HELP} Default: {DEFAULT_AUTO_PITCH}.", optional=True,
)  # fmt: skip
REFERENCE_CHECK = TensorSpec(
    "reference_check", "BYTES", (1,),
    "What a reference with a second voice or music in it does: warn tells the report, strict refuses. Both refuse one"
    " in which nobody speaks or sings, and one that carries the server's watermark; off refuses nothing. Default: warn,"
    " of `speaker_encoder` off.",
    optional=True,
)  # fmt: skip
CONVERSION_INPUTS = (*VOICE_INPUTS, REFERENCE_CHECK, AUTO_PITCH, NO_VOCALS)
"""Inputs of covers and of songs with a voice."""
MIX_STEMS = TensorSpec(
    "STEMS", "FP32", (2, 2, SAMPLE), "Instrumental and vocals, which add up to the mix before its watermark."
)
