"""The gate's measures: which there are, which way is worse, and how one song or cover is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from heartvoice.audio.dsp import Samples, resample
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.messages import Audio
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.evaluation.gate.signals import seam_db, seams, worst_second_db
from heartvoice.evaluation.gate.world import CodeFigures, CoverSounds, MadeCover, MadeSong, Oracle
from heartvoice.evaluation.harness import to_judged_level
from heartvoice.evaluation.judges import RESEMBLYZER, Judges
from heartvoice.evaluation.measures import (
    cents_between,
    log_mel_db,
    loudness_lufs,
    mel_distance_db,
    pitch_kept,
    si_sdr_db,
    true_peak_dbtp,
)

Values = dict[str, float | None]
"""What was measured of one song or cover, by `Measure.key`; None where a measure does not apply."""
_LEAST_GAIN = 0.05
"""Voices that are more alike than this, as a difference of cosines, have no likeness to gain."""


@dataclass(frozen=True)
class Measure:
    """One measure."""

    key: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    least: float
    """Least tolerance: what other processors' rounding may change."""
    gather: Literal["mean", "worst"] = "mean"
    """Over the list."""
    form: str = ".2f"


SONG, COVER = "song ", "cover "
MEASURES: tuple[Measure, ...] = (
    Measure("song si_sdr", "SI-SDR", "dB", "higher", 0.2),
    Measure("song worst_second", "SI-SDR of the worst second", "dB", "higher", 1.0, "worst"),
    Measure("song seam", "error at seams over elsewhere", "dB", "lower", 1.0, "worst"),
    Measure("song mel", "mel distance", "dB", "lower", 0.1),
    Measure("song in_tune", "F0 within 50 cents", "of frames", "higher", 0.005, form=".3f"),
    Measure("song f0", "F0 off the score", "cents", "lower", 1.0, form=".1f"),
    Measure("song voice_words", "lyric error, voice alone", "of words", "lower", 0.02, form=".3f"),
    Measure("song words", "lyric error, separated", "of words", "lower", 0.02, form=".3f"),
    Measure("song codes_words", "word error of the codes", "of words", "lower", 0.01, form=".3f"),
    Measure("song tags", "tags obeyed", "of tags", "higher", 0.01, form=".3f"),
    Measure("song rules", "key, chords, bass, melody kept", "share", "higher", 0.01, form=".3f"),
    Measure("song vocals", "SI-SDR of the separated vocals", "dB", "higher", 0.2),
    Measure("song loudness", "loudness off the true one", "LU", "lower", 0.2),
    Measure("song peak", "true peak off the true one", "dB", "lower", 0.3),
    Measure("song dnsmos_signal", "DNSMOS of the voice, signal", "1 to 5", "higher", 0.05),
    Measure("song dnsmos_overall", "DNSMOS of the voice, overall", "1 to 5", "higher", 0.05),
    Measure("song streamed", "streamed against whole", "dB", "higher", 3.0, "worst", ".1f"),
    Measure("cover likeness", "likeness gained of what is to gain", "share", "higher", 0.03, form=".3f"),
    Measure("cover f0", "F0 off the recording's", "cents", "lower", 2.0, form=".1f"),
    Measure("cover words", "lyric error of the vocals", "of words", "lower", 0.02, form=".3f"),
    Measure("cover mel", "mel distance of the vocals", "dB", "lower", 0.1),
    Measure("cover instrumental", "SI-SDR of the instrumental", "dB", "higher", 0.2),
    Measure("cover stems", "SI-SDR of the mix to its stems", "dB", "higher", 1.0),
    Measure("cover loudness", "loudness off the recording's", "LU", "lower", 0.2),
    Measure("cover peak", "true peak off the recording's", "dB", "lower", 0.3),
    Measure("cover dnsmos_overall", "DNSMOS of the vocals, overall", "1 to 5", "higher", 0.05),
    Measure("cover streamed", "streamed against whole", "dB", "higher", 3.0, "worst", ".1f"),
)


def gathered(measure: Measure, values: Sequence[float]) -> float:
    """Return a measure's number over the list, of at least one value."""
    if measure.gather == "mean":
        return float(np.mean(values))
    return min(values) if measure.better == "higher" else max(values)


# ---------------------------------------------------------------------------------------------------------------- songs


@dataclass(frozen=True, eq=False)
class SongTaken:
    """All that is measured of one song."""

    made: MadeSong
    voice: Audio
    """The codes' voice alone, decoded by the system: float32 [2, N]."""
    oracle: Oracle
    """Of the codes that were made."""
    figures: CodeFigures
    lyrics: str
    window: int
    """Frames of a codec window."""


def measure_song(song: SongTaken, judges: Judges) -> Values:
    """Measure a song.

    Raises:
        EngineError: the audio is not as long as its codes say.
    """
    made, oracle, audio = song.made, song.oracle, song.made.audio
    _check_lengths({"audio": audio, "voice alone": song.voice}, oracle.mix.shape[1])
    voice16, true16 = _speech(song.voice), _speech(oracle.voice)
    in_tune, cents = _pitch(judges, oracle, true16, voice16)
    heard = {"voice": voice16} | ({} if made.vocals is None else {"separated": _speech(made.vocals)})
    words = _words(judges, song.lyrics, heard)
    values: Values = {
        "si_sdr": si_sdr_db(audio, oracle.mix),
        "worst_second": worst_second_db(audio, oracle.mix),
        "seam": seam_db(audio, oracle.mix, seams(made.codes.shape[1], song.window)),
        "mel": _mel_db(audio, oracle.mix),
        "in_tune": in_tune,
        "f0": cents,
        "voice_words": words.get("voice"),
        "words": words.get("separated"),
        "codes_words": song.figures.word_error,
        "tags": song.figures.tags,
        "rules": song.figures.consistent,
        "vocals": None if made.vocals is None else si_sdr_db(made.vocals, oracle.voice),
        "streamed": None if made.whole is None else si_sdr_db(audio, made.whole),
        **_levels(audio, oracle.mix),
    }
    values |= _opinion(judges, voice16, ("signal", "overall"))
    return {SONG + name: value for name, value in values.items()}


def _check_lengths(sounds: Mapping[str, Audio], expected: int) -> None:
    for name, audio in sounds.items():
        if audio.shape[1] != expected:
            raise EngineError(f"{name}: expected {expected} samples for its codes, got {audio.shape[1]}")


def _pitch(judges: Judges, oracle: Oracle, true16: Samples, voice16: Samples) -> tuple[float | None, float | None]:
    if judges.f0 is None:
        return None, None
    contours = [judges.f0.track(audio) for audio in (true16, voice16)]
    wanted = np.zeros(len(contours[0]))
    wanted[: len(oracle.pitch_hz)] = oracle.pitch_hz[: len(wanted)]
    return pitch_kept(wanted, *contours)


# --------------------------------------------------------------------------------------------------------------- covers


@dataclass(frozen=True, eq=False)
class CoverTaken:
    """All that is measured of one cover."""

    made: MadeCover
    sounds: CoverSounds
    lyrics: str


def measure_cover(cover: CoverTaken, judges: Judges) -> Values:
    """Measure a cover.

    Raises:
        EngineError: the audio is not as long as the recording.
    """
    made, sounds, recording = cover.made, cover.sounds, cover.sounds.recording
    _check_lengths({"audio": made.audio, "vocals": made.vocals}, recording.shape[1])
    before16, after16 = _speech(sounds.vocals), _speech(made.vocals)
    values: Values = {
        "likeness": likeness(judges, sounds, before16, after16),
        "f0": _shifted_cents(judges, before16, after16, made.shift_semitones),
        "words": _words(judges, cover.lyrics, {"vocals": after16}).get("vocals"),
        "mel": _mel_db(made.vocals, sounds.wanted) if sounds.same_pitches else None,
        "instrumental": si_sdr_db(made.instrumental, sounds.instrumental),
        "stems": si_sdr_db(made.audio, made.vocals + made.instrumental),
        "streamed": si_sdr_db(made.audio, made.whole),
        **_levels(made.audio, recording),
    }
    values |= _opinion(judges, after16, ("overall",))
    return {COVER + name: value for name, value in values.items()}


def likeness(judges: Judges, sounds: CoverSounds, before16: Samples, after16: Samples) -> float | None:
    """Return what a cover gains of the likeness to its reference that there is to gain, by Resemblyzer.

    (after - before) / (self - before) of cosines to the reference; `self` is the same song by the reference's singer:
    0 is the old singer, 1 the new one. None where both are about as like it, or one is silent.
    """
    judge = judges.speakers.get(RESEMBLYZER)
    if judge is None:
        return None
    try:
        reference = judge.embed(_speech(np.stack([sounds.reference] * 2)))
        before, after, own = (
            float(reference @ judge.embed(audio)) for audio in (before16, after16, _speech(sounds.wanted))
        )
    except InvalidRequestError:  # silence
        return None
    return (after - before) / (own - before) if own - before > _LEAST_GAIN else None


def _shifted_cents(judges: Judges, before16: Samples, after16: Samples, shift_semitones: float) -> float | None:
    """Return the median distance from the recording's pitch, moved as the converter says; None without singing."""
    if judges.f0 is None:
        return None
    before, after = (judges.f0.track(audio) for audio in (before16, after16))
    n = min(len(before), len(after))
    cents = cents_between(before[:n], after[:n]) - 100.0 * shift_semitones
    voiced = np.isfinite(cents)
    return float(np.median(np.abs(cents[voiced]))) if voiced.any() else None


# --------------------------------------------------------------------------------------------------------------- shared


def _speech(audio: Audio) -> Samples:
    """Return [2, N] at 48 kHz as all judges hear it: mono at 16 kHz, the voice at the judged level."""
    audio16 = resample(np.ascontiguousarray(audio.mean(axis=0)), SAMPLE_RATE_HZ, SPEECH_RATE_HZ)
    offset, gain = to_judged_level(audio16)
    heard: Samples = (audio16 - offset) * gain
    return heard


def _mel_db(audio: Audio, truth: Audio) -> float | None:
    one, other = (
        log_mel_db(resample(np.ascontiguousarray(each.mean(axis=0)), SAMPLE_RATE_HZ, STEM_RATE_HZ))
        for each in (audio, truth)
    )
    return mel_distance_db(one, other)


def _levels(audio: Audio, truth: Audio) -> Values:
    """Return the distances of loudness and true peak; None where either is silent."""
    found: Values = {}
    for name, (one, other) in {
        "loudness": (loudness_lufs(audio, SAMPLE_RATE_HZ), loudness_lufs(truth, SAMPLE_RATE_HZ)),
        "peak": (true_peak_dbtp(audio), true_peak_dbtp(truth)),
    }.items():
        found[name] = None if one is None or other is None else abs(one - other)
    return found


def _words(judges: Judges, lyrics: str, heard: Mapping[str, Samples]) -> dict[str, float]:
    if judges.lyrics is None:
        return {}
    return {name: made.error for name, made in judges.lyrics.judge(lyrics, dict(heard)).errors.items()}


def _opinion(judges: Judges, voice16: Samples, parts: Sequence[str]) -> Values:
    if judges.dnsmos is None:
        return {}
    opinion = judges.dnsmos.rate(voice16)
    return {f"dnsmos_{part}": getattr(opinion, part) for part in parts}
