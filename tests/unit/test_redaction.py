"""What logs may hold of a failure."""

from __future__ import annotations

import pytest

from heartvoice.redaction import traceback_without_messages


def _fails(lyrics: str) -> None:
    float(lyrics)


def _fails_again(lyrics: str) -> None:
    try:
        _fails(lyrics)
    except ValueError as error:
        raise RuntimeError(f"no number: {error}") from error


def test_where_names_the_place_and_the_types_and_repeats_no_message() -> None:
    with pytest.raises(RuntimeError) as caught:
        _fails_again("my secret love")
    text = traceback_without_messages(caught.value)
    assert text.startswith("builtins.RuntimeError\n")
    assert "caused by builtins.ValueError\n" in text
    assert "in _fails" in text
    assert "test_redaction.py" in text
    assert "my secret love" not in text


def test_where_says_which_error_the_system_had_and_about_no_file() -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        open("/no/such/lyrics.txt")  # noqa: PTH123, SIM115
    text = traceback_without_messages(caught.value)
    assert text.startswith("builtins.FileNotFoundError (errno 2)")
    assert "No such file" not in text


def test_where_ends_with_errors_that_cause_each_other() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert traceback_without_messages(first).count("ValueError") == 2
