"""The append-only log of transitions: a hash chain whose every entry is signed.

It is the only truth about states: they are replayed from it, and no row beside it says more. Entries hold ids, owners,
states and hashes, and stay after a purge. The public key verifies the last entry's signature, and so the whole chain.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from heartvoice.errors import RegistryError
from heartvoice.voices.database import Database
from heartvoice.voices.keys import ServiceKeys
from heartvoice.voices.records import NEXT_STATES, UNFINISHED, canonical, digest

KIND = "log entry"
_BEGINNING = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One transition."""

    n: int
    """From 1, without gaps."""
    at_ms: int
    """Unix time."""
    subject: str
    owner: str
    state: str
    """After it."""
    why: str
    """One of few words, never free text."""
    consent: str
    """Id of the voice's consent record."""
    digest: str
    """Sha256 of the record or tombstone of this state; "" if there is none."""
    previous: str
    """Hash of the entry before."""

    def content(self, registry: str) -> bytes:
        """Return what is hashed."""
        return canonical({"registry": registry, **self.__dict__})


class Log:
    """The log of one registry, read up to its last entry seen."""

    def __init__(self, database: Database, keys: ServiceKeys, registry: str) -> None:
        """Read and check the whole log.

        Raises:
            RegistryError: see `refresh`.
        """
        self._database, self._keys, self._registry = database, keys, registry
        self.n, self.hash = 0, _BEGINNING
        self._subjects: dict[str, Entry] = {}
        self._unfinished: dict[str, Entry] = {}
        """Those of `_subjects` that are looked through at each change; all would make 10,000 voices slow."""
        self._times: dict[tuple[str, str], list[int]] = {}
        known = keys.read_head(registry)
        self._known = known if known is not None else (0, _BEGINNING)
        self.refresh()
        if self.n < self._known[0]:
            raise RegistryError(
                f"{database.path}: its log ends at entry {self.n}, and entry {self._known[0]} was written: this is an "
                f"older copy, or its end was cut off. What was revoked or purged since would be back. Whoever accepts "
                f"that removes {keys.folder / registry}.head"
            )

    def refresh(self) -> None:
        """Read and check the entries that were added, by any process.

        Raises:
            RegistryError: an entry was changed, left out or added by others.
        """
        rows = self._database.run("SELECT n, entry, hash, signature FROM log WHERE n > ? ORDER BY n", self.n)
        if not rows:
            last = self._database.run("SELECT hash FROM log WHERE n = ?", self.n)
            if self.n and (not last or last[0][0] != self.hash):
                raise RegistryError(f"{self._database.path}: entry {self.n} of its log was changed or removed")
            return
        for n, text, hashed, _ in rows:
            self._take(n, text, hashed)
        # Each hash covers the one before, so one signature covers all entries.
        self._keys.check(KIND, self.hash.encode(), rows[-1][3])

    def _take(self, n: int, text: str, hashed: str) -> None:
        where = f"{self._database.path}: entry {n} of its log"
        try:
            entry = Entry(**json.loads(text))
            right = entry.n == n == self.n + 1 and entry.previous == self.hash
        except (TypeError, ValueError) as error:
            raise RegistryError(f"{where} is damaged: {type(error).__name__}") from error
        if not right or digest(entry.content(self._registry)) != hashed:
            raise RegistryError(f"{where} is not what was written: it was changed, or an entry before it is missing")
        if n == self._known[0] and hashed != self._known[1]:
            raise RegistryError(f"{where} is another than the one that was written")
        self._keep(entry, hashed)

    def _keep(self, entry: Entry, hashed: str) -> None:
        self.n, self.hash = entry.n, hashed
        self._subjects[entry.subject] = entry
        self._unfinished.pop(entry.subject, None)
        if entry.state in UNFINISHED:
            self._unfinished[entry.subject] = entry
        self._times.setdefault((entry.owner, entry.state), []).append(entry.at_ms)

    def append(self, at_s: float, status: Mapping[str, str], *, proof: str = "") -> Entry:
        """Add an entry, inside a transaction that has refreshed the log; if that is undone, the log is read anew.

        Args:
            at_s: Unix time.
            status: `subject`, `owner`, `state`, `why` and `consent`.
            proof: sha256 of the record or tombstone of the new state.

        Raises:
            RegistryError: the state may not follow on the one before.
        """
        before = self._subjects.get(status["subject"])
        if status["state"] not in NEXT_STATES.get(before.state if before else "", frozenset()):
            raise RegistryError(f"{status['subject']}: {status['state']} cannot follow on {before and before.state}")
        entry = Entry(self.n + 1, round(at_s * 1000), **status, digest=proof, previous=self.hash)
        hashed = digest(entry.content(self._registry))
        signature = self._keys.sign(KIND, hashed.encode())
        text = canonical(entry.__dict__).decode()
        self._database.run("INSERT INTO log VALUES (?, ?, ?, ?)", entry.n, text, hashed, signature)
        self._keep(entry, hashed)
        return entry

    def remember(self) -> None:
        """Remember the last entry beside the keys, after its transaction."""
        self._keys.keep_head(self._registry, self.n, self.hash)

    def last(self, subject: str) -> Entry | None:
        """Return the last entry of a subject."""
        return self._subjects.get(subject)

    def all_last(self, chosen: Callable[[Entry], bool]) -> list[Entry]:
        """Return the last entry of each subject that is chosen, in the order of the log."""
        return sorted((each for each in self._subjects.values() if chosen(each)), key=lambda each: each.n)

    def unfinished(self, chosen: Callable[[Entry], bool]) -> list[Entry]:
        """Return the last entry of each subject in one of `UNFINISHED` that is chosen, in the order of the log."""
        return [each for each in self._unfinished.values() if chosen(each)]

    def count_since(self, owner: str, state: str, since_s: float) -> int:
        """Count an owner's transitions into a state."""
        return sum(at >= since_s * 1000 for at in self._times.get((owner, state), ()))

    def entries(self, subjects: frozenset[str]) -> list[dict[str, Any]]:
        """Return all entries of some subjects, with hashes and signatures."""
        rows = self._database.run("SELECT entry, hash, signature FROM log ORDER BY n")
        read = [
            {**json.loads(text), "registry": self._registry, "hash": hashed, "signature": signature.hex()}
            for text, hashed, signature in rows
        ]
        return [each for each in read if each["subject"] in subjects]
