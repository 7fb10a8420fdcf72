"""The settings of all models: names, types, defaults and ranges."""

from __future__ import annotations

from heartvoice.contracts.constants import CODES_PER_UNIT, GREEDY_BELOW, MAX_DURATION_S, MAX_PROMPT_S, MIN_PROMPT_S
from heartvoice.contracts.types import Setting

DURATION_S = Setting("duration_s", "FP32", 30.0, 1.0, MAX_DURATION_S, "s", "Longest song; the LM may end it earlier.")
MIN_DURATION_S = Setting(
    "min_duration_s", "FP32", 0.0, 0.0, MAX_DURATION_S, "s", "The LM cannot end the song before this."
)
SEED = Setting("seed", "INT64", 0, 0, 2**63 - 1, "", "Same inputs and seed, same song.")
TEMPERATURE = Setting(
    "temperature", "FP32", 1.0, 0.0, 10.0, "",
    f"LM sampling temperature; 0, and all below {GREEDY_BELOW:g}, takes the likeliest code.",
)  # fmt: skip
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
PITCH_SHIFT = Setting(
    "pitch_shift", "FP32", 0.0, -24.0, 24.0, "semitones",
    "Moves the vocals, after `auto_pitch`; only whole octaves keep the band's key.",
)  # fmt: skip
PROMPT_S = Setting(
    "prompt_s", "FP32", 12.0, MIN_PROMPT_S, MAX_PROMPT_S, "s",
    "Stretch of the voice reference that every window hears: that with the most voice, and at 25 the first one.",
)  # fmt: skip
LIVE = Setting(
    "live", "BOOL", False,
    doc="Convert by the pitch and content so far, not of the whole recording: earlier first audio, other samples.",
)  # fmt: skip
REFERENCE_SEPARATE = Setting(
    "reference_separate", "BOOL", False, doc="Separate the voice of the reference from music behind it first."
)
STEMS = Setting("stems", "BOOL", False, doc="Also send the mix's instrumental and vocals.")
MORE = Setting("more", "BOOL", False, doc="Another request goes on where this one ends.")
FORGET = Setting("forget", "BOOL", False, doc="Forget what is kept of the voice, and do nothing else.")

SVC_SETTINGS = (SVC_STEPS, SVC_GUIDANCE, PITCH_SHIFT, PROMPT_S)
VOICE_SETTINGS = (VOCAL_GAIN_DB, *SVC_SETTINGS, LIVE, REFERENCE_SEPARATE)
"""Settings of covers and of songs with a voice."""
SONG_SETTINGS = (*LM_SETTINGS, CODEC_WINDOW, *CODEC_SETTINGS, RETURN_CODES, STEMS, *VOICE_SETTINGS)
COVER_SETTINGS = (SEED, STEMS, *VOICE_SETTINGS)
RENDER_SETTINGS = tuple(setting for setting in SONG_SETTINGS if setting not in (RETURN_CODES, STEMS))
"""Of a song and of a cover: those of a cover are among those of a song. One file holds neither codes nor stems."""
