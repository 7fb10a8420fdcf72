"""The command `heartvoice separate`: separates a recording into stems."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from heartvoice.audio.encode import AudioFile
from heartvoice.cli.option_names import by_option
from heartvoice.cli.options import JsonOption, RecordingArgument, ServerChoice, read_recording, with_options
from heartvoice.cli.output import (
    file_facts,
    print_lines,
    random_weights_lines,
    signature_lines,
    speed_line,
    why_unsigned,
)
from heartvoice.cli.own_server import Job
from heartvoice.cli.progress import progress_view
from heartvoice.cli.signing import KeysOption, open_signing
from heartvoice.client.caller_names import input_names
from heartvoice.client.inputs import as_sources, stems_inputs
from heartvoice.client.messages import Event, StemsChunk, StemsReport
from heartvoice.client.recordings import Recording
from heartvoice.client.signed_files import check_signed
from heartvoice.client.stem_files import StemsWriter, StemTag, stem_folder
from heartvoice.contracts.claims import ClaimSigner, separation_claim
from heartvoice.contracts.constants import AUDIO_FORMATS
from heartvoice.errors import InvalidRequestError

if TYPE_CHECKING:
    from heartvoice.client.messages import StemsMessage


@with_options()
def separate(
    *,
    recording: RecordingArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder for the stems; made if it is not there.")
    ] = Path("stems"),
    sources: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Comma separated, such as vocals,drums. Default: all.")
    ] = None,
    file_format: Annotated[
        str, typer.Option("--format", metavar="|".join(AUDIO_FORMATS), help="How the stems are written.")
    ] = "wav",
    keys: KeysOption = None,
    as_json: JsonOption = False,
    server: ServerChoice,
) -> None:
    """Separate a recording into its stems, such as vocals, drums, bass and other.

    For example: heartvoice separate song.mp3 -o stems --sources vocals,drums --format flac

    They are written as FOLDER/SOURCE.FORMAT at 44.1 kHz and appear together when all are complete. Existing files of
    these names are replaced. If one would clip, all are turned down together, so that they still add up.

    Ctrl-C stops the server's work and leaves no file.
    """
    checked = read_recording(recording)
    wanted = None if sources is None else as_sources(sources)
    if file_format not in AUDIO_FORMATS:
        raise InvalidRequestError(f"format: expected {', '.join(AUDIO_FORMATS)}, got {file_format!r}")
    stem_folder(output)
    signing = open_signing(keys)
    job = Job("demucs", stems_inputs(checked, wanted), input_names(checked))
    with server.client("the separation was cancelled and no file written", job) as client:
        stream = client.stream_stems(checked, sources=wanted, events=True)
        report, timings, files = write_stems(stream, output, file_format, checked, signing.signer)
    if as_json:
        unsigned = why_unsigned(files.values(), signing.unsigned)
        print(json.dumps(_result(report, timings, files) | {"unsigned_because": unsigned}))
    print_lines([*_summary(report, timings, files), *_signatures(files, signing.unsigned)], Console(stderr=as_json))
    check_signed(files.values())


def write_stems(
    stream: Generator[StemsMessage, None, None],
    folder: Path,
    file_format: str,
    recording: Recording,
    signer: ClaimSigner | None,
) -> tuple[StemsReport, dict[str, Any], dict[str, AudioFile]]:
    """Stream stems into files with a progress display; a failure leaves no file. Memory is bounded."""
    from heartvoice.client.collect import StemsCollector

    with (
        StemsWriter(folder, file_format=file_format, signer=signer) as writer,
        closing(stream),
        progress_view(Console(stderr=True)) as view,
    ):
        collector = StemsCollector()
        for message in stream:
            collector.add(message, keep_audio=False)
            if isinstance(message, StemsChunk):
                writer.write(message.stems)
            elif isinstance(message, Event):
                view.show(message)
        report, timings = collector.finish()
        source = recording.source
        tags = {
            name: StemTag(report.stem_tags(name, source.tags), separation_claim(report, name, source))
            for name in report.sources
        }
        return report, timings, writer.commit(tags)


def _signatures(files: dict[str, AudioFile], unsigned: str) -> list[str]:
    return signature_lines(next(iter(files.values())), unsigned)


def _result(report: StemsReport, timings: dict[str, Any], files: dict[str, AudioFile]) -> dict[str, Any]:
    return {
        "stems": {source: file_facts(file) for source, file in files.items()},
        "preset": report.preset,
        "random_weights": report.random_weights,
        "warnings": list(report.warnings),
        "timings": timings,
        "report": dict(report.raw),
    }


def _summary(report: StemsReport, timings: dict[str, Any], files: dict[str, AudioFile]) -> list[str]:
    first = next(iter(files.values()))
    duration_s = first.n_samples / first.sample_rate_hz
    lines = [str(file.path) for file in files.values()]
    lines += [f"{len(files)} stems of {duration_s:.1f} s, preset {report.preset}", speed_line(duration_s, timings)]
    if first.gain_db:
        loudest = max(file.peak for file in files.values())
        lines.append(f"all turned down by {-first.gain_db:.1f} dB, since the loudest peak was {loudest:.2f}")
    lines += [f"warning: {by_option(warning)}" for warning in report.warnings]
    if report.random_weights:
        lines += random_weights_lines(report.networks, "nothing was separated")
    return lines
