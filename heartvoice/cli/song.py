"""The command `heartvoice song`: makes a song from lyrics and tags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from heartvoice.cli.options import (
    AutoPitchOption,
    ConsentOption,
    JsonOption,
    NoVocalsOption,
    ReferenceCheckOption,
    ServerChoice,
    StemsOption,
    UnknownWordsOption,
    VoiceOption,
    one_standard_input,
    text_or_file,
    with_options,
)
from heartvoice.cli.output import print_lines, print_summary, write_song
from heartvoice.cli.own_server import Job
from heartvoice.cli.registered_voices import OwnerOption, RegistryOption, singing_voice
from heartvoice.cli.signing import KeysOption, open_signing
from heartvoice.client.arguments import SettingValue
from heartvoice.client.caller_names import job_names
from heartvoice.client.inputs import job_inputs
from heartvoice.client.messages import Array
from heartvoice.client.requests import SongRequest
from heartvoice.client.song_files import SongWriter
from heartvoice.contracts.settings import SONG_SETTINGS
from heartvoice.errors import InvalidRequestError


@with_options(*SONG_SETTINGS)
def song(
    *,
    lyrics: Annotated[
        str,
        typer.Option(metavar="TEXT|@FILE|-", help="The words to sing. @FILE reads a file, - standard input."),
    ] = "",
    tags: Annotated[
        str, typer.Option(metavar="TEXT|@FILE|-", help="Comma separated: genre, mood, instruments. @FILE reads a file.")
    ] = "",
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The song: .wav, .flac, .mp3 or .ogg. An existing file is replaced.")
    ] = Path("song.wav"),
    unknown_words: UnknownWordsOption = None,
    style: Annotated[Path | None, typer.Option(metavar="FILE.npy", help="Style vector for HeartMuLa.")] = None,
    codes: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Codes of an earlier song, to be decoded again instead of written anew."),
    ] = None,
    stems: StemsOption = None,
    keys: KeysOption = None,
    as_json: JsonOption = False,
    voice: VoiceOption = "",
    consent: ConsentOption = "",
    registry: RegistryOption = None,
    owner: OwnerOption = None,
    no_vocals: NoVocalsOption = None,
    auto_pitch: AutoPitchOption = None,
    reference_check: ReferenceCheckOption = None,
    server: ServerChoice,
    **settings: SettingValue | None,
) -> None:
    """Make a song from lyrics and tags, sung by the voice of a reference if there is one.

    For example: heartvoice song --lyrics @lyrics.txt --tags "pop, piano" -o song.flac

    In your voice: heartvoice song --lyrics @lyrics.txt --voice me.wav --consent "My own voice, J. Doe" --stems parts

    The file appears when the song is complete, tagged as AI-generated. Ctrl-C stops the server's work and leaves none.

    With --return-codes the codes are kept beside the song, as NAME.codes.npy; --codes with another --voice has the
    same song sung by that.
    """
    one_standard_input(lyrics=lyrics, tags=tags, consent=consent, voice=voice)
    chosen = singing_voice(voice, consent, registry, owner, gateway=server.serve is None)
    request = SongRequest(
        lyrics=text_or_file("lyrics", lyrics),
        tags=text_or_file("tags", tags),
        settings=settings | {"stems": True if stems else None},
        style=_load("style", style),
        codes=_load("codes", codes),
        voice=chosen.voice,
        consent=chosen.consent,
        no_vocals=no_vocals,
        auto_pitch=auto_pitch,
        reference_check=reference_check,
        unknown_words=unknown_words,
    )
    job = Job("song", job_inputs(request), job_names(request))
    print_lines((f"warning: {warning}" for warning in request.warnings), Console(stderr=True))
    signing = open_signing(keys)
    codes_path = output.with_name(f"{output.stem}.codes.npy") if settings.get("return_codes") else None
    with (
        SongWriter(output, stems_folder=stems, codes_path=codes_path, signer=signing.signer) as files,
        server.client("the song was cancelled and no file written", job) as client,
    ):
        made = write_song(client.stream(request, events=True), files, unsigned=signing.unsigned)
    print_summary(made, as_json=as_json, told=request.warnings)


def _load(field: str, path: Path | None) -> Array | None:
    if path is None:
        return None
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")
        with path.open("rb") as file:
            # Not np.load, because it also opens archives and pickles.
            read: Any = np.lib.format.read_array
            array: Array = read(file, allow_pickle=False)
    except Exception as error:  # numpy raises a dozen unrelated classes for damaged headers, MemoryError among them
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InvalidRequestError(f"{field}: expected a .npy file, got {str(path)!r}: {reason}") from error
    return array
