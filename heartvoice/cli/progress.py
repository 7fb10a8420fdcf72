"""Shows a job's progress on stderr: live bars in a terminal, periodic lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from heartvoice.cli.terminal import escape_controls
from heartvoice.client.messages import Event
from heartvoice.contracts.constants import FRAMES_PER_S

PLAIN_EVERY_S = 10.0
# In the order of a song with a voice.
_TITLES = {
    "lm": "writing", "codec": "decoding", "separate": "separating", "convert": "converting", "mix": "mixing"
}  # fmt: skip


_View = TypeVar("_View")


class ProgressView(Protocol):
    """A display of events; a context manager that restores the terminal."""

    def show(self, event: Event) -> None:
        """Show the next event."""

    def __enter__(self: _View) -> _View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def describe(event: Event) -> str:
    """Format `100/372 frames, 1.9x real time`: the stage's audio over the job's elapsed seconds."""
    speed = f", {event.done / FRAMES_PER_S / event.seconds:.1f}x real time" if event.seconds > 0 and event.done else ""
    return f"{event.done}/{event.total} frames{speed}"


def progress_view(console: Console) -> ProgressView:
    """Return bars if the console is a terminal, lines if it is a file or a pipe."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


class LiveProgress:
    """One bar for each started stage, in the order of the audio's path."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}", markup=False), BarColumn(),
            TextColumn("{task.fields[state]}", markup=False), TimeElapsedColumn(), console=console, transient=True,
        )  # fmt: skip
        # Add all of them now, so that their order does not depend on the first events.
        self._tasks = {stage: self._add(title) for stage, title in _TITLES.items()}

    def _add(self, title: str) -> TaskID:
        return self._progress.add_task(title, start=False, visible=False, state="")

    def show(self, event: Event) -> None:
        """Move the stage's bar; its first event makes it visible."""
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._add(escape_controls(event.stage))
        task = self._tasks[event.stage]
        self._progress.start_task(task)  # no effect on a started bar
        self._progress.update(task, completed=event.done, total=event.total, state=describe(event), visible=True)

    def __enter__(self) -> LiveProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class PlainProgress:
    """Prints a line at the start and end of a stage, and every ten seconds between."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._shown: dict[str, float] = {}

    def show(self, event: Event) -> None:
        """Print the event if a line is due."""
        now = self._clock()
        last = self._shown.get(event.stage)
        complete = event.done >= event.total
        if complete and self._shown.get(event.stage) == math.inf:
            return  # a heartbeat repeats the last event
        if last is None or now - last >= PLAIN_EVERY_S or complete:
            self._shown[event.stage] = math.inf if complete else now
            title = _TITLES.get(event.stage, event.stage)
            self._console.print(
                f"{escape_controls(title)}: {describe(event)}", markup=False, highlight=False, soft_wrap=True
            )

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
