"""`heartvoice song`: lyrics and tags into an audio file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from heartvoice.client.delivery import deliver, ready_for, say
from heartvoice.client.messages import Array, SettingValue, SongRequest
from heartvoice.client.options import JsonOption, ServerChoice, with_options
from heartvoice.contracts import SONG_SETTINGS
from heartvoice.errors import InvalidRequestError


@with_options(*SONG_SETTINGS)
def song(
    *,
    lyrics: Annotated[
        str, typer.Option(metavar="FILE", help="Text file with the lyrics; - reads standard input.")
    ] = "",
    tags: Annotated[
        str, typer.Option(metavar="TEXT|@FILE", help="Comma separated: genre, mood, instruments. @FILE reads a file.")
    ] = "",
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The song: .wav, .flac, .mp3 or .ogg. An existing file is replaced.")
    ] = Path("song.wav"),
    style: Annotated[Path | None, typer.Option(metavar="FILE.npy", help="Style vector for HeartMuLa.")] = None,
    codes: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Codes of an earlier song, to be decoded again instead of written anew."),
    ] = None,
    as_json: JsonOption = False,
    server: ServerChoice,
    **settings: SettingValue | None,
) -> None:
    """Make a song from lyrics and tags.

    The file appears when the song is complete, tagged as AI-generated.

    Ctrl-C stops the server's work and leaves no file.

    With --return-codes the codes are kept beside the song, as NAME.codes.npy.
    """
    request = SongRequest(
        lyrics=read_text("lyrics", lyrics) if lyrics else "",
        # The server strips nothing, and a file's last line break is no part of its tags.
        tags=read_text("tags", tags[1:]).strip() if tags.startswith("@") else tags,
        settings=settings,
        style=_load("style", style),
        codes=_load("codes", codes),
    )
    ready_for(output)
    with server.client("the song was cancelled and no file written") as client:
        codes_path = output.with_name(f"{output.stem}.codes.npy") if settings.get("return_codes") else None
        made = deliver(client.stream(request, events=True), output, codes_path=codes_path)
    say(made, as_json=as_json)


def read_text(field: str, source: str) -> str:
    """A text file, or standard input if `source` is "-".

    Raises:
        InvalidRequestError: it cannot be read, or is not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidRequestError(f"{field}: cannot read {source!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise InvalidRequestError(f"{field}: expected UTF-8, got byte {byte:#04x} at {error.start}") from error


def _load(field: str, path: Path | None) -> Array | None:
    if path is None:
        return None
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidRequestError(f"{field}: expected a .npy file, got {str(path)!r}: {error}") from error
    return array
