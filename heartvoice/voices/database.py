"""The registry's database: SQLite in one file, whose every change is one transaction.

Whatever is deleted is overwritten (`secure_delete`), and there is no write-ahead log that would keep it. A process that
is killed leaves the state before or after a transaction. References are in the file, too: a key and what it encrypts
appear and vanish together.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heartvoice.errors import ModelUnavailableError, RegistryError

FILE = "registry.sqlite3"
_VERSION = 1
_BUSY_S = 30.0
_OF_THE_DISK = ("disk", "full", "unable to open", "readonly")
"""Words of SQLite's messages that blame the disk and not the file."""
_SCHEMA = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE log (
        n INTEGER PRIMARY KEY, entry TEXT NOT NULL, hash TEXT NOT NULL, signature BLOB NOT NULL
    )""",
    "CREATE TABLE keys (n INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL UNIQUE, wrapped BLOB NOT NULL)",
    """CREATE TABLE sealed (
        n INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, part TEXT NOT NULL, content BLOB NOT NULL,
        UNIQUE (subject, part)
    )""",
    "CREATE TABLE tombstones (subject TEXT PRIMARY KEY, content TEXT NOT NULL, signature BLOB NOT NULL)",
    "CREATE TRIGGER log_is_kept BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'the log is kept'); END",
    "CREATE TRIGGER log_is_not_changed BEFORE UPDATE ON log BEGIN SELECT RAISE(ABORT, 'the log is kept'); END",
)
_PRAGMAS = (
    "journal_mode = DELETE",
    "secure_delete = ON",
    "synchronous = EXTRA",  # a rollback journal that comes back would undo a purge
    "temp_store = MEMORY",
    "trusted_schema = OFF",
)


class Database:
    """One connection; every statement goes through `run`."""

    def __init__(self, folder: Path) -> None:
        """Open the file of a folder, which is made with mode 0700 if it is missing.

        Raises:
            RegistryError: it is no database, or of another version.
            OSError: it cannot be opened.
        """
        self.path = folder / FILE
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        try:
            for pragma in _PRAGMAS:
                self.run(f"PRAGMA {pragma}")
            version = self.run("PRAGMA user_version")[0][0]
        except BaseException:
            self.close()
            raise
        if version not in (0, _VERSION):
            self.close()
            raise RegistryError(f"{self.path}: expected version {_VERSION} of a registry, got {version}")
        self.is_new = version == 0

    def create(self) -> None:
        """Make the tables, inside a transaction."""
        for statement in _SCHEMA:
            self.run(statement)
        self.run(f"PRAGMA user_version = {_VERSION}")
        self.is_new = False

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows.

        Raises:
            ModelUnavailableError: another process holds the database.
            RegistryError: the file is damaged, or was changed by other means.
        """
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ModelUnavailableError(f"{self.path}: another process is writing to it; try again") from error
            if any(word in str(error) for word in _OF_THE_DISK):
                raise OSError(f"{self.path}: {error}") from error
            raise RegistryError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise RegistryError(f"{self.path}: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A block whose changes are kept together, or not at all."""
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
