"""Plots of one case as PNG files: pitch contours, mel spectra, similarity bars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from heartvoice.audio.dsp import hz_to_mel
from heartvoice.audio.encode import replacing
from heartvoice.config.svc import SVC_HOP
from heartvoice.contracts.constants import F0_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.evaluation.harness import Evaluation, Evidence, Samples, Side
from heartvoice.evaluation.measures import MEL_RANGE_DB, N_MELS, cents_between
from heartvoice.stages.calibration import CALIBRATIONS, TITLES
from heartvoice.stages.f0 import VOICED_ABOVE_HZ

SHOWN_S = 20.0
"""Length of the plotted stretch; of a longer recording it is the one with the most singing."""
_BEFORE, _AFTER, _FAINT = "#8a6d3b", "#1f77b4", "#d9d9d9"
_DPI = 120
_IN_TUNE_CENTS = 20
_ROOM = 3.0
"""Margin in semitones above and below the melody."""
_NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_MEL_RATE_HZ = STEM_RATE_HZ / SVC_HOP
_MEL_TICKS_HZ = (100, 500, 1000, 2000, 4000, 8000, 16_000)


def draw(evaluation: Evaluation, evidence: Evidence, folder: Path) -> list[Path]:
    """Write `f0.png`, `mels.png` and `similarity.png`, as far as their data exist.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Figure | None] = {}
    if evidence.before is not None:
        start_s, end_s = shown(evidence.before, evidence.after)
        drawn["f0.png"] = _f0(evaluation, evidence.before, evidence.after, start_s, end_s)
        drawn["mels.png"] = _mels(evaluation, evidence.before, evidence.after, start_s, end_s)
    drawn["similarity.png"] = _similarity(evaluation)
    paths = []
    for name, figure in drawn.items():
        if figure is not None:
            save(figure, folder / name)
            paths.append(folder / name)
    return paths


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, in place of an older one.

    Raises:
        OSError: it cannot be written.
    """
    FigureCanvasAgg(figure)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=_DPI)


def shown(one: Side, other: Side) -> tuple[float, float]:
    """Return start and end in seconds of the `SHOWN_S` with the most frames voiced in both."""
    before, after = one.contour, other.contour
    total_s = max(len(side.audio16) for side in (one, other)) / SPEECH_RATE_HZ
    if total_s <= SHOWN_S or before is None or after is None:
        return 0.0, min(total_s, SHOWN_S)
    n = min(len(before), len(after))
    voiced = np.isfinite(cents_between(before[:n], after[:n]))
    length = min(n, round(SHOWN_S * F0_RATE_HZ))
    counts = np.convolve(voiced, np.ones(length), "valid")
    start_s = int(counts.argmax()) / F0_RATE_HZ
    return start_s, start_s + SHOWN_S


# --------------------------------------------------------------------------------------------------------------- pitch


def _f0(evaluation: Evaluation, one: Side, other: Side, start_s: float, end_s: float) -> Figure | None:
    before, after = one.contour, other.contour
    if before is None or after is None:
        return None
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    for contour, colour, label, width in ((before, _BEFORE, "before", 3.0), (after, _AFTER, "after", 1.2)):
        pitch = np.where(contour > VOICED_ABOVE_HZ, contour, np.nan)
        top.plot(np.arange(len(pitch)) / F0_RATE_HZ, _semitones(pitch), color=colour, lw=width, label=label)
    top.set(ylabel="F0 [note, Hz]", title=f"{evaluation.name}: pitch before and after")
    part = slice(round(start_s * F0_RATE_HZ), round(end_s * F0_RATE_HZ) + 1)
    shown = np.concatenate([before[part], after[part]])
    if (shown > VOICED_ABOVE_HZ).any():  # percentiles: octave errors of a few frames do not set the scale
        lowest, highest = np.percentile(_semitones(shown[shown > VOICED_ABOVE_HZ]), (1, 99))
        top.set_ylim(lowest - _ROOM, highest + _ROOM)
    top.yaxis.set_major_locator(MaxNLocator(10, integer=True))
    top.yaxis.set_major_formatter(FuncFormatter(lambda note, _: _note_name(note)))
    top.legend(loc="upper right", frameon=False, ncols=2)
    n = min(len(before), len(after))
    cents = cents_between(before[:n], after[:n])
    shift = evaluation.f0.shift_semitones * 100 if evaluation.f0 else 0.0
    bottom.plot(np.arange(n) / F0_RATE_HZ, cents - shift, color=_AFTER, lw=1.0)
    bottom.axhspan(-_IN_TUNE_CENTS, _IN_TUNE_CENTS, color=_FAINT, alpha=0.6, lw=0)
    said = f"after − before, less the shift of {shift / 100:+.2f} semitones; grey: ±{_IN_TUNE_CENTS} cents"
    bottom.set(ylabel="cents", xlabel="time [s]", ylim=(-100, 100), xlim=(start_s, end_s), title=said)
    bottom.title.set_fontsize("small")
    for axes in (top, bottom):
        _tidy(axes)
    return figure


def _semitones(hz: Samples) -> Samples:
    """Convert Hz to MIDI note numbers."""
    notes: Samples = 69.0 + 12.0 * np.log2(hz / 440.0)
    return notes


def _note_name(note: float) -> str:
    whole = round(note)
    return f"{_NOTES[whole % 12]}{whole // 12 - 1}  {440.0 * 2.0 ** ((whole - 69) / 12.0):.0f}"


# ---------------------------------------------------------------------------------------------------------------- mels


def _mels(evaluation: Evaluation, one: Side, other: Side, start_s: float, end_s: float) -> Figure | None:
    if one.mel_db is None or other.mel_db is None:
        return None
    part = slice(int(start_s * _MEL_RATE_HZ), int(end_s * _MEL_RATE_HZ) + 1)
    sides = {"before": one.mel_db[part], "after": other.mel_db[part]}
    return mel_spectra(sides, f"{evaluation.name}: mel spectra", start_s)


def mel_spectra(sides: Mapping[str, Samples], title: str, start_s: float = 0.0) -> Figure:
    """Draw spectra of `log_mel_db` side by side, by their titles, in one range of levels."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    places = figure.subplots(1, len(sides), sharey=True)
    loudest = max(float(mel.max(initial=-MEL_RANGE_DB)) for mel in sides.values())
    for axes, (name, mel) in zip(places, sides.items(), strict=True):
        image = axes.imshow(
            mel.T, origin="lower", aspect="auto", cmap="magma", interpolation="nearest", vmin=loudest - MEL_RANGE_DB,
            vmax=loudest, extent=(start_s, start_s + len(mel) / _MEL_RATE_HZ, 0, N_MELS),
        )  # fmt: skip
        axes.set(title=name, xlabel="time [s]")
    places[0].set(ylabel="frequency [kHz], mel scale")
    highest = hz_to_mel(np.array([STEM_RATE_HZ / 2]), "slaney")[0]
    ticks = hz_to_mel(np.array(_MEL_TICKS_HZ, float), "slaney") / highest * (N_MELS + 1) - 0.5
    places[0].set_yticks(ticks, [f"{hz / 1000:g}" for hz in _MEL_TICKS_HZ])
    figure.colorbar(image, ax=places, label="mel magnitude [dB]", pad=0.01)
    figure.suptitle(title)
    return figure


# ---------------------------------------------------------------------------------------------------------- similarity


def _similarity(evaluation: Evaluation) -> Figure | None:
    if not evaluation.similarity:
        return None
    figure = Figure(figsize=(2.5 + 2.2 * len(evaluation.similarity), 4.5), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(evaluation.similarity))
    for offset, colour, side in ((-0.2, _BEFORE, "before"), (0.2, _AFTER, "after")):
        cosines = [getattr(cosine, side) for cosine in evaluation.similarity.values()]
        heights = np.array([np.nan if value is None else value for value in cosines], float)
        axes.bar_label(axes.bar(places + offset, heights, 0.36, color=colour, label=side), fmt="%.2f", fontsize="small")
    known = {place: CALIBRATIONS[name] for place, name in enumerate(evaluation.similarity) if name in CALIBRATIONS}
    same = [calibration.same_voice(evaluation.seconds["voice"]).median for calibration in known.values()]
    different = [calibration.highest_different for calibration in known.values()]
    left, right = (np.array(list(known), float) + side for side in (-0.45, 0.45))
    axes.hlines(same, left, right, "black", "solid", lw=1, label="same voice, median")
    axes.hlines(different, left, right, "black", "dashed", lw=1, label="different voices, maximum")
    axes.set_xticks(places, [TITLES[name] for name in evaluation.similarity])
    lowest = min((v for c in evaluation.similarity.values() for v in (c.before, c.after) if v is not None), default=0.0)
    axes.set(ylabel="cosine to the reference", ylim=(min(0.0, lowest - 0.05), 1.0), title=evaluation.name)
    axes.axhline(0.0, color="black", lw=0.8)
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _tidy(axes)
    return figure


def _tidy(axes: Axes) -> None:
    axes.grid(axis="y", color=_FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
