"""Prints the output of `heartvoice export`: licences, progress bars, quantisation table."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from heartvoice.export.repository import Exported
    from heartvoice.export.weights import Weights


def progress_bars(console: Console) -> Progress:
    """Return the transient display for `ExportBars`."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def print_licences(console: Console, weights: Weights, only: Collection[str]) -> None:
    """Print the licence of the weights of each graph to export."""
    from heartvoice.export.layout import graph_models

    made = {model.network for model in graph_models(weights.preset).values() if not only or model.name in only}
    by_licence: dict[str, list[str]] = {}
    for network, licence in weights.licences.items():
        if network in made:
            by_licence.setdefault(licence, []).append(network)
    for licence, networks in by_licence.items():
        style = "yellow" if licence.startswith(("GPL", "CC BY-SA")) else None
        console.print(
            f"weights of {', '.join(networks)}: {licence}", style=style, markup=False, highlight=False, soft_wrap=True
        )


def _quality_table(quality: Mapping[str, Any]) -> Table:
    """Return a table of quantisation errors per codebook."""
    title = f"against float32, {quality['frames']} frames, limit {quality['max_kl_nats']:g} nats"
    table = Table(title=title, title_justify="left")
    for name in ("codebook", "logits SNR", "KL", "same best code"):
        table.add_column(name, justify="right")
    for index, book in enumerate(quality["codebooks"]):
        cells = f"{book['snr_db']} dB", f"{book['kl_nats']:g} nats", f"{book['agreement']:.0%}"
        table.add_row(str(index), *cells)
    return table


class ExportBars:
    """Progress bars, and one line for each finished graph; an `export.repository.Reporter`."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._task: TaskID | None = None

    def hashing(self, network: str) -> None:
        """Show the network whose weights are being hashed."""
        self._start(f"{network} weights: hashing", None)

    def writing(self, model: str, n_bytes: int) -> None:
        """Start a bar."""
        self._start(f"{model}: writing", n_bytes)

    def advance(self, n_bytes: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, n_bytes)

    def comparing(self, model: str) -> None:
        """Show that the graph is being compared."""
        if self._task is not None:
            self._progress.update(self._task, description=f"{model}: comparing with PyTorch")

    def done(self, exported: Exported) -> None:
        """Replace the bar by a line."""
        self._stop()
        size = f"{exported.n_bytes / 1e6:.1f} MB"
        if not exported.written:
            self._console.print(f"{exported.model}: {size}, up to date", highlight=False)
            return
        errors = exported.parity.get("relative_error", {})
        worst = max(errors.values(), default=0.0)
        compared = exported.parity.get("compared")
        self._console.print(
            f"{exported.model}: {size} in {exported.seconds:.1f} s; differs from PyTorch by {worst:.0e} "
            f"(limit {exported.parity.get('tolerance'):g}; compared: {compared})",
            highlight=False,
            soft_wrap=True,
        )
        if exported.quality:
            self._console.print(_quality_table(exported.quality))

    def _start(self, description: str, total: int | None) -> None:
        self._stop()
        self._task = self._progress.add_task(description, total=total)

    def _stop(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
