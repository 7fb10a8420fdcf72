"""Sealed parts of consents and voices: a key for each subject, wrapped by the service's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heartvoice.errors import RegistryError
from heartvoice.voices.database import Database
from heartvoice.voices.keys import ServiceKeys, new_key, seal, unseal
from heartvoice.voices.log import Entry
from heartvoice.voices.records import canonical, digest

RECORD, TOMBSTONE = "consent record", "tombstone"
_RECORD_PARTS = ("record", "record signature")


class Vault:
    """Reads and writes sealed parts; writing goes inside a transaction of the database."""

    def __init__(self, database: Database, keys: ServiceKeys, registry: str) -> None:
        self._database, self._keys, self._registry = database, keys, registry

    def make_key(self, subject: str) -> bytes:
        """Make and keep the key of a new subject."""
        key = new_key()
        wrapped = seal(self._keys.wrapping, key, place=self._place(subject, "key"))
        self._database.run("INSERT INTO keys (subject, wrapped) VALUES (?, ?)", subject, wrapped)
        return key

    def key(self, subject: str) -> bytes:
        """Return a subject's key.

        Raises:
            RegistryError: it is missing, changed or another's.
        """
        rows = self._database.run("SELECT wrapped FROM keys WHERE subject = ?", subject)
        return unseal(self._keys.wrapping, rows[0][0] if rows else b"", place=self._place(subject, "key"))

    def keep(self, subject: str, key: bytes, part: str, content: bytes) -> None:
        """Keep a part, which replaces one of that name."""
        sealed = seal(key, content, place=self._place(subject, part))
        self._database.run("DELETE FROM sealed WHERE subject = ? AND part = ?", subject, part)
        self._database.run("INSERT INTO sealed (subject, part, content) VALUES (?, ?, ?)", subject, part, sealed)

    def part(self, subject: str, key: bytes, part: str) -> bytes:
        """Return a part.

        Raises:
            RegistryError: it is missing, changed or another's.
        """
        rows = self._database.run("SELECT content FROM sealed WHERE subject = ? AND part = ?", subject, part)
        return unseal(key, rows[0][0] if rows else b"", place=self._place(subject, part))

    def forget(self, subject: str) -> None:
        """Destroy a subject's key, and what it sealed."""
        self._database.run("DELETE FROM keys WHERE subject = ?", subject)
        self._database.run("DELETE FROM sealed WHERE subject = ?", subject)

    def keep_record(self, voice_id: str, key: bytes, record: Mapping[str, Any]) -> bytes:
        """Sign and keep a voice's record; return what was signed."""
        content = canonical(record)
        for part, value in zip(_RECORD_PARTS, (content, self._keys.sign(RECORD, content)), strict=True):
            self.keep(voice_id, key, part, value)
        return content

    def record(self, entry: Entry) -> tuple[bytes, bytes]:
        """Return a voice's record and its signature.

        Raises:
            RegistryError: it is not the one that the log names.
        """
        key = self.key(entry.subject)
        content, signature = (self.part(entry.subject, key, part) for part in _RECORD_PARTS)
        self._check(RECORD, entry, content, signature)
        return content, signature

    def keep_tombstone(self, voice_id: str, tombstone: Mapping[str, Any]) -> bytes:
        """Sign and keep a tombstone; return what was signed."""
        content = canonical(tombstone)
        signature = self._keys.sign(TOMBSTONE, content)
        self._database.run("INSERT INTO tombstones VALUES (?, ?, ?)", voice_id, content.decode(), signature)
        return content

    def tombstone(self, entry: Entry) -> tuple[bytes, bytes]:
        """Return a purged voice's tombstone and its signature.

        Raises:
            RegistryError: it is not the one that the log names.
        """
        rows = self._database.run("SELECT content, signature FROM tombstones WHERE subject = ?", entry.subject)
        content, signature = (str(rows[0][0]).encode(), rows[0][1]) if rows else (b"", b"")
        self._check(TOMBSTONE, entry, content, signature)
        return content, signature

    def recording(self, voice_id: str, number: int, file_id: str) -> bytes:
        """Return a recording; 0 is the phrase.

        Raises:
            RegistryError: it is not the one that the record names.
        """
        content = self.part(voice_id, self.key(voice_id), recording_part(number))
        if self._keys.file_id(content) != file_id:
            raise RegistryError(f"{voice_id}: recording {number} is not the one that its record names")
        return content

    def _check(self, kind: str, entry: Entry, content: bytes, signature: bytes) -> None:
        if digest(content) != entry.digest:
            raise RegistryError(f"{entry.subject}: its {kind} is not the one that the log names")
        self._keys.check(kind, content, signature)

    def _place(self, subject: str, part: str) -> str:
        return f"{self._registry} {subject} {part}"


def recording_part(number: int) -> str:
    """Return the name of the part that holds a recording."""
    return f"recording {number}"
