"""The site's hooks: every command's options, and links that leave docs/."""

from __future__ import annotations

import re

from docs.scripts.hooks import commands, without_outside_links
from heartvoice.cli.main import LAZY_COMMANDS
from heartvoice.contracts.models import SONG


def test_every_command_has_a_section_with_its_options() -> None:
    text = commands()
    sections = dict(re.findall(r"^## (heartvoice [\w -]+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    assert {name.split()[1] for name in sections} == set(LAZY_COMMANDS)
    assert {"heartvoice weights pull", "heartvoice gateway token", "heartvoice export check"} <= set(sections)
    for setting in SONG.settings:
        if setting.name not in ("stems", "events", "live"):
            assert f"--{setting.name.removesuffix('_s').replace('_', '-')}" in sections["heartvoice song"], setting.name


def test_links_out_of_the_pages_become_paths_and_others_stay() -> None:
    page = "[a](../reference/models.md#x) [b](../../benchmarks/DIARY.md#memory) [c](https://example.org) [d](#here)"
    assert without_outside_links(page, "how-to/operations.md") == (
        "[a](../reference/models.md#x) b (`benchmarks/DIARY.md`) [c](https://example.org) [d](#here)"
    )
