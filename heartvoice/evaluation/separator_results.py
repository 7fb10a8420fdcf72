"""A comparison of separators as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from heartvoice import __version__
from heartvoice.evaluation.results import rounded
from heartvoice.evaluation.separator_songs import STEMS, VOCALS
from heartvoice.evaluation.separators import SeparatorResult

_DAGGER = "†"


def show(results: Sequence[SeparatorResult], console: Console) -> None:
    """Print one row for each separator: means over its songs."""
    stems = [name for name in STEMS if any(name in song.scores for each in results for song in each.songs)]
    random = any(each.random_weights for each in results)
    table = Table("separator", title="separators", title_justify="left", caption_justify="left")
    for stem in stems:
        table.add_column(f"{stem}\nSI-SDR dB", justify="right")
    bled = any(each.bleed_lu() is not None for each in results)
    bleed_column = [f"{VOCALS}' bleed\nLU to mix"] if bled else []
    for column in (*bleed_column, "RTF", "memory\nMB", "songs"):
        table.add_column(column, justify="right")
    if random:
        table.caption = f"{_DAGGER} says nothing: random weights"
    for each in results:
        mark = _DAGGER if each.random_weights else ""
        table.add_row(
            each.title,
            *(_number(each.mean_db(stem), ".1f", mark) for stem in stems),
            *([_number(each.bleed_lu(), "+.1f", mark)] if bled else []),
            _number(each.rtf, ".3f"),
            _number(each.peak_mb, ".0f"),
            str(len(each.songs)),
        )
    if stems:
        table.add_row(
            "no separation", *(_number(_mix_db(results, stem), ".1f") for stem in stems), *(["+0.0"] if bled else [])
        )
    console.print(table)
    for each in results:
        if each.error:
            console.print(f"{each.title}: failed: {each.error}", markup=False, highlight=False, soft_wrap=True)
    if not stems:
        console.print("no true stems beside the mixes: time and memory alone", markup=False, highlight=False)


def _number(value: float | None, form: str, mark: str = "") -> str:
    return "" if value is None else f"{value:{form}}{mark}"


def _mix_db(results: Sequence[SeparatorResult], stem: str) -> float | None:
    """Mean SI-SDR of the mixes, over the separator with most songs."""
    most = max(results, key=lambda each: len(each.songs))
    values = [score.mix_db for song in most.songs if (score := song.scores.get(stem)) and score.mix_db is not None]
    return sum(values) / len(values) if values else None


def as_json(results: Sequence[SeparatorResult], *, threads: int) -> dict[str, Any]:
    """Return everything, ready for `json.dumps`: floats to four digits, missing values None."""
    separators = [
        asdict(each)
        | {
            "mean_si_sdr_db": {stem: each.mean_db(stem) for stem in STEMS if each.mean_db(stem) is not None},
            "bleed_lu": {stem: each.bleed_lu(stem) for stem in STEMS if each.bleed_lu(stem) is not None},
            "rtf": each.rtf,
            "peak_mb": each.peak_mb,
        }
        for each in results
    ]
    found: dict[str, Any] = rounded({"heartvoice": __version__, "threads": threads, "separators": separators})
    return found


def dumps(results: Sequence[SeparatorResult], *, threads: int) -> str:
    """Return the JSON text; it contains no NaN and no infinity."""
    return json.dumps(as_json(results, threads=threads), indent=2, ensure_ascii=False, allow_nan=False)
