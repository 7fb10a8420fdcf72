"""Progress of a load test: a bar in a terminal, otherwise a line per point."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Step:
    """The next step of a load test."""

    what: str
    points: int = 1
    """Number of points; 0 for warm-up steps."""


class View(Protocol):
    """Displays steps."""

    def show(self, step: Step) -> None:
        """Display the start of a step."""


class Bar:
    """Progress bar for a terminal."""

    def __init__(self, progress: Progress, n_points: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=n_points)
        self._begun = 0

    def show(self, step: Step) -> None:
        """Advance the bar by the finished points."""
        self._progress.update(self._task, description=step.what, completed=self._begun)
        self._begun += step.points


class Lines:
    """Lines for other outputs."""

    def __init__(self, console: Console) -> None:
        self._console, self._began = console, time.monotonic()

    def show(self, step: Step) -> None:
        """Print the step."""
        self._console.print(f"{time.monotonic() - self._began:6.0f} s  {step.what}", markup=False, highlight=False)


@contextmanager
def view(console: Console, n_points: int) -> Iterator[View]:
    """Yield the view that suits the console."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (MofNCompleteColumn(), BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress, n_points)
