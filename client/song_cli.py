"""`heartvoice song`: lyrics and tags into an audio file."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console

from heartvoice.audio_files import AudioFile, AudioWriter, replaceable, replacing
from heartvoice.client.messages import (
    DEFAULT_TIMEOUT_S,
    DEFAULT_URL,
    Array,
    AudioChunk,
    Codes,
    Event,
    Report,
    SettingValue,
    SongRequest,
)
from heartvoice.client.progress import progress_view
from heartvoice.contracts import SONG_SETTINGS, Setting
from heartvoice.errors import InvalidRequestError

if TYPE_CHECKING:
    from heartvoice.client.sync import Client

_PYTHON_TYPE: dict[str, type] = {"FP32": float, "INT64": int, "BOOL": bool}
INTERRUPTED = 130
_SERVER = "Server"
_SETTINGS = "Settings"


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` one option for each setting of a song, with range and default in its help."""
    signature = inspect.signature(command, eval_str=True)
    fixed = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [_option(setting) for setting in SONG_SETTINGS]
    command.__signature__ = signature.replace(parameters=[*fixed, *options])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (*fixed, *options)}
    return command


def option_name(setting: Setting) -> str:
    """The setting's name on the command line: `--duration` for `duration_s`."""
    name = setting.name.removesuffix("_s") if setting.unit == "s" else setting.name
    return "--" + name.replace("_", "-")


def _option(setting: Setting) -> inspect.Parameter:
    flag = option_name(setting)
    if setting.dtype == "BOOL":
        decls, help_text = f"{flag}/--no-{flag[2:]}", f"{setting.doc} Default: {'yes' if setting.default else 'no'}."
    else:
        decls, help_text = flag, f"{setting.doc} {setting.describe().capitalize()}. Default: {setting.default:g}."
    option = typer.Option(decls, help=help_text, show_default=False, rich_help_panel=_SETTINGS)
    annotated: Any = Annotated  # the type is only known at run time
    annotation = annotated[_PYTHON_TYPE[setting.dtype] | None, option]
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


@with_settings
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
    url: Annotated[
        str, typer.Option(envvar="HEARTVOICE_URL", help="gRPC endpoint.", rich_help_panel=_SERVER)
    ] = DEFAULT_URL,
    timeout: Annotated[
        float, typer.Option(help="Seconds until the song must be there; inf waits for ever.", rich_help_panel=_SERVER)
    ] = DEFAULT_TIMEOUT_S,
    serve: Annotated[
        Path | None,
        typer.Option(
            metavar="REPOSITORY",
            help="Start a server for this one song over an exported repository, in place of --url.",
            rich_help_panel=_SERVER,
        ),
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Encrypt, trusting the system's roots.", rich_help_panel=_SERVER)
    ] = False,
    root_certificates: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Roots to trust; implies --tls.", rich_help_panel=_SERVER)
    ] = None,
    private_key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Your key, for mutual TLS.", rich_help_panel=_SERVER)
    ] = None,
    certificate_chain: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Your certificate, likewise.", rich_help_panel=_SERVER)
    ] = None,
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
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read on import: gRPC's log would run into our lines
    from heartvoice.client.sync import Client

    try:
        with _signals_unwind(), ExitStack() as stack:
            if serve is not None:
                url = stack.enter_context(_own_server(serve))
            client = Client(
                url, tls=tls, timeout_s=timeout,
                root_certificates=root_certificates, private_key=private_key, certificate_chain=certificate_chain,
            )  # fmt: skip
            stack.enter_context(client)
            report, timings, file, codes_path = make_song(client, request, output)
    except KeyboardInterrupt:
        typer.echo("interrupted: the song was cancelled and no file written", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print(json.dumps(_result(report, timings, file, codes_path)))
    _summarise(report, timings, file, codes_path, Console(stderr=as_json))


@contextmanager
def _own_server(repository: Path) -> Iterator[str]:
    """A server that lives as long as the block; yields its endpoint."""
    from heartvoice.embedded.cli import check_installed
    from heartvoice.embedded.server import EmbeddedServer, ServerOptions, free_port

    check_installed()
    options = ServerOptions(repository, free_port(), free_port())
    with EmbeddedServer(options) as server:
        typer.echo(f"started a server over {repository}", err=True)
        yield server.url


def make_song(
    client: Client, request: SongRequest, output: Path
) -> tuple[Report, dict[str, Any], AudioFile, Path | None]:
    """Stream a song into a file, showing progress; on any failure no file is left."""
    from heartvoice.client.session import SongCollector

    want_codes = bool(request.settings.get("return_codes"))
    codes_path = replaceable(output.with_name(f"{output.stem}.codes.npy")) if want_codes else None
    stream = client.stream(request, events=True)
    # The bars go last, so that they are gone when an error is printed.
    with AudioWriter(output) as writer, closing(stream), progress_view(Console(stderr=True)) as view:
        collector = SongCollector()
        for message in stream:
            collector.add(message, keep_audio=False)
            if isinstance(message, AudioChunk):
                writer.write(message.audio)
            elif isinstance(message, Event):
                view.show(message)
        report, timings = collector.finish()
        if codes_path is not None:
            _save_codes(codes_path, collector.codes)
        return report, timings, writer.commit(report.comment), codes_path


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


def _save_codes(path: Path, codes: Codes | None) -> None:
    assert codes is not None, "asked for codes, and the stream is complete"
    with replacing(path) as file:
        np.save(file, codes, allow_pickle=False)


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does: cancelled on the server, no file left."""

    def unwind(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has one
    before = {number: signal.signal(number, unwind) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _result(report: Report, timings: dict[str, Any], file: AudioFile, codes_path: Path | None) -> dict[str, Any]:
    return {
        "file": str(file.path),
        "format": file.format,
        "duration_s": file.n_samples / file.sample_rate_hz,
        "sample_rate_hz": file.sample_rate_hz,
        "peak": file.peak,
        "gain_db": file.gain_db,
        "comment": file.comment,
        "codes_file": str(codes_path) if codes_path else None,
        "seed": report.seed,
        "preset": report.preset,
        "random_weights": report.random_weights,
        "timings": timings,
        "report": dict(report.raw),
    }


def _summarise(
    report: Report, timings: dict[str, Any], file: AudioFile, codes_path: Path | None, console: Console
) -> None:
    """Say in words what came out: on standard output, or on stderr beside the JSON."""
    duration_s, total_s = file.n_samples / file.sample_rate_hz, timings["total_s"]
    speed = duration_s / total_s
    lines = [
        f"{file.path}: {duration_s:.1f} s, seed {report.seed}, preset {report.preset}",
        f"first audio after {timings['ttfa_s']:.1f} s, all after {total_s:.1f} s, {speed:.1f}x real time",
    ]
    if file.gain_db:
        lines.append(f"turned down by {-file.gain_db:.1f} dB, since its peak was {file.peak:.2f}")
    if codes_path:
        lines.append(f"codes: {codes_path}")
    if report.random_weights:
        lines.append("the server's weights are RANDOM: this is noise, not music; see `heartvoice export --help`")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
