"""`heartvoice cover`: a recording with another singer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from heartvoice.client.checks import check_cover
from heartvoice.client.delivery import deliver, ready_for, say
from heartvoice.client.messages import CoverRequest, SettingValue
from heartvoice.client.options import JsonOption, RecordingArgument, ServerChoice, read_recording, with_options
from heartvoice.client.recordings import COVER_LIMITS_S, VOICE_LIMITS_S
from heartvoice.contracts import COVER, COVER_SETTINGS, MAX_CONSENT_CHARS, NO_VOCALS_MODES
from heartvoice.errors import InvalidRequestError


@with_options(*COVER_SETTINGS)
def cover(
    *,
    recording: RecordingArgument,
    voice: Annotated[
        str, typer.Option(metavar="FILE", help="3 to 60 s of the voice that shall sing; - reads standard input.")
    ] = "",
    consent: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help=f"Who consents to the use of the voice, and how; at most {MAX_CONSENT_CHARS} characters. Required.",
        ),
    ] = "",
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The cover: .wav, .flac, .mp3 or .ogg. An existing file is replaced.")
    ] = Path("cover.wav"),
    no_vocals: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(NO_VOCALS_MODES),
            help="What a recording without vocals becomes. Default: passthrough, the recording as it was.",
        ),
    ] = None,
    as_json: JsonOption = False,
    server: ServerChoice,
    **settings: SettingValue | None,
) -> None:
    """Replace the singer of a recording by the voice of a reference.

    For example: heartvoice cover song.mp3 --voice me.flac --consent "My own voice, J. Doe" -o cover.flac

    The file appears when the cover is complete, tagged as AI-generated; length and instruments are the recording's.

    It needs a server with a voice converter. Ctrl-C stops the server's work and leaves no file.
    """
    if not voice:
        raise InvalidRequestError("voice: expected a reference of 3 to 60 s of the voice that shall sing, got none")
    if recording == "-" and voice == "-":
        raise InvalidRequestError("recording, voice: expected at most one of them on standard input, got both")
    request = CoverRequest(
        read_recording(recording, limits_s=COVER_LIMITS_S),
        read_recording(voice, field="voice", limits_s=VOICE_LIMITS_S),
        consent,
        no_vocals,
        settings,
    )
    check_cover(request, COVER)
    ready_for(output)
    wanted: dict[str, Any] = dict(request.settings)
    with server.client("the cover was cancelled and no file written") as client:
        stream = client.stream_cover(
            request.recording, request.voice, consent=consent, no_vocals=no_vocals, events=True, **wanted
        )
        made = deliver(stream, output, origin=request.recording.origin)
    say(made, as_json=as_json)
