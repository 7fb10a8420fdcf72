"""Keyword arguments of the clients' methods, each written once (PEP 692). Type checkers and editors read them.

Ranges and defaults of settings are in `heartvoice.contracts`. None takes the server's default.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from heartvoice.arrays import Array
from heartvoice.client.recordings import RecordingLike
from heartvoice.client.registered_voices import RegisteredVoice

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

__all__ = [
    "ConnectionArguments",
    "CoverArguments",
    "RenderArguments",
    "RenderCoverArguments",
    "SettingValue",
    "SongArguments",
    "Unpack",
]

SettingValue = float | int | bool | np.generic
"""A setting's value: a Python or numpy scalar."""
Pem = str | Path | bytes
"""A PEM file's path, or its contents."""
_Float = float | np.floating[Any] | np.integer[Any] | None
_Int = int | np.integer[Any] | None
_Bool = bool | np.bool_ | None


class ConnectionArguments(TypedDict, total=False):
    """Arguments that connect a client to its server; `Client` describes each."""

    tls: bool
    root_certificates: Pem | None
    private_key: Pem | None
    certificate_chain: Pem | None
    keepalive_s: float | None
    keepalive_timeout_s: float
    timeout_s: float | None
    stall_timeout_s: float
    retries: int
    metadata: Sequence[tuple[str, str]]
    token_file: str | Path | None
    registry: str | Path | None
    owner: str | None


class RenderCoverArguments(TypedDict, total=False):
    """Optional arguments of a cover's file. Songs have them, too: all but the seed only together with a voice.

    Attributes:
        no_vocals: what happens if nobody sings: "error", "passthrough" (the default: the report's `converted` is
            False) or "convert".
        auto_pitch: how the singing moves to the voice's pitch: "octave" (the default: by whole octaves, in the band's
            key), "semitone" (into another key), "exact" (out of tune with the band) or "off".
        seed: same inputs and seed, same samples.
        reference_check: what a reference with a second voice or music in it does: "warn" (the default) tells the
            report, "strict" refuses. Both refuse one in which nobody speaks or sings; "off" checks nothing.
        reference_separate: separate the voice of the reference from music behind it first.
        vocal_gain_db: louder or softer vocals in the mix.
        svc_steps: Euler steps of the converter's flow.
        svc_guidance: guidance of the converter's flow; 0 is none.
        pitch_shift: semitones, added after `auto_pitch`; only whole octaves keep the band's key.
        prompt_s: seconds of the voice reference that condition every window.
        live: convert without waiting for the whole recording: earlier first audio, other samples.
    """

    no_vocals: str | None
    auto_pitch: str | None
    reference_check: str | None
    seed: _Int
    vocal_gain_db: _Float
    svc_steps: _Int
    svc_guidance: _Float
    pitch_shift: _Float
    prompt_s: _Float
    live: _Bool
    reference_separate: _Bool


class CoverArguments(RenderCoverArguments, total=False):
    """Optional arguments of a cover.

    Attributes:
        stems: also send the mix's instrumental and vocals.
    """

    stems: _Bool


class RenderArguments(RenderCoverArguments, total=False):
    """Optional arguments of a song's file.

    Attributes:
        style: float32 [D], HeartMuLa's style slot.
        codes: int32 [8, T] of a finished song, to be decoded again; with a voice, to be sung by it.
        unknown_words: what becomes of words that the model does not know, if its vocabulary is closed: "nearest" (the
            default: the word that sounds most alike is sung), "skip" (they are left out) or "refuse". The report's
            `unknown_words` names them.
        voice: 3 to 60 s of the voice that shall sing, speaking or singing; or the id of a registered voice, voice_...;
            None keeps the voice of the LM.
        consent: who consents to the use of the voice, and how, in 1 to 500 characters. Kept in the report. A
            registered voice has a record in its place.
        duration_s: longest song; the LM may end it earlier.
        min_duration_s: the LM cannot end the song before this.
        temperature: of the LM's sampling; 0 takes the likeliest code.
        top_k: the LM samples among so many likeliest codes.
        cfg_scale: the LM's guidance by the prompt; 1 is none.
        codec_window: frames of one codec window; fewer give earlier first audio.
        codec_steps: Euler steps of the codec's flow.
        codec_guidance: guidance of the codec's flow; 1 is none.
    """

    style: Array | None
    codes: Array | None
    unknown_words: str | None
    voice: RecordingLike | RegisteredVoice | None
    consent: str
    duration_s: _Float
    min_duration_s: _Float
    temperature: _Float
    top_k: _Int
    cfg_scale: _Float
    codec_window: _Int
    codec_steps: _Int
    codec_guidance: _Float


class SongArguments(RenderArguments, total=False):
    """Optional arguments of a song.

    Attributes:
        return_codes: also send the LM's codes.
        stems: also send the mix's instrumental and vocals; only with a voice.
    """

    return_codes: _Bool
    stems: _Bool
