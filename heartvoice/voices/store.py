"""A registry's file, log and vault, opened and checked; and its transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from heartvoice.errors import InvalidRequestError, RegistryError
from heartvoice.voices import keys as key_files
from heartvoice.voices.database import FILE, Database
from heartvoice.voices.keys import open_keys
from heartvoice.voices.limits import Limits
from heartvoice.voices.log import Log
from heartvoice.voices.records import new_id
from heartvoice.voices.vault import Vault

S = TypeVar("S", bound="Store")


class Store:
    """What all of a registry's work rests on."""

    def __init__(
        self,
        folder: Path,
        *,
        keys: Path | None = None,
        create: bool = False,
        limits: Limits | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open a registry.

        Args:
            folder: holds the database.
            keys: folder of the service's keys; None is the default one.
            create: make registry and keys if they are missing.
            limits: of owners.
            now: Unix time.

        Raises:
            InvalidRequestError: there is none, or its keys are missing.
            RegistryError: it was changed, is damaged, or belongs to other keys.
            OSError: it cannot be read or written.
        """
        if not create and not (folder / FILE).is_file():
            raise InvalidRequestError(
                f"registry: expected a folder with {FILE}, got {str(folder)!r}; the first `heartvoice voice consent` "
                "makes one"
            )
        self._now, self._limits = now, limits or Limits()
        self._keys = open_keys(keys or key_files.default_folder(), create=create and not (folder / FILE).is_file())
        self._database = Database(folder)
        try:
            self._id = self._identify()
            self._vault = Vault(self._database, self._keys, self._id)
            self._log = Log(self._database, self._keys, self._id)
            self._stale = False
        except BaseException:
            self.close()
            raise

    def _identify(self) -> str:
        """Return the registry's id; make the tables if there are none."""
        if self._database.is_new:
            with self._database.transaction():
                if self._database.run("PRAGMA user_version")[0][0] == 0:  # no other process was faster
                    self._database.create()
                    for name, value in (("registry", new_id("registry")), ("keys", self._keys.fingerprint)):
                        self._database.run("INSERT INTO about VALUES (?, ?)", name, value)
        about: dict[str, str] = dict(self._database.run("SELECT name, value FROM about"))
        if about.get("keys") != self._keys.fingerprint:
            raise RegistryError(f"{self._database.path}: made with other keys than those in {self._keys.folder}")
        return about["registry"]

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    @contextmanager
    def _changing(self) -> Iterator[Log]:
        """A transaction whose block sees the log as it is now; it is kept as a whole, or not at all."""
        with self._database.transaction():
            log = self._log_now()
            n = log.n
            try:
                yield log
            finally:
                self._stale = log.n != n  # until it is known that the entries of this block are kept
        self._stale = False
        log.remember()

    def _log_now(self) -> Log:
        if self._stale:  # entries that were added were not kept
            self._log = Log(self._database, self._keys, self._id)
            self._stale = False
        else:
            self._log.refresh()
        return self._log
