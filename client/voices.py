"""The registry of voices on this machine, for callers in Python; `heartvoice voice` prints what this returns."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heartvoice.client.recordings import read_file
from heartvoice.client.registered_voices import owner_name, registry_folder
from heartvoice.errors import InvalidRequestError
from heartvoice.optional_dependencies import require
from heartvoice.secret_files import replace_secret

if TYPE_CHECKING:
    from heartvoice.voices.limits import Checks
    from heartvoice.voices.records import Consent, VoiceRecord, VoiceStatus
    from heartvoice.voices.registry import Registry

FileLike = str | os.PathLike[str] | bytes
"""An encoded sound file: its path, or its bytes."""


class Voices:
    """An owner's voices in a registry on this machine. Every call opens the registry anew; threads may share this.

    Every call can raise:

    * InvalidRequestError: there is no such registry, consent or voice of the owner's, or its state forbids it.
    * RegistryError: the registry is not what was written.
    * ModelUnavailableError: the extra `trust` is missing, or another process is writing for long.
    * OSError: the registry cannot be read or written.
    """

    def __init__(
        self,
        registry: str | os.PathLike[str] | None = None,
        owner: str | None = None,
        *,
        forget: Callable[[bytes], object] | None = None,
    ) -> None:
        """Prepare; nothing is opened before the first call.

        Args:
            registry: folder; None is $HEARTVOICE_REGISTRY, else `heartvoice` in the user's data.
            owner: whose voices; None is $HEARTVOICE_OWNER, else the user's name.
            forget: has a server forget the voice of a reference, an encoded file; `purge` calls it.
        """
        self._registry, self._owner, self._forget = registry, owner, forget

    @property
    def owner(self) -> str:
        """Whose voices these are."""
        return owner_name(self._owner)

    def consent(self, *, speaker: str, purpose: str, service: str = "heartvoice", locale: str = "en") -> Consent:
        """Ask for a consent: a text to be read aloud, valid for ten minutes and one try.

        The first one makes the registry and its keys.

        Args:
            speaker: the person whose voice it is.
            purpose: what the voice is for.
            service: who makes the songs.
            locale: language of the text: en, de, es or fr.

        Raises:
            QuotaError: the owner has asked too often.
        """
        with self._open(create=True) as opened:
            return opened.consent(self.owner, speaker=speaker, purpose=purpose, service=service, locale=locale)

    def enrol(
        self,
        consent_id: str,
        phrase: FileLike,
        references: Sequence[FileLike],
        checks: Callable[[str], Checks],
        *,
        tries_per_hour: int | None = None,
    ) -> VoiceRecord:
        """Enrol a voice by its consent, if the recordings pass the checks. The consent is used up in any case.

        Args:
            consent_id: of `consent`.
            phrase: a recording in which the text is read.
            references: 3 to 60 s of the voice each; the first one sings.
            checks: opens the checks for a locale, such as `heartvoice.judges.voice_checks.open_voice_checks`, which
                needs the extra `evaluate`.
            tries_per_hour: what the owner may try in an hour; None is 5.

        Raises:
            InvalidRequestError: also if a recording is unreadable or fails a check: nothing is kept.
            QuotaError: too many tries.
        """
        files = [_content(phrase, "phrase"), *(_content(each, "reference") for each in references)]
        with self._open(tries_per_hour=tries_per_hour) as opened:
            locale = opened.open_consent(self.owner, consent_id).locale  # before anything is fetched
            return opened.enrol(self.owner, consent_id, files[0], files[1:], checks(locale))

    def list(self) -> Sequence[VoiceStatus]:
        """Return the owner's voices, in the order of their last change."""
        with self._open() as opened:
            return opened.voices(self.owner)

    def show(self, voice_id: str) -> VoiceRecord:
        """Return a voice's consent record, or the tombstone of a purged one, checked."""
        with self._open() as opened:
            return opened.voice(self.owner, voice_id)

    def approve(self, voice_id: str, *, by: str, why: str) -> VoiceRecord:
        """Let an unverified voice sing, on the word of a person, whom the record names.

        Args:
            voice_id: of the voice.
            by: who approves.
            why: what they know, such as: heard it read, saw a passport.
        """
        with self._open() as opened:
            return opened.approve(self.owner, voice_id, by=by, why=why)

    def revoke(self, voice_id: str) -> VoiceStatus:
        """End the use of a voice. Record and recordings stay as evidence until it is purged."""
        with self._open() as opened:
            return opened.revoke(self.owner, voice_id)

    def purge(self, voice_id: str, *, forget: bool = True) -> VoiceRecord:
        """Destroy a voice's key, recordings and record; a signed tombstone stays. Again, it changes nothing.

        With a server, as of a `Client`, the voice is revoked first, then the server forgets it, and then it is purged.
        If the server cannot be told, the voice stays revoked, and nothing is destroyed: the reference is what tells it.

        Args:
            voice_id: of the voice.
            forget: false tells no server: none runs, or it was restarted since.

        Raises:
            HeartvoiceError: also what the server answers.
        """
        with self._open() as opened:
            if forget and self._forget is not None and (references := opened.references(self.owner, voice_id)):
                opened.revoke(self.owner, voice_id)  # from here on nobody sends it to a server
                for each in references:
                    self._forget(each)
            return opened.purge(self.owner, voice_id)

    def export(self, voice_id: str, output: str | os.PathLike[str]) -> tuple[str, ...]:
        """Write all that is kept of a voice into a ZIP of mode 0600, for the person whose voice it is.

        Args:
            voice_id: of the voice.
            output: a name ending in .zip; an existing file is replaced.

        Returns:
            The names of the files in it.
        """
        if Path(output).suffix.lower() != ".zip":
            raise InvalidRequestError(f"output: expected a name ending in .zip, got {os.fspath(output)!r}")
        with self._open() as opened:
            files = opened.export(self.owner, voice_id)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        replace_secret(Path(output), packed.getvalue())
        return tuple(files)

    def _open(self, *, create: bool = False, tries_per_hour: int | None = None) -> Registry:
        require("trust", "cryptography")
        from heartvoice.voices.limits import Limits
        from heartvoice.voices.registry import Registry

        limits = Limits() if tries_per_hour is None else Limits(tries_per_hour=tries_per_hour)
        folder = registry_folder(None if self._registry is None else Path(self._registry))
        return Registry(folder, create=create, limits=limits)


def _content(file: FileLike, field: str) -> bytes:
    return file if isinstance(file, bytes) else read_file(file, field)
