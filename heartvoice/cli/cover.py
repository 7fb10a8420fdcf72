"""The command `heartvoice cover`: replaces the singer of a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from heartvoice.cli.options import (
    AutoPitchOption,
    ConsentOption,
    JsonOption,
    NoVocalsOption,
    RecordingArgument,
    ReferenceCheckOption,
    ServerChoice,
    StemsOption,
    VoiceOption,
    one_standard_input,
    read_recording,
    with_options,
)
from heartvoice.cli.output import print_summary, write_song
from heartvoice.cli.own_server import Job
from heartvoice.cli.registered_voices import OwnerOption, RegistryOption, singing_voice
from heartvoice.cli.signing import KeysOption, open_signing
from heartvoice.client.arguments import SettingValue
from heartvoice.client.caller_names import job_names
from heartvoice.client.inputs import job_inputs
from heartvoice.client.requests import CoverRequest
from heartvoice.client.song_files import SongWriter
from heartvoice.contracts.field_checks import COVER_LIMITS_S
from heartvoice.contracts.settings import COVER_SETTINGS
from heartvoice.errors import InvalidRequestError


@with_options(*COVER_SETTINGS)
def cover(
    *,
    recording: RecordingArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The cover: .wav, .flac, .mp3 or .ogg. An existing file is replaced.")
    ] = Path("cover.wav"),
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
    """Replace the singer of a recording by the voice of a reference.

    For example: heartvoice cover song.mp3 --voice me.flac --consent "My own voice, J. Doe" -o cover.flac --stems parts

    The file appears when the cover is complete, tagged as AI-generated; length and instruments are the recording's.

    It needs a server with a voice converter. Ctrl-C stops the server's work and leaves no file.
    """
    if not voice:
        raise InvalidRequestError("voice: expected a reference of 3 to 60 s of the voice that shall sing, got none")
    one_standard_input(recording=recording, voice=voice, consent=consent)
    chosen = singing_voice(voice, consent, registry, owner, gateway=server.serve is None)
    assert chosen.voice is not None
    wanted: dict[str, Any] = settings | {"stems": True if stems else None}
    request = CoverRequest(
        read_recording(recording, limits_s=COVER_LIMITS_S), chosen.voice, chosen.consent, no_vocals, wanted,
        auto_pitch, reference_check,
    )  # fmt: skip
    job = Job("cover", job_inputs(request), job_names(request))
    signing = open_signing(keys)
    with (
        SongWriter(output, stems_folder=stems, signer=signing.signer) as files,
        server.client("the cover was cancelled and no file written", job) as client,
    ):
        stream = client.stream_cover(
            request.recording, request.voice, consent=chosen.consent, no_vocals=no_vocals, auto_pitch=auto_pitch,
            reference_check=reference_check, events=True, **wanted,
        )  # fmt: skip
        made = write_song(stream, files, recording=request.recording, unsigned=signing.unsigned)
    print_summary(made, as_json=as_json)
