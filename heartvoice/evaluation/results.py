"""Measurements as JSON and as tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from heartvoice import __version__
from heartvoice.evaluation.harness import Evaluation, Level
from heartvoice.evaluation.lyrics import Lyrics
from heartvoice.stages.calibration import TITLES

_DIGITS = 4
_DAGGER = "†"
_SHOWN_CHARS = 300
"""Characters of a transcript in the table's notes; the JSON has all."""
Number = float | None


@dataclass(frozen=True)
class Row:
    """One table row: a measure before and after, or one number that compares both."""

    measure: str
    key: str
    """Key in the JSON."""
    before: Number = None
    after: Number = None
    change: Number = None
    unit: str = ""
    form: str = ".2f"


def rows(evaluation: Evaluation) -> Iterator[Row]:
    """Yield the rows of one case; missing measures have none."""
    for name, cosine in evaluation.similarity.items():
        title = f"similarity, {TITLES[name]}"
        yield _pair(title, "similarity", cosine.before, cosine.after, "cosine", ".3f")
    if (f0 := evaluation.f0) is not None:
        yield Row("F0: shift", "f0", change=f0.shift_semitones, unit="semitones", form="+.2f")
        yield Row("F0: correlation of log F0", "f0", change=f0.correlation, form=".4f")
        yield Row("F0: off the shifted source, median", "f0", change=f0.median_cents, unit="cents", form=".1f")
        yield Row("F0: likewise, 90th percentile", "f0", change=f0.p90_cents, unit="cents", form=".1f")
        yield Row("F0: voicing agreement", "f0", change=f0.voicing_agreement, unit="of frames", form=".1%")
    yield Row("mel distance", "mel_distance_db", change=evaluation.mel_distance_db, unit="dB")
    if evaluation.dnsmos:
        before, after = evaluation.dnsmos.get("before"), evaluation.dnsmos["after"]
        for part in ("signal", "background", "overall"):
            yield _pair(f"DNSMOS, {part}", "dnsmos", getattr(before, part, None), getattr(after, part), "1 to 5")
    if (lyrics := evaluation.lyrics) is not None:
        sung, wrong = (lyrics.errors[side].error if side in lyrics.errors else None for side in ("before", "after"))
        yield _pair("lyric error", "lyrics", sung, wrong, f"of {lyrics.n_units} {lyrics.unit}s", ".1%")
    for source, ratio in evaluation.separation.items():
        yield _pair(f"SI-SDR of the {source}", "separation", ratio.mixture_db, ratio.stem_db, "dB", ".1f")
    was, now = evaluation.level.get("source", Level(None, None)), evaluation.level["result"]
    yield _pair("loudness", "level", was.loudness_lufs, now.loudness_lufs, "LUFS", ".1f")
    yield _pair("true peak", "level", was.true_peak_dbtp, now.true_peak_dbtp, "dBTP", ".1f")


def _pair(measure: str, key: str, before: Number, after: Number, unit: str, form: str = ".2f") -> Row:
    change = None if before is None or after is None else after - before
    return Row(measure, key, before, after, change, unit, form)


# --------------------------------------------------------------------------------------------------------------- tables


def show(evaluations: Sequence[Evaluation], console: Console) -> None:
    """Print a table per case with its notes and gaps, and the medians of several cases."""
    for evaluation in evaluations:
        console.print(_table(evaluation))
        for name, cosine in evaluation.similarity.items():
            if cosine.meaning:
                _say(console, f"{TITLES[name]}, after: {cosine.meaning}")
        if evaluation.same_voice is not None:
            _say(console, f"the reference's voice in the result: {evaluation.same_voice.text}")
        for line in _words(evaluation.lyrics) if evaluation.lyrics else ():
            _say(console, line)
        for what, reason in evaluation.skipped.items():
            _say(console, f"not measured: {what}: {reason}")
        for note in evaluation.notes:
            _say(console, f"note: {note}")
        console.print()
    if len(evaluations) > 1:
        console.print(_medians(evaluations))


def _words(lyrics: Lyrics) -> Iterator[str]:
    """Say what was heard, and what was wrong with it."""
    for side, made in lyrics.errors.items():
        if not made.heard:
            yield f"{lyrics.judge.name}, {side}: no words"
            continue
        counts = f"{made.substituted} substituted, {made.deleted} deleted, {made.inserted} inserted"
        heard = made.heard if len(made.heard) <= _SHOWN_CHARS else f"{made.heard[:_SHOWN_CHARS]}..."
        yield f"{lyrics.judge.name}, {side}: {counts}; heard: {heard}"


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(evaluation: Evaluation) -> Table:
    table = Table(
        "measure", title=evaluation.name, caption=_caption(evaluation), title_justify="left", caption_justify="left"
    )
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    for row in rows(evaluation):
        marked = {
            column: _DAGGER if {row.key, f"{row.key}.{column}"} & set(evaluation.inconclusive) else ""
            for column in ("before", "after")
        }
        marked["change"] = marked["before"] or marked["after"]
        table.add_row(row.measure, *_cells(row, marked), row.unit)
    return table


def _cells(row: Row, marked: Mapping[str, str]) -> Iterator[str]:
    """Format the row's numbers with their marks; missing numbers are empty, differences have a sign."""
    signed = row.form if row.form.startswith("+") or row.before is None else f"+{row.form}"
    for column, form in (("before", row.form), ("after", row.form), ("change", signed)):
        value = getattr(row, column)
        yield "" if value is None else f"{value:{form}}{marked.get(column, '')}"


def _caption(evaluation: Evaluation) -> str | None:
    return f"{_DAGGER} says nothing: random weights" if evaluation.inconclusive else None


def _medians(evaluations: Sequence[Evaluation]) -> Table:
    table = Table("measure", title=f"medians of {len(evaluations)} cases", title_justify="left")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    table.add_column("cases", justify="right")
    for row, n in medians(evaluations):
        table.add_row(row.measure, *_cells(row, {}), row.unit, str(n))
    return table


# ----------------------------------------------------------------------------------------------------------------- data


def medians(evaluations: Sequence[Evaluation]) -> list[tuple[Row, int]]:
    """Return each measure's medians over the conclusive cases that have it, and the number of cases."""
    by_measure: dict[str, list[Row]] = {}
    for evaluation in evaluations:
        for row in rows(evaluation):
            if not {row.key, f"{row.key}.before", f"{row.key}.after"} & set(evaluation.inconclusive):
                by_measure.setdefault(row.measure, []).append(row)
    return [
        (
            Row(
                measure,
                of[0].key,
                _median(of, lambda row: row.before),
                _median(of, lambda row: row.after),
                _median(of, lambda row: row.change),
                of[0].unit,
                of[0].form,
            ),
            len(of),
        )
        for measure, of in by_measure.items()
    ]


def _median(of: Sequence[Row], number: Callable[[Row], Number]) -> Number:
    values = [value for row in of if (value := number(row)) is not None]
    return statistics.median(values) if values else None


def as_json(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Return everything, ready for `json.dumps`: floats to four digits, missing values None."""
    several = len(evaluations) > 1
    found: dict[str, Any] = rounded(
        {
            "heartvoice": __version__,
            "cases": [
                asdict(evaluation) | {"inconclusive": list(evaluation.inconclusive)} for evaluation in evaluations
            ],
            "medians": {
                row.measure: {
                    "before": row.before,
                    "after": row.after,
                    "change": row.change,
                    "unit": row.unit,
                    "cases": n,
                }
                for row, n in (medians(evaluations) if several else ())
            },
        }
    )
    return found


def rounded(value: Any) -> Any:
    """Round floats at any depth to the digits of results."""
    match value:
        case float():
            return round(value, _DIGITS)
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list():
            return [rounded(item) for item in value]
    return value


def dumps(evaluations: Sequence[Evaluation]) -> str:
    """Return the JSON text; it contains no NaN and no infinity."""
    return json.dumps(as_json(evaluations), indent=2, ensure_ascii=False, allow_nan=False)
