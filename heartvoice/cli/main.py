"""The `heartvoice` command. Heavy subcommands are imported only when they are run or listed."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from heartvoice import __version__
from heartvoice.cli.option_names import errors_by_option
from heartvoice.cli.terminal import escape_controls
from heartvoice.errors import HeartvoiceError, codes_of

LAZY_COMMANDS = {
    "song": ("heartvoice.cli.song", "song"),
    "cover": ("heartvoice.cli.cover", "cover"),
    "separate": ("heartvoice.cli.separate", "separate"),
    "similarity": ("heartvoice.cli.similarity", "similarity"),
    "examples": ("heartvoice.cli.examples", "examples"),
    "evaluate": ("heartvoice.cli.evaluate_separators", "app"),
    "weights": ("heartvoice.cli.weights", "app"),
    "export": ("heartvoice.cli.export", "app"),
    "serve": ("heartvoice.cli.serve", "serve"),
    "gateway": ("heartvoice.cli.gateway", "app"),
    "doctor": ("heartvoice.cli.serve", "doctor"),
    "health": ("heartvoice.cli.health", "health"),
    "verify": ("heartvoice.cli.verify", "verify"),
    "credits": ("heartvoice.cli.credits", "credits_"),
    "keys": ("heartvoice.cli.keys", "app"),
    "voice": ("heartvoice.cli.voice", "app"),
    "bench": ("heartvoice.cli.bench", "bench"),
}
"""Each command's module and function, or group, in the order of the help."""
# Typer's newer versions carry their own copy of click; this is the class in either.
_ClickException: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
_HELP = """Lyrics and tags in, a finished 48 kHz song out; or a recording in, the same song in another voice out.

First song on this machine, in a checkout, by the weights of a small procedural world:

    heartvoice export --preset demo --weights train/demo/weights

    heartvoice serve

    heartvoice song --lyrics @examples/lyrics.txt --tags @examples/tags.txt --temperature 0.7 --top-k 20 --cfg-scale 1

Without a checkout, `heartvoice export --preset tiny --random-weights 0` shows the whole path; its songs are noise.

In your own voice, as it sounds in a reference of 3 to 60 s:

    heartvoice song --lyrics @examples/lyrics.txt --voice reference.flac --consent "My own voice"

With a recording:

    heartvoice separate song.mp3 -o stems

    heartvoice cover song.mp3 --voice reference.flac --consent "My own voice" -o cover.wav

`heartvoice COMMAND --help` explains each.

Exit codes: 0 done, 1 failed, 2 invalid input, 3 unavailable, 4 too late, 130 interrupted.
"""


class LazyGroup(TyperGroup):
    """Commands by import path, and every error as one line on stderr and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (typer's)
        """All names, without importing anything."""
        return list(LAZY_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 (typer's)
        """Import the requested command."""
        if cmd_name not in LAZY_COMMANDS:
            return None
        if cmd_name != "serve":  # whose server inherits it
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read on import; gRPC's log would mix with our lines
        module, name = LAZY_COMMANDS[cmd_name]
        found = getattr(importlib.import_module(module), name)
        app = found
        if not isinstance(found, typer.Typer):  # a command, not a group
            app = typer.Typer(add_completion=False)
            app.command(cmd_name)(found)
        command: Any = typer.main.get_command(app)
        errors_by_option(command)
        return command

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line; exit with its code, or return it if not `standalone_mode`."""
        try:
            code = super().main(
                args=args, prog_name=prog_name, complete_var=complete_var, standalone_mode=False,
                windows_expand_args=windows_expand_args, **extra,
            )  # fmt: skip
            sys.stdout.flush()  # here, where a closed output can still be handled
        except BrokenPipeError:
            code = _hung_up()
        except (HeartvoiceError, OSError, KeyboardInterrupt, typer.Abort, _ClickException) as error:
            code = _explain(error)
        if standalone_mode:
            sys.exit(code)
        return code


def _hung_up() -> int:
    """End quietly after the reader closed our output: nothing may be flushed at exit."""
    with contextlib.suppress(OSError, ValueError):  # a test's stream has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _explain(error: BaseException) -> int:
    """Print an error as one line; return the exit code."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        typer.echo("interrupted", err=True)
        return 130
    text, code = str(error), 1
    if isinstance(error, _ClickException):
        usage: Any = error
        text, code = usage.format_message(), usage.exit_code
    elif isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    else:
        code = codes_of(error).exit_code
    typer.echo(f"error: {escape_controls(' '.join(text.split()))}", err=True)
    return code


app = typer.Typer(cls=LazyGroup, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"heartvoice {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, help=_HELP)
def root(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001 (its callback acts)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Show the help if no command is given."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main() -> None:
    """Entry point of the `heartvoice` command."""
    app(prog_name="heartvoice")


if __name__ == "__main__":
    main()
