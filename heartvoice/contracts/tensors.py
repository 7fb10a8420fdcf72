"""What the contracts of several models are written with: axes, settings, tensors."""

from __future__ import annotations

from heartvoice.contracts.constants import (
    CODES_PER_UNIT,
    DECODER_HISTORY,
    FRAME_HOP,
    MAX_CHANNELS,
    MAX_CONSENT_CHARS,
    MAX_DURATION_S,
    MAX_FRAMES,
    MAX_INPUT_RATE_HZ,
    MAX_PROMPT_S,
    MAX_RECORDING_S,
    MAX_RESPONSE_SAMPLES,
    MAX_VOICE_S,
    MIN_PROMPT_S,
    N_CODEBOOKS,
    SAMPLE_RATE_HZ,
    STEM_RATE_HZ,
)
from heartvoice.contracts.types import Axis, Setting, TensorSpec

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

VOCAL_GAIN_DB = Setting("vocal_gain_db", "FP32", 0.0, -24.0, 12.0, "dB", "Louder or softer vocals in the mix.")
SVC_STEPS = Setting("svc_steps", "INT64", 25, 1, 100, "", "Euler steps of the converter's flow.")
SVC_GUIDANCE = Setting(
    "svc_guidance", "FP32", 0.7, 0.0, 3.0, "", "Guidance of the converter's flow; 0 is none, and halves its work."
)
PITCH_SHIFT = Setting("pitch_shift", "FP32", 0.0, -24.0, 24.0, "semitones", "Moves the vocals, after `auto_pitch`.")
PROMPT_S = Setting(
    "prompt_s", "FP32", 12.0, MIN_PROMPT_S, MAX_PROMPT_S, "s",
    "Stretch of the voice reference that every window hears: that with the most voice, and at 25 the first one.",
)  # fmt: skip
LIVE = Setting(
    "live", "BOOL", False,
    doc="Convert by the pitch and content so far, not of the whole recording: earlier first audio, other samples.",
)  # fmt: skip
STEMS = Setting("stems", "BOOL", False, doc="Also send the mix's instrumental and vocals.")
MORE = Setting("more", "BOOL", False, doc="Another request goes on where this one ends.")

SVC_SETTINGS = (SVC_STEPS, SVC_GUIDANCE, PITCH_SHIFT, PROMPT_S)
VOICE_SETTINGS = (VOCAL_GAIN_DB, *SVC_SETTINGS, LIVE)
"""What only a song with a voice, or a cover, has."""
SONG_SETTINGS = (*LM_SETTINGS, CODEC_WINDOW, *CODEC_SETTINGS, RETURN_CODES, STEMS, *VOICE_SETTINGS)
COVER_SETTINGS = (SEED, STEMS, *VOICE_SETTINGS)
RENDER_SETTINGS = tuple(setting for setting in SONG_SETTINGS if setting not in (RETURN_CODES, STEMS))
"""Of a song and of a cover: those of a cover are among those of a song. One file holds neither codes nor stems."""

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
AUTO_PITCH = TensorSpec(
    "auto_pitch", "BYTES", (1,),
    "How the vocals' median pitch moves to the voice's: off, exact, semitone (default) or octave.", optional=True,
)  # fmt: skip
CONVERSION_INPUTS = (*VOICE_INPUTS, AUTO_PITCH, NO_VOCALS)
"""What a song with a voice, and a cover, have."""
MIX_STEMS = TensorSpec("STEMS", "FP32", (2, 2, SAMPLE), "Instrumental and vocals, which add up to the mix.")
