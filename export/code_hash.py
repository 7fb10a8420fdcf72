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
    collector = _Imports()
    collector.visit(ast.parse(path.read_bytes()))
    return collector.names


class _Imports(ast.NodeVisitor):
    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        """Skip the block of `if TYPE_CHECKING`."""
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        """Take `import heartvoice.module`."""
        self.names |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Take `from heartvoice.module import name`, where the name may be a module."""
        if node.module:
            self.names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
