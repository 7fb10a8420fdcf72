"""Options, recordings and signal handling of the commands with a server connection."""

from __future__ import annotations

import codecs
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heartvoice.cli.option_names import by_option, option_name
from heartvoice.cli.own_server import Job, own_server
from heartvoice.cli.terminal import escape_controls
from heartvoice.client.messages import DEFAULT_URL
from heartvoice.client.recordings import Recording, as_recording
from heartvoice.contracts.constants import (
    AUTO_PITCH_HELP,
    AUTO_PITCH_MODES,
    DEFAULT_AUTO_PITCH,
    MAX_CONSENT_CHARS,
    MAX_LOCAL_FILE_BYTES,
    MAX_TEXT_BYTES,
    NO_VOCALS_MODES,
    REFERENCE_CHECK_MODES,
    UNKNOWN_WORDS_HELP,
    UNKNOWN_WORDS_MODES,
)
from heartvoice.contracts.field_checks import STEMS_LIMITS_S, VOICE_LIMITS_S, Limits
from heartvoice.contracts.settings import STEMS, VOICE_SETTINGS
from heartvoice.contracts.types import Setting
from heartvoice.errors import InvalidRequestError

if TYPE_CHECKING:
    from heartvoice.client.sync import Client

INTERRUPTED = 130
STANDARD_INPUT = ("-", "@-")
_TEXT_FILES = (".txt", ".md", ".lrc")
_PYTHON_TYPE: dict[str, type] = {"FP32": float, "INT64": int, "BOOL": bool}
_SERVER = "Server"
_SETTINGS = "Settings"
_VOICE = "Voice"

TlsOption = Annotated[
    bool, typer.Option("--tls", help="Encrypt, trusting the system's roots.", rich_help_panel=_SERVER)
]
RootCertificatesOption = Annotated[
    Path | None, typer.Option(metavar="PEM", help="Roots to trust; implies --tls.", rich_help_panel=_SERVER)
]
PrivateKeyOption = Annotated[
    Path | None, typer.Option(metavar="PEM", help="Your key, for mutual TLS.", rich_help_panel=_SERVER)
]
CertificateChainOption = Annotated[
    Path | None, typer.Option(metavar="PEM", help="Your certificate, likewise.", rich_help_panel=_SERVER)
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Holds your token for a gateway. Default: HEARTVOICE_TOKEN's.", rich_help_panel=_SERVER
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
RecordingArgument = Annotated[
    str, typer.Argument(metavar="RECORDING", help="WAV, AIFF, FLAC, OGG or MP3 file; - reads standard input.")
]
StemsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Also write what is mixed, as FOLDER/instrumental and FOLDER/vocals in the format of the output. "
        "They do not change the song; the summary and --json say their own gain.",
    ),
]
VoiceOption = Annotated[
    str,
    typer.Option(
        metavar="FILE|ID",
        help="3 to 60 s of the voice that shall sing, speaking or singing; of more, the best 60 s are used. - reads"
        " standard input. Or the id of a registered voice (see `heartvoice voice`), which needs no --consent.",
        rich_help_panel=_VOICE,
    ),
]
ConsentOption = Annotated[
    str,
    typer.Option(
        metavar="TEXT|@FILE|-",
        help=f"Who consents to the use of the voice, and how; at most {MAX_CONSENT_CHARS} characters. "
        "Required with a voice. @FILE reads a file, - standard input.",
        rich_help_panel=_VOICE,
    ),
]
NoVocalsOption = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(NO_VOCALS_MODES),
        help="What becomes of music in which nobody sings. Default: passthrough, it stays as it was.",
        rich_help_panel=_VOICE,
    ),
]
ReferenceCheckOption = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(REFERENCE_CHECK_MODES),
        help="What a second voice or music in a reference does. Default: warn; strict refuses it.",
        rich_help_panel=_VOICE,
    ),
]
UnknownWordsOption = Annotated[
    str | None,
    typer.Option(metavar="|".join(UNKNOWN_WORDS_MODES), help=UNKNOWN_WORDS_HELP),
]
AutoPitchOption = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(AUTO_PITCH_MODES),
        help=f"{AUTO_PITCH_HELP[0].upper()}{AUTO_PITCH_HELP[1:]} Default: {DEFAULT_AUTO_PITCH}.",
        rich_help_panel=_VOICE,
    ),
]


@dataclass(frozen=True)
class ServerChoice:
    """Server and timeouts of a command; each field is an option."""

    url: Annotated[str, typer.Option(envvar="HEARTVOICE_URL", help="gRPC endpoint.", rich_help_panel=_SERVER)] = (
        DEFAULT_URL
    )
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds until all must be there; inf waits for ever. Default: ten minutes, and one more for each "
            "second of audio.",
            rich_help_panel=_SERVER,
        ),
    ] = None
    serve: Annotated[
        Path | None,
        typer.Option(
            metavar="REPOSITORY",
            help="Start a server for this one job over an exported repository, in place of --url.",
            rich_help_panel=_SERVER,
        ),
    ] = None
    tls: TlsOption = False
    root_certificates: RootCertificatesOption = None
    private_key: PrivateKeyOption = None
    certificate_chain: CertificateChainOption = None
    token_file: TokenFileOption = None

    @contextmanager
    def client(self, interrupted: str, *jobs: Job) -> Iterator[Client]:
        """Yield a client; Ctrl-C prints `interrupted`, cancels on the server and exits with 130.

        Args:
            interrupted: what has become of the job.
            jobs: what the block asks for; with `--serve` they are checked before the server starts.

        Raises:
            InvalidRequestError: the server of `--serve` would refuse a job.
        """
        from heartvoice.client.sync import Client

        try:
            with _signals_unwind(), ExitStack() as stack:
                url = self.url if self.serve is None else stack.enter_context(own_server(self.serve, jobs))
                client = Client(
                    url, tls=self.tls, timeout_s=self.timeout, root_certificates=self.root_certificates,
                    private_key=self.private_key, certificate_chain=self.certificate_chain, token_file=self.token_file,
                )  # fmt: skip
                yield stack.enter_context(client)
        except KeyboardInterrupt:
            typer.echo(f"interrupted: {interrupted}", err=True)
            raise typer.Exit(INTERRUPTED) from None


def with_options(*settings: Setting) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of `ServerChoice` and one per setting, with range and default in the help.

    The command takes the choice as `server`, and the settings as keyword arguments. `stems` is no option here, because
    `StemsOption` sets it together with the folder.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        servers = inspect.signature(ServerChoice, eval_str=True).parameters
        own = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD and parameter.name != "server"
        ]
        added = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in servers.values()]
        parameters = [*own, *added, *(_option(setting) for setting in settings if setting is not STEMS)]

        def run(**arguments: Any) -> None:
            choice = ServerChoice(**{name: arguments.pop(name) for name in servers})
            command(server=choice, **arguments)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _option(setting: Setting) -> inspect.Parameter:
    flag, doc = option_name(setting), by_option(setting.doc)
    if setting.dtype == "BOOL":
        decls, help_text = f"{flag}/--no-{flag[2:]}", f"{doc} Default: {'yes' if setting.default else 'no'}."
    else:
        limits = setting.describe()
        decls, help_text = flag, f"{doc} {limits[0].upper()}{limits[1:]}. Default: {setting.default:g}."
    panel = _VOICE if setting in VOICE_SETTINGS else _SETTINGS
    option = typer.Option(decls, help=help_text, show_default=False, rich_help_panel=panel)
    annotated: Any = Annotated  # the type is known only at run time
    annotation = annotated[_PYTHON_TYPE[setting.dtype] | None, option]
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def one_standard_input(**sources: str) -> None:
    """Refuse more than one "-" or "@-" among these sources.

    Raises:
        InvalidRequestError: names the options.
    """
    names = [name for name, source in sources.items() if source in STANDARD_INPUT]
    if len(names) > 1:
        raise InvalidRequestError(f"{', '.join(names)}: expected at most one of them on standard input, got both")


def text_or_file(field: str, value: str) -> str:
    """Return an option's text, the file's for @FILE, or standard input for "-".

    A file keeps a text off the command line, which other users can read.

    Raises:
        InvalidRequestError: the value names a file without @, or the file cannot be read; see `_read_text`.
    """
    if value in STANDARD_INPUT:
        return _read_text(field, "-")
    # Not pathlib, which raises for names that no file can have.
    path = os.path.expanduser(value.removeprefix("@"))  # noqa: PTH111
    if value.startswith("@"):
        return _read_text(field, path)
    if os.path.exists(path) and not os.path.isdir(path):  # noqa: PTH110, PTH112
        raise InvalidRequestError(
            f"{field}: expected text or @FILE, got the name of a file: did you mean @{value}?"
            " (A blank after it makes it text.)"
        )
    if value.lower().endswith(_TEXT_FILES) and not any(character.isspace() for character in value):
        raise InvalidRequestError(
            f"{field}: expected text or @FILE, got {value!r}, which looks like a file that does not exist"
            " (a blank after it makes it text)"
        )
    return value


def _read_text(field: str, source: str) -> str:
    """Read a text file, or standard input for "-", up to the size limit of a request.

    Raises:
        InvalidRequestError: it cannot be read, is too long, or is not UTF-8.
    """
    most = MAX_TEXT_BYTES + len(codecs.BOM_UTF8)
    try:
        if source == "-":
            data = sys.stdin.buffer.read(most + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(most + 1)
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InvalidRequestError(f"{field}: expected UTF-8, got UTF-16; save the file again as UTF-8")
        if len(data) > most:
            raise InvalidRequestError(f"{field}: expected at most {MAX_TEXT_BYTES} bytes of UTF-8, got more")
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            byte = data[error.start]
            raise InvalidRequestError(f"{field}: expected UTF-8, got byte {byte:#04x} at {error.start}") from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidRequestError(f"{field}: cannot read {source!r}: {reason}") from error


def read_voice(source: str) -> Recording:
    """Read a voice reference; see `read_recording`."""
    return read_recording(source, field="--voice", limits_s=VOICE_LIMITS_S)


def read_recording(source: str, *, field: str = "recording", limits_s: Limits = STEMS_LIMITS_S) -> Recording:
    """Read the file of that name, or standard input for "-".

    Warnings about a file that is too large to be sent as it is are printed: it was decoded here.

    Raises:
        InvalidRequestError: it cannot be read, is empty or too large.
    """
    if source != "-":
        recording = as_recording(source, field=field, limits_s=limits_s)
    elif sys.stdin.isatty():
        raise InvalidRequestError(f"{field}: expected a file on standard input, got a terminal")
    else:
        recording = as_recording(sys.stdin.buffer.read(MAX_LOCAL_FILE_BYTES + 1), field=f"{field} -", limits_s=limits_s)
    for warning in recording.warnings:
        typer.echo(f"warning: {escape_controls(recording.name)}: {warning}", err=True)
    return recording


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the block like Ctrl-C: cancel on the server, leave no file."""

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
