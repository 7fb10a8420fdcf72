"""Names fields in messages by the options of the command that they came from."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from heartvoice.contracts.settings import RENDER_SETTINGS, RETURN_CODES, STEMS
from heartvoice.contracts.types import Setting
from heartvoice.errors import InvalidRequestError

_NAMES_APART = ", "
_QUOTED_OR_NAME = re.compile(r"'[^']*'|\"[^\"]*\"|(?<![\w./-])[a-z0-9]+(?:_[a-z0-9]+)+(?![\w/-]|\.\w)")
"""What is quoted, such as a file's name, and names of several words, which are no plain English."""


def option_name(setting: Setting) -> str:
    """Return the setting's name on the command line, such as `--duration` for `duration_s`."""
    name = setting.name.removesuffix("_s") if setting.unit == "s" else setting.name
    return "--" + name.replace("_", "-")


_MODES = ("auto_pitch", "no_vocals", "reference_check")
JOB_OPTIONS: Mapping[str, str] = {
    **{setting.name: option_name(setting) for setting in (*RENDER_SETTINGS, RETURN_CODES, STEMS)},
    **{mode: f"--{mode.replace('_', '-')}" for mode in _MODES},
    "voice_consent": "--consent",
}
"""The option of each field of a song and a cover that the contract names."""


def by_option(text: str, names: Mapping[str, str] = JOB_OPTIONS) -> str:
    """Return a message with options in place of fields: those it begins with, and those of a job in its text.

    Args:
        text: such as `svc_steps: expected 1 to 100, got 0`.
        names: the option of each field that it may begin with.
    """
    head, colon, rest = text.partition(": ")
    if not colon:
        return _in_text(head)
    fields = _NAMES_APART.join(names.get(field, field) for field in head.split(_NAMES_APART))
    return f"{fields}: {_in_text(rest)}"


def errors_by_option(command: Any) -> None:
    """Let a command and those below it raise errors about input that name its options in place of fields.

    Args:
        command: typer's, or a group.
    """
    for below in getattr(command, "commands", {}).values():
        errors_by_option(below)
    if command.callback is None:
        return
    names, callback = {**_options(command), **_job_options(command)}, command.callback

    @functools.wraps(callback)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return callback(*arguments, **options)
        except InvalidRequestError as error:
            text = by_option(str(error), names)
            if text == str(error):
                raise
            raise type(error)(text) from error

    command.callback = run


def _options(command: Any) -> dict[str, str]:
    """The first long option of each parameter, by the parameter's name and by its own."""
    named = {}
    for parameter in command.params:
        option = next((each for each in parameter.opts if each.startswith("--")), None)
        if option is not None:
            named[parameter.name] = named[option[2:].replace("-", "_")] = option
            named[f"{parameter.name}_s"] = option  # seconds, such as `timeout_s`
    return named


def _job_options(command: Any) -> dict[str, str]:
    """`JOB_OPTIONS` of which the command has the option."""
    known = {option for parameter in command.params for option in parameter.opts}
    return {field: option for field, option in JOB_OPTIONS.items() if option in known}


def _in_text(text: str) -> str:
    return _QUOTED_OR_NAME.sub(lambda found: JOB_OPTIONS.get(found[0], found[0]), text)
