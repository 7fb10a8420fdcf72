"""What moved: as a table, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from heartvoice.evaluation.gate.baseline import Identity, Move
from heartvoice.evaluation.gate.measures import Values
from heartvoice.evaluation.plots import save
from heartvoice.evaluation.results import rounded

SHOWN_STEPS = 4.0
"""Ends of the picture's axis, in tolerances; what moved further is drawn at the end."""
_WORSE, _SAME, _BETTER, _FAINT = "#d62728", "#8a8a8a", "#1f77b4", "#d9d9d9"


def verdict(move: Move) -> str:
    """Say in one word what became of a measure."""
    if move.now is None:
        return "lost"
    if move.is_worse:
        return "worse"
    return "better" if move.steps > 1 else "same"


def show(moves: Sequence[Move], console: Console) -> None:
    """Print the table, what has moved most first within songs and covers, and what was lost."""
    table = Table("measure", title="gate", title_justify="left")
    for column in ("before", "tolerance", "now", "change"):
        table.add_column(column, justify="right")
    for column in ("unit", "better is", ""):
        table.add_column(column)
    for move in moves:
        measure, form = move.measure, move.measure.form
        now = "" if move.now is None else f"{move.now:{form}}"
        change = "" if move.now is None else f"{move.now - move.was.mean:+{form}}"
        said = verdict(move)
        table.add_row(
            _name(move), f"{move.was.mean:{form}}", f"{move.was.tolerance:{form}}", now, change, measure.unit,
            measure.better, f"[bold red]{said}[/]" if move.is_worse else said,
        )  # fmt: skip
    console.print(table)
    for move in moves:
        if move.lost:
            line = f"lost: {_name(move)} has no value any more for {', '.join(move.lost)}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _name(move: Move) -> str:
    kind = move.measure.key.partition(" ")[0]
    return f"{kind}: {move.measure.title}"


def dumps(moves: Sequence[Move], values: Mapping[str, Values], identity: Identity, seed: int) -> str:
    """Return a run as JSON: what moved, and all values by item."""
    made: dict[str, Any] = {
        **identity,
        "seed": seed,
        "passed": not any(move.is_worse for move in moves),
        "measures": {
            move.measure.key: {
                "before": move.was.mean,
                "tolerance": move.was.tolerance,
                "now": move.now,
                "better": move.measure.better,
                "verdict": verdict(move),
                "lost": list(move.lost),
            }
            for move in moves
        },
        "values": dict(values),
    }
    return json.dumps(rounded(made), indent=1, allow_nan=False) + "\n"


def draw(moves: Sequence[Move], path: Path) -> None:
    """Write the picture: each measure's change in tolerances, to the right what is better; a dot is a song or cover.

    Raises:
        OSError: it cannot be written.
    """
    figure = Figure(figsize=(10, 1.6 + 0.32 * len(moves)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-1, 1, color=_FAINT, alpha=0.6, lw=0)
    axes.axvline(0.0, color="black", lw=0.8)
    places = np.arange(len(moves))[::-1]
    colours = {"same": _SAME, "better": _BETTER}
    for place, move in zip(places, moves, strict=True):
        steps = float(np.clip(move.steps, -SHOWN_STEPS, SHOWN_STEPS))
        colour = colours.get(verdict(move), _WORSE)
        axes.barh(place, steps, 0.7, color=colour)
        axes.plot(item_steps(move), np.full(len(move.items), place), ".", color="black", ms=3, alpha=0.5)
        axes.text(1.01, place, verdict(move), transform=axes.get_yaxis_transform(), va="center", color=colour)
    axes.set_yticks(places, [_name(move) for move in moves])
    axes.set(
        xlim=(-SHOWN_STEPS, SHOWN_STEPS), ylim=(-0.6, len(moves) - 0.4), title="what moved since the baseline",
        xlabel="worse ←   change in tolerances   → better",
    )  # fmt: skip
    axes.grid(axis="x", color=_FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def item_steps(move: Move) -> list[float]:
    """Return each item's own change in tolerances, within the picture."""
    sign = 1.0 if move.measure.better == "higher" else -1.0
    changes = [sign * (now - was) / move.was.tolerance for was, now in move.items.values()]
    return [float(step) for step in np.clip(changes, -SHOWN_STEPS, SHOWN_STEPS)]
