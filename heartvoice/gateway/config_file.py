"""Reads a gateway's options from a TOML file."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

from heartvoice.errors import InvalidRequestError
from heartvoice.gateway.options import Option, all_options, flag

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_config(path: Path) -> dict[str, Any]:
    """Read the options that a file sets.

    Keys are the command line's option names without `--`. Relative paths are relative to the file's folder.
    `GatewayOptions` and `Limits` check ranges, together with the values of the command line.

    Returns:
        Values by field name.

    Raises:
        InvalidRequestError: the file is missing or no TOML, a key is unknown, or a value has another type; it names
            file, key and value, and what is allowed.
    """
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise InvalidRequestError(f"--config: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path}: expected TOML: {error}") from error
    known = {flag(option.name).removeprefix("--"): option for option in all_options()}
    return {_known(path, key, known).name: _value(path, key, value, known[key]) for key, value in table.items()}


def _known(path: Path, key: str, known: dict[str, Option]) -> Option:
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
        raise InvalidRequestError(f"{path}: {key}: unknown key; {advice}")
    return known[key]


def _value(path: Path, key: str, value: Any, option: Option) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if option.kind is bool:
        expected, fits = "true or false", isinstance(value, bool)
    elif option.kind is int:
        expected, fits = "a whole number", isinstance(value, int) and is_number
    elif option.kind is float:
        expected, fits, value = "a number", is_number, float(value) if is_number else value
    elif option.kind is str:
        expected, fits = "a text", isinstance(value, str)
    elif option.kind == tuple[str, ...]:
        expected = "a list of texts"
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        value = tuple(value) if fits else value
    else:
        expected, fits = "a file's name", isinstance(value, str) and bool(value)
        value = path.parent / Path(value).expanduser() if fits else value
    if not fits:
        raise InvalidRequestError(f"{path}: {key}: expected {expected}, got {value!r}")
    return value
