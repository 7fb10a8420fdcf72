"""Hostile arguments, files and servers against the commands: one clear line, nothing left behind, nothing obeyed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.callers import folder, heartvoice, listing  # noqa: F401
from tests.unit.cli.test_hostile_files import process


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lyrics", "@/dev/zero"], b"error: --lyrics: expected at most 20000 bytes"),
        (["--tags", "@/dev/zero"], b"error: --tags: expected at most 20000 bytes"),
        (["--tags", "pop", "--codes", "/dev/zero"], b"error: --codes: expected a .npy file"),
    ],
    ids=["lyrics", "tags", "codes"],
)
def test_an_endless_file_is_not_read_to_its_end(arguments: list[str], message: bytes) -> None:
    run = process("song", *arguments)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 2, said
    assert said.startswith(message), said


@pytest.mark.parametrize("source", ["--lyrics", "--voice"])
def test_endless_standard_input_is_not_read_to_its_end(source: str) -> None:
    more = ["--tags", "pop", "--consent", "me"] if source == "--voice" else []
    with Path("/dev/zero").open("rb") as zeros:
        run = process("song", source, "-", *more, stdin=zeros)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 2, said
    assert b"expected at most" in said, said
