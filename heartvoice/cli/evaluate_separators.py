"""The commands `heartvoice evaluate DIR`, `heartvoice evaluate separators DIR` and `heartvoice evaluate gate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from heartvoice.cli.evaluate import evaluate, progress_bar
from heartvoice.cli.gate import gate
from heartvoice.cli.options import JsonOption
from heartvoice.errors import InvalidRequestError
from heartvoice.optional_dependencies import require

RESULTS = "separators.json"
EXPORTS = Path("build/repository")
"""Where `heartvoice export` writes repositories."""
_COVERS = "covers"


class EvaluateGroup(TyperGroup):
    """The command group; without the name of a command it is `covers`."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Put the default command's name in front."""
        return super().parse_args(ctx, args if args and args[0] in self.commands else [_COVERS, *args])


app = typer.Typer(
    name="evaluate", cls=EvaluateGroup, add_completion=False,
    help="Measure covers, compare separators on songs, or find out whether the sound became worse.",
)  # fmt: skip
app.command(_COVERS)(evaluate)
app.command("gate")(gate)


@app.command()
def separators(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="One song, or a folder of songs; with --songs, of exports.")
    ],
    songs_folder: Annotated[
        Path | None, typer.Option("--songs", metavar="DIR", help="The songs, if they are elsewhere.")
    ] = None,
    repository: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="An exported repository, or a folder of them. May be repeated. Default: those in DIR, else those in "
            f"{EXPORTS}.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of onnxruntime. Default: HEARTVOICE_THREADS, or all cores.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Where results go. Default: evaluation, beside the songs."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare exported separators on songs: SI-SDR, bleeding, time, memory.

    A song is a folder with the recording, and its true stems where they are known (.wav, .flac, .ogg or .mp3):

        mix.*                        the recording

        vocals.*, instrumental.*     what it was mixed from

        drums.*, bass.*, other.*, guitar.*, piano.*     likewise, for separators with more stems

    Stems are as long as the mix. Without an instrumental, it is what the vocals leave of the mix.

    Bleeding is the loudness of a stem where the true one is silent, relative to the mix there.

    RTF is time for each second of a song; memory is the most that the separator's process took, song included.

    For example:

        heartvoice export --preset tiny --random-weights 0

        heartvoice evaluate separators songs --repository build/repository/tiny

    It prints a table of means, and writes separators.json with every song. Exit code 1 if a separator failed.

    Which separator to take: docs/how-to/separators.md.
    """
    require("evaluate", "onnxruntime", "soxr", "scipy")
    from heartvoice.audio.encode import replacing
    from heartvoice.evaluation.cases import OUTPUT
    from heartvoice.evaluation.separator_results import dumps, show
    from heartvoice.evaluation.separator_songs import find_songs
    from heartvoice.evaluation.separators import compare, find_repositories, n_steps
    from heartvoice.runtime.engines import default_threads
    from heartvoice.runtime.repository import INDEX

    place = songs_folder or folder
    songs = find_songs(place)
    has_exports = songs_folder is not None or any(folder.glob(f"*/{INDEX}"))
    repositories = find_repositories(repository or [folder if has_exports else EXPORTS])
    target = output or place / OUTPUT
    if target.resolve() == place.resolve():
        raise InvalidRequestError(f"output: expected another folder than the songs', got {target}")
    target.mkdir(parents=True, exist_ok=True)
    n_threads = threads or default_threads()
    with progress_bar(n_steps(repositories, songs)) as progress:
        task = progress.task_ids[0]

        def step(doing: str) -> None:
            progress.update(task, advance=1, description=doing)

        results = compare(repositories, songs, threads=n_threads, step=step)
    text = dumps(results, threads=n_threads)
    with replacing(target / RESULTS) as file:
        file.write(f"{text}\n".encode())
    if as_json:
        print(text)
    console = Console(stderr=as_json)
    show(results, console)
    console.print(f"{target / RESULTS}", markup=False, highlight=False, soft_wrap=True)
    if any(each.error for each in results):
        raise typer.Exit(1)
