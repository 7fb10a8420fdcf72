"""Evaluates one case with all judges and measures.

A recording is decoded and reduced to the judges' inputs, then freed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.audio.levels import SILENCE_DBFS, loudness_levels, voice_level
from heartvoice.audio.recordings import Recording
from heartvoice.contracts.constants import SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.errors import InvalidRequestError
from heartvoice.evaluation.cases import Case
from heartvoice.evaluation.dnsmos import Opinion
from heartvoice.evaluation.judges import LYRICS, Judges
from heartvoice.evaluation.lyrics import Lyrics
from heartvoice.evaluation.measures import (
    MIN_COMPARED_S,
    F0Comparison,
    compare_f0,
    log_mel_db,
    loudness_lufs,
    mel_distance_db,
    si_sdr_db,
    true_peak_dbtp,
)
from heartvoice.evaluation.similarity import Decision, Verdict, decide, meaning, verdict

Samples = NDArray[np.float32]
Step = Callable[[str], None]

N_STEPS = 7
"""Number of `Step` calls in one `evaluate_case`."""
SAME_LENGTH_S = 0.1
"""Largest difference in length of source and result; above it they are unrelated or not aligned."""
JUDGED_DBFS = -20.0
"""Level of the voice that all judges hear: DNSMOS rates the same singing 1.1 points lower if it is 6 dB softer."""
_STEMS = {"source": "vocals_before", "result": "vocals_after"}


@dataclass(frozen=True)
class Similarity:
    """Cosines to the reference by one judge, and the last one's meaning; None where unavailable."""

    before: float | None
    after: float | None
    verdict: Verdict | None = None
    meaning: str | None = None


@dataclass(frozen=True)
class Level:
    """Level of a whole recording; None for silence."""

    loudness_lufs: float | None
    true_peak_dbtp: float | None


@dataclass(frozen=True)
class Separation:
    """SI-SDR of a stem against the truth, and of the mixture, the score without any separation."""

    mixture_db: float | None
    stem_db: float | None


@dataclass
class Evaluation:
    """Measurements of one case; `skipped` gives the reason for each missing one."""

    name: str
    files: dict[str, str]
    random_weights: bool | None
    seconds: dict[str, float] = field(default_factory=dict)
    similarity: dict[str, Similarity] = field(default_factory=dict)
    same_voice: Decision | None = None
    """Whether the result has the reference's voice, by all calibrated judges; None without a reference."""
    f0: F0Comparison | None = None
    mel_distance_db: float | None = None
    dnsmos: dict[str, Opinion] = field(default_factory=dict)
    separation: dict[str, Separation] = field(default_factory=dict)
    level: dict[str, Level] = field(default_factory=dict)
    lyrics: Lyrics | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def inconclusive(self) -> tuple[str, ...]:
        """JSON keys of meaningless values: random weights made the evaluated audio."""
        if not self.random_weights:
            return ()
        if "source" not in self.files:
            return ("similarity.after", "same_voice", "dnsmos.after", "lyrics.after")
        separated = ("similarity.before", "dnsmos.before", "lyrics.before") if "vocals_before" in self.files else ()
        return (
            "similarity.after", "same_voice", "f0", "mel_distance_db", "dnsmos.after", "lyrics.after", "separation",
            *separated,
        )  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One side of a case, reduced to the inputs of judges and plots."""

    audio16: Samples
    """float32 [N], mono at 16 kHz."""
    mel_db: Samples | None = None
    """float32 [T, band]."""
    contour: Samples | None = None
    """F0 in Hz, 100 values a second, 0 = unvoiced."""


@dataclass(frozen=True)
class Evidence:
    """Data of the plots."""

    before: Side | None
    """None of a song, which has no source."""
    after: Side


def evaluate_case(case: Case, judges: Judges, step: Step = lambda _doing: None) -> tuple[Evaluation, Evidence]:
    """Measure one case.

    Args:
        case: its files.
        judges: the available judges.
        step: called with the name of each step, `N_STEPS` times.

    Raises:
        InvalidRequestError: a file is no sound, too long, or does not fit its role; the message names it.
        EngineError: a judge's network failed.
    """
    evaluation = Evaluation(case.name, {role: path.name for role, path in case.files.items()}, case.random_weights)
    evaluation.skipped |= judges.unavailable
    step("reading the reference")
    voice = _analyse(evaluation, "voice", case.read("voice"), None) if "voice" in case.files else None
    step("analysing the source")
    before = _side(evaluation, case, "source", judges) if "source" in case.files else None
    step("analysing the result")
    after = _side(evaluation, case, "result", judges)
    sides = {"after": after} if before is None else {"before": before, "after": after}
    step("comparing voices and pitch")
    if voice is not None:
        _compare_voices(evaluation, judges, voice, sides)
    if before is not None:
        _compare_sound(evaluation, before, after)
    step("rating with DNSMOS")
    if judges.dnsmos is not None:
        evaluation.dnsmos = {name: judges.dnsmos.rate(side.audio16) for name, side in sides.items()}
    step("hearing the words")
    _hear_words(evaluation, case.lyrics, judges, sides)
    step("comparing with the truth")
    for stem, truth, source in (
        ("vocals_before", "true_vocals", "vocals"), ("instrumental", "true_instrumental", "instrumental")
    ):  # fmt: skip
        _separate(evaluation, case, stem, truth, source)
    _note(evaluation)
    return evaluation, Evidence(before, after)


# ------------------------------------------------------------------------------------------------------------- analysis


def _analyse(evaluation: Evaluation, role: str, recording: Recording, judges: Judges | None) -> Side:
    """Reduce a recording to the judges' inputs at `JUDGED_DBFS`; pitch and mel spectrum need `judges`."""
    evaluation.seconds[role] = recording.duration_s
    evaluation.notes += [f"{evaluation.files[role]}: {warning}" for warning in recording.mono_warnings]
    mono, rate_hz = recording.mono(), recording.sample_rate_hz
    audio16 = resample(mono, rate_hz, SPEECH_RATE_HZ)
    if not len(audio16):
        raise InvalidRequestError(f"{evaluation.files[role]}: expected sound, got {recording.duration_s:.3g} s")
    offset, gain = to_judged_level(audio16)
    audio16, mono = ((audio - offset) * gain for audio in (audio16, mono))
    if judges is None:
        return Side(audio16)
    contour = judges.f0.track(audio16) if judges.f0 is not None else None
    return Side(audio16, log_mel_db(resample(mono, rate_hz, STEM_RATE_HZ)), contour)


def to_judged_level(audio16: Samples) -> tuple[np.float32, np.float32]:
    """Offset of [N] at 16 kHz, and the gain that brings its voice to `JUDGED_DBFS`; 1 for a silent recording."""
    level = voice_level(loudness_levels(audio16))
    gain_db = JUDGED_DBFS - level if level >= SILENCE_DBFS else 0.0
    return np.float32(audio16.mean(dtype=np.float64)), np.float32(10 ** (gain_db / 20))


def _side(evaluation: Evaluation, case: Case, role: str, judges: Judges) -> Side:
    """Measure the level of source or result and analyse it; its vocals replace it if given."""
    recording = case.read(role)
    evaluation.seconds[role] = recording.duration_s
    evaluation.level[role] = Level(
        loudness_lufs(recording.audio, recording.sample_rate_hz), true_peak_dbtp(recording.audio)
    )
    stem = _STEMS[role]
    if stem in case.files:
        role, recording = stem, case.read(stem)
    else:
        evaluation.notes.append(f"judged from {evaluation.files[role]} itself: with instruments in it, give {stem}.*")
    return _analyse(evaluation, role, recording, judges)


# ----------------------------------------------------------------------------------------------------------- comparison


def _compare_voices(evaluation: Evaluation, judges: Judges, voice: Side, sides: dict[str, Side]) -> None:
    for name, speaker in judges.speakers.items():
        vectors = {}
        for side, analysed in {"voice": voice, **sides}.items():
            try:
                vectors[side] = speaker.embed(analysed.audio16)
            except InvalidRequestError as error:  # silence, or too short
                evaluation.skipped[f"{name} {side}"] = str(error)
        if "voice" in vectors:
            seconds = min(len(voice.audio16), len(sides["after"].audio16)) / SPEECH_RATE_HZ
            evaluation.similarity[name] = _similarity(name, vectors, seconds)
    said = {name: each.verdict for name, each in evaluation.similarity.items() if each.verdict is not None}
    silent = {
        name: evaluation.skipped[f"{name} after"] for name in judges.speakers if f"{name} after" in evaluation.skipped
    }
    evaluation.same_voice = decide(said, judges.unavailable | silent)


def _compare_sound(evaluation: Evaluation, before: Side, after: Side) -> None:
    if before.contour is not None and after.contour is not None:
        evaluation.f0 = compare_f0(before.contour, after.contour)
        if evaluation.f0 is None:
            evaluation.skipped["f0"] = f"less than {MIN_COMPARED_S:g} s is voiced both before and after"
    if before.mel_db is not None and after.mel_db is not None:
        evaluation.mel_distance_db = mel_distance_db(before.mel_db, after.mel_db)


def _hear_words(evaluation: Evaluation, lyrics: str | None, judges: Judges, sides: dict[str, Side]) -> None:
    """Compute the lyric errors, if the case has lyrics that the judge can judge."""
    if lyrics is None or judges.lyrics is None:
        return
    try:
        evaluation.lyrics = judges.lyrics.judge(lyrics, {name: side.audio16 for name, side in sides.items()})
    except InvalidRequestError as error:
        evaluation.skipped[LYRICS] = f"not judged: {error}"


def _similarity(engine: str, vectors: dict[str, Samples], seconds: float) -> Similarity:
    """Compute the cosines of the vectors `before` and `after`, if present, to `voice`."""
    cosine = {side: float(vectors["voice"] @ vectors[side]) for side in ("before", "after") if side in vectors}
    after = cosine.get("after")
    if after is None:
        return Similarity(cosine.get("before"), None)
    return Similarity(cosine.get("before"), after, verdict(engine, after, seconds), meaning(engine, after, seconds))


def _separate(evaluation: Evaluation, case: Case, stem: str, truth: str, source: str) -> None:
    """Compute the SI-SDR of one stem over the shorter length, if stem and truth are given."""
    if "source" not in case.files:
        return
    missing = [f"{role}.*" for role in (stem, truth) if role not in case.files]
    if missing:
        evaluation.skipped[f"si_sdr {source}"] = f"no {', '.join(missing)}"
        return
    true = case.read(truth)
    ratios = {role: _ratio_db(evaluation, case, role, truth, true) for role in ("source", stem)}
    evaluation.separation[source] = Separation(ratios["source"], ratios[stem])
    if ratios[stem] is None:
        evaluation.skipped[f"si_sdr {source}"] = f"{case.files[stem].name} or {case.files[truth].name} is silent"


def _ratio_db(evaluation: Evaluation, case: Case, role: str, truth: str, true: Recording) -> float | None:
    recording = case.read(role)
    if abs(recording.duration_s - true.duration_s) > SAME_LENGTH_S:
        evaluation.notes.append(
            f"{evaluation.files[role]} lasts {recording.duration_s:.2f} s, {evaluation.files[truth]}"
            f" {true.duration_s:.2f} s: SI-SDR compares samples at equal times"
        )
    # The truth is resampled to the estimate's rate, as the estimate was before: the filter affects both equally.
    wanted = resample(true.stereo(), true.sample_rate_hz, recording.sample_rate_hz)
    n = min(recording.audio.shape[1], wanted.shape[1])
    return si_sdr_db(recording.stereo()[:, :n], wanted[:, :n])


def _note(evaluation: Evaluation) -> None:
    """Add the notes that a reader needs to interpret the numbers."""
    result_s = evaluation.seconds["result"]
    source_s = evaluation.seconds.get("source", result_s)
    if abs(source_s - result_s) > SAME_LENGTH_S:
        evaluation.notes.append(
            f"the source lasts {source_s:.2f} s, the result {result_s:.2f} s: pitch and mel distance compare frames"
            " at equal times"
        )
    if "source" in evaluation.files and ("vocals_before" in evaluation.files) != ("vocals_after" in evaluation.files):
        evaluation.notes.append("vocals alone are compared with a whole recording: pitch and mel distance mean little")
    if evaluation.random_weights:
        evaluation.notes.append(
            f"RANDOM WEIGHTS made the result: {', '.join(evaluation.inconclusive)} mean nothing. The judges' own"
            " weights are the published ones, so their values for other files are valid."
        )
    elif evaluation.random_weights is None:
        evaluation.notes.append("no report.json: if the weights were random, say so with --random-weights")
