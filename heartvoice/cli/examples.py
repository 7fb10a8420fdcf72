"""The command `heartvoice examples`: the example voice and recording, out of the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from heartvoice.errors import InvalidRequestError
from heartvoice.file_errors import naming, write_file

FILES = ("voice.flac", "recording.flac", "NOTICE")


def examples(
    folder: Annotated[Path, typer.Argument(help="Where to put them; made if it is missing.")] = Path("examples"),
) -> None:
    """Write the example voice, the example recording and their NOTICE into a folder.

    voice.flac is somebody who speaks, recording.flac a song of somebody else with a band; both are synthetic. A cover
    of one by the other: heartvoice cover examples/recording.flac --voice examples/voice.flac --consent "A synthetic
    voice: nobody's" -o cover.wav
    """
    if there := [name for name in FILES if (folder / name).exists()]:
        raise InvalidRequestError(f"{folder}: would overwrite {', '.join(there)}; name another folder")
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        write_file(folder / name, files("heartvoice").joinpath("examples", name).read_bytes())
        print(folder / name)
