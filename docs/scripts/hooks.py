"""Hooks of mkdocs: the command line's options, sounds, and links that leave docs/.

The page on the command line is filled from the commands themselves, and sounds are made by the committed weights, when
the site is built: neither can be outdated.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from docs.scripts.reference import replaced, table
from docs.scripts.sounds import FOLDER, make
from heartvoice.cli.main import app

_LINK = re.compile(r"\[(?P<text>[^\]\n]+)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by mkdocs with each page's source; returns what is rendered."""
    if page.file.src_uri == "reference/cli.md":
        markdown = replaced(markdown, "commands", commands())
    return without_outside_links(markdown, page.file.src_uri)


def on_post_build(config: Any, **_: Any) -> None:
    """Called by mkdocs after the pages are written; makes the sounds of the page on the demo world."""
    make(Path(config["site_dir"]) / FOLDER)


def without_outside_links(markdown: str, page: str) -> str:
    """The page with links to files outside docs/ turned into their text and path: the site does not have them."""

    def shown(link: re.Match[str]) -> str:
        target = link["target"]
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
        if ":" in target or path.startswith("docs/"):
            return link[0]
        return f"{link['text']} (`{path}`)"

    return _LINK.sub(shown, markdown)


def commands() -> str:
    """Every command with its help and options, as Markdown."""
    root: Any = typer.main.get_command(app)
    return "\n\n".join(_sections(root, "heartvoice"))


def _sections(command: Any, path: str) -> Iterator[str]:
    """The command's section, then those of its sub-commands."""
    context = command.context_class(command, info_name=path)
    if path != "heartvoice":
        options = [_option(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
        yield f"## {path}\n\n{_text(command.help)}\n\n{table(('option', 'default', 'meaning'), options)}"
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            yield from _sections(command.get_command(context, name), f"{path} {name}")


def _text(text: str | None) -> str:
    return (text or "").replace("\f", "").strip()


def _option(parameter: Any) -> list[str]:
    names = ", ".join((*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        names = parameter.metavar or parameter.name.upper()
    default = parameter.default
    shown = (
        "" if default is None or callable(default) or default == "" or type(default).__name__ == "Sentinel" else default
    )
    meaning = _text(getattr(parameter, "help", "")).replace("\n", " ").replace("|", "\\|")
    return [f"`{names}`", f"`{shown}`" if shown != "" else "", meaning]
