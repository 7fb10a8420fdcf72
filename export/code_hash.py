"""Hashes the code that determines a graph. A graph made by different code is exported again."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

import heartvoice

ROOTS = ("heartvoice.export.parity_targets", "heartvoice.export.weights", "heartvoice.export.writer")
"""Modules that build and compare every graph, read its weights and write its file."""
_ROOMS = ("checkpoints", "config", "contracts", "export", "keyed_random", "models")
"""Packages whose imports are followed. Errors and engines change no byte of a graph."""


def code_files() -> dict[str, Path]:
    """List the files that `ROOTS` import, directly or not, sorted by path relative to the package.

    Imports for annotations alone (`if TYPE_CHECKING`) are not followed.
    """
    found: dict[str, Path] = {}
    package = Path(heartvoice.__file__).parent
    pending = list(ROOTS)
    while pending:
        path = _file(package, pending.pop())
        if path is not None and (relative := path.relative_to(package).as_posix()) not in found:
            found[relative] = path
            pending += _imports(path)
    return dict(sorted(found.items()))


@functools.cache
def code_hash() -> str:
    """Return the sha256 over name, length and content of `code_files`."""
    digest = hashlib.sha256()
    for relative, path in code_files().items():
        content = path.read_bytes()
        digest.update(f"{relative} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _file(package: Path, name: str) -> Path | None:
    """Return the file of a module or package in a followed package; None for anything else."""
    parts = name.split(".")
    if parts[0] != package.name or len(parts) == 1 or parts[1] not in _ROOMS:
        return None
    module = package.joinpath(*parts[1:])
    return next((path for path in (module.with_suffix(".py"), module / "__init__.py") if path.is_file()), None)


def _imports(path: Path) -> set[str]:
    """Return the names of the modules that a file may import, in functions too."""
    names, pending = set[str](), list[ast.stmt](ast.parse(path.read_bytes()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:  # the names may be modules
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif not _is_for_annotations(node):
            pending += _statements(node)
    return names


def _is_for_annotations(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _statements(node: ast.AST) -> list[ast.stmt]:
    """Return the statements inside a statement. Expressions hold none, and are most of a tree."""
    found = list[ast.stmt]()
    for field in ("body", "orelse", "finalbody"):
        found += getattr(node, field, [])
    for field in ("handlers", "cases"):
        for block in getattr(node, field, []):
            found += _statements(block)
    return found
