"""The registry of voices: consents, enrolment, use, revocation and purge, for the owners of voices.

A consent is asked for, read aloud, and used once: `Registry.consent` and `Registry.enrol`. Only a verified voice sings.
Every change is one transaction with its entries in the log; what was begun and not finished is purged later.

Owners see their own voices alone; another's id is answered as an id that does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from heartvoice.contracts.field_checks import check_file_size, checked_line
from heartvoice.contracts.voice_ids import CONSENT, VOICE, is_id
from heartvoice.errors import InvalidRequestError, QuotaError
from heartvoice.voices import keys as key_files
from heartvoice.voices.limits import Checks
from heartvoice.voices.log import Entry, Log
from heartvoice.voices.phrases import choose_words, statement
from heartvoice.voices.records import (
    EXPIRED,
    OPEN,
    PENDING,
    PURGED,
    REVOKED,
    SINGS,
    UNVERIFIED,
    USED,
    VERIFIED,
    Consent,
    Examination,
    VoiceRecord,
    VoiceReference,
    VoiceStatus,
    canonical,
    digest,
    new_id,
    recording_file,
    utc,
)
from heartvoice.voices.store import Store
from heartvoice.voices.vault import recording_part

CONSENT_VALID_S = 600.0
_ABANDONED_S = 3600.0
"""Age of a pending voice that nobody is checking any more."""
_HOUR_S = 3600.0
_CLOCK_S = 60.0
"""How far clocks of processes may differ."""


class Registry(Store):
    """One registry on disk; safe to use from several processes, and from one thread of each."""

    # ------------------------------------------------------------------------------------------------------- consents

    def consent(self, owner: str, *, speaker: str, purpose: str, service: str, locale: str = "en") -> Consent:
        """Ask for a consent: a text with six random words, valid for ten minutes and one try.

        Args:
            owner: who will own the voice.
            speaker: name of the person whose voice it is.
            purpose: what the voice is for.
            service: who makes the songs.
            locale: language of the text, of `phrases.LANGUAGES`.

        Raises:
            InvalidRequestError: a text is missing, too long, or has control characters; no such locale.
            QuotaError: the owner has asked too often.
        """
        said = {
            "speaker": checked_line("speaker", speaker, 100, what="whose voice it is"),
            "purpose": checked_line("purpose", purpose, 200, what="what the voice is for"),
            "service": checked_line("service", service, 100, what="who makes the songs"),
        }
        checked_line("owner", owner, 100, what="who owns the voice")
        words, now = choose_words(locale), self._now()
        text = statement(locale, words=words, **said)
        made = Consent(
            new_id(CONSENT), locale=locale, words=words, text=text, issued_s=now, expires_s=now + CONSENT_VALID_S,
            **said,
        )  # fmt: skip
        self._sweep()
        with self._changing() as log:
            self._check_rate(log, owner, OPEN, self._limits.consents_per_hour, "consents asked for")
            key = self._vault.make_key(made.id)
            self._vault.keep(made.id, key, "consent", canonical({**made.__dict__, "words": list(words)}))
            log.append(now, _status(made.id, owner, OPEN, "asked", ""))
        return made

    def open_consent(self, owner: str, consent_id: str) -> Consent:
        """Return a consent that can still be used.

        Raises:
            InvalidRequestError: there is none of that id for the owner, or it was used or has expired.
        """
        entry = self._log_now().last(consent_id) if is_id(consent_id, CONSENT) else None
        if entry is None or entry.owner != owner:
            raise InvalidRequestError(f"consent: there is none {consent_id!r}")
        now = self._now()
        late = not entry.at_ms / 1000 - _CLOCK_S <= now <= entry.at_ms / 1000 + CONSENT_VALID_S
        if entry.state == USED:
            raise InvalidRequestError(f"consent: {consent_id} was used, and counts for one try; ask for another")
        if entry.state == EXPIRED or late:
            raise InvalidRequestError(
                f"consent: {consent_id} has expired, after {CONSENT_VALID_S / 60:g} minutes; ask for another"
            )
        told = json.loads(self._vault.part(consent_id, self._vault.key(consent_id), "consent"))
        return Consent(**{**told, "words": tuple(told["words"])})

    # ------------------------------------------------------------------------------------------------------ enrolment

    def enrol(
        self, owner: str, consent_id: str, phrase: bytes, references: Sequence[bytes], checks: Checks
    ) -> VoiceRecord:
        """Enrol a voice, which uses up the consent whatever comes of it.

        Args:
            owner: who asked for the consent.
            consent_id: of `consent`.
            phrase: encoded sound file in which the text is read.
            references: one or more encoded sound files of the voice; the first one sings.
            checks: examine them.

        Raises:
            InvalidRequestError: no valid consent; a recording is unreadable, or failed a check: nothing is kept.
            QuotaError: too many tries.
        """
        self._check_sizes(phrase, references)
        self._sweep()
        consent, voice_id = self._begin(owner, consent_id)
        try:
            found = checks.examine(consent, phrase, references)
        except BaseException:
            self._drop(voice_id, "not examined")
            raise
        if found.refused:
            self._drop(voice_id, "refused")
            why = "; ".join(f"{each.check}: {each.detail}" for each in found.refused)
            raise InvalidRequestError(f"enrolment refused: {why}. The consent is used up: ask for another")
        return self._finish(owner, voice_id, consent, found, (phrase, *references))

    def _check_sizes(self, phrase: bytes, references: Sequence[bytes]) -> None:
        limits = self._limits
        check_file_size("phrase", len(phrase), limits.phrase_bytes)
        if not 1 <= len(references) <= limits.references:
            raise InvalidRequestError(f"references: expected 1 to {limits.references}, got {len(references)}")
        for each in references:
            check_file_size("reference", len(each), limits.reference_bytes)

    def _begin(self, owner: str, consent_id: str) -> tuple[Consent, str]:
        """Use up the consent; from here on a killed process leaves a pending voice, which never sings."""
        voice_id, now = new_id(VOICE), self._now()
        with self._changing() as log:
            consent = self.open_consent(owner, consent_id)
            self._check_rate(log, owner, PENDING, self._limits.tries_per_hour, "enrolments tried")
            self._vault.forget(consent_id)
            log.append(now, _status(consent_id, owner, USED, "tried", ""))
            log.append(now, _status(voice_id, owner, PENDING, "begun", consent_id))
        return consent, voice_id

    def _finish(
        self, owner: str, voice_id: str, consent: Consent, found: Examination, recordings: Sequence[bytes]
    ) -> VoiceRecord:
        now, ids = self._now(), [self._keys.file_id(each) for each in recordings]
        record = {
            "format": "heartvoice consent record 1", "registry": self._id, "id": consent.id, "voice": voice_id,
            "owner": owner, "speaker": consent.speaker, "purpose": consent.purpose, "service": consent.service,
            "locale": consent.locale, "text": consent.text, "words": list(consent.words),
            "issued": utc(consent.issued_s), "enrolled": utc(now), "state": found.state, "phrase": ids[0],
            "references": ids[1:], "transcript": found.transcript,
            "checks": [each.as_json() for each in found.findings], "approval": None,
        }  # fmt: skip
        with self._changing() as log:
            if (entry := log.last(voice_id)) is None or entry.state != PENDING:
                raise InvalidRequestError(f"enrolment: {voice_id} was purged meanwhile")
            key = self._vault.make_key(voice_id)
            for number, each in enumerate(recordings):
                self._vault.keep(voice_id, key, recording_part(number), each)
            content = self._vault.keep_record(voice_id, key, record)
            log.append(now, _status(voice_id, owner, found.state, "enrolled", consent.id), proof=digest(content))
        return self.voice(owner, voice_id)

    # ----------------------------------------------------------------------------------------------------------- use

    def voices(self, owner: str) -> list[VoiceStatus]:
        """Return an owner's voices, in the order of their last change."""
        return [
            _as_status(each) for each in self._log_now().all_last(lambda entry: _is_voice(entry, owner))
        ]  # fmt: skip

    def voice(self, owner: str, voice_id: str) -> VoiceRecord:
        """Return a voice's record, checked; of a purged one the tombstone.

        Raises:
            InvalidRequestError: the owner has no such voice.
            RegistryError: the record is not what the log names.
        """
        entry = self._entry(owner, voice_id)
        if entry.state == PENDING:
            return VoiceRecord(_as_status(entry), {}, b"", b"")
        if entry.state == PURGED:
            content, signature = self._vault.tombstone(entry)
            return VoiceRecord(_as_status(entry), {}, content, signature)
        content, signature = self._vault.record(entry)
        return VoiceRecord(_as_status(entry), json.loads(content), content, signature)

    def reference(self, owner: str, voice_id: str) -> VoiceReference:
        """Return the reference of a voice that may sing.

        Raises:
            InvalidRequestError: the owner has no such voice, or it may not sing.
            RegistryError: record or recording are not what was enrolled.
        """
        entry = self._entry(owner, voice_id)
        if entry.state not in SINGS:
            why = {
                PENDING: "its enrolment was not finished",
                UNVERIFIED: "the checks could not decide: see `heartvoice voice show`, then approve it or purge it",
                REVOKED: "its consent was revoked",
                PURGED: "it was purged",
            }[entry.state]
            raise InvalidRequestError(f"voice: {voice_id} is {entry.state} and cannot sing: {why}")
        record = json.loads(self._vault.record(entry)[0])
        return VoiceReference(voice_id, entry.consent, self._vault.recording(voice_id, 1, record["references"][0]))

    def references(self, owner: str, voice_id: str) -> list[bytes]:
        """Return all references that are kept of a voice, whether it may sing or not.

        Raises:
            InvalidRequestError: the owner has no such voice.
            RegistryError: record or recordings are not what was enrolled.
        """
        record = self.voice(owner, voice_id).record
        names = record.get("references", ())
        return [self._vault.recording(voice_id, number, name) for number, name in enumerate(names, 1)]

    def export(self, owner: str, voice_id: str) -> dict[str, bytes]:
        """Return all that is kept of a voice, by file name.

        Raises:
            InvalidRequestError: the owner has no such voice, or nothing is kept of it.
        """
        made = self.voice(owner, voice_id)
        if not made.content:
            raise InvalidRequestError(f"voice: nothing is kept of {voice_id}, whose enrolment was not finished")
        subjects = frozenset({voice_id, made.status.consent})
        name = "record" if made.record else "tombstone"
        files = {
            f"{name}.json": made.content, f"{name}.sig": made.signature, key_files.PUBLIC_KEY: self._keys.public_pem,
            "log.json": json.dumps(self._log_now().entries(subjects), indent=1).encode(),
        }  # fmt: skip
        for number, file_id in enumerate((made.record["phrase"], *made.record["references"]) if made.record else ()):
            content = self._vault.recording(voice_id, number, file_id)
            files[recording_file(number, content)] = content
        return files

    # -------------------------------------------------------------------------------------------------------- changes

    def approve(self, owner: str, voice_id: str, *, by: str, why: str) -> VoiceRecord:
        """Let an unverified voice sing, on the word of a person, which the record names.

        Raises:
            InvalidRequestError: the owner has no such voice, or it is not unverified; a text is missing.
        """
        by = checked_line("by", by, 100, what="who approves")
        why = checked_line("why", why, 200, what="what they know of it")
        now = self._now()
        with self._changing() as log:
            entry = self._entry(owner, voice_id)
            if entry.state != UNVERIFIED:
                raise InvalidRequestError(f"voice: expected one that is {UNVERIFIED}, {voice_id} is {entry.state}")
            record = json.loads(self._vault.record(entry)[0])
            record |= {"state": VERIFIED, "approval": {"by": by, "why": why, "at": utc(now)}}
            content = self._vault.keep_record(voice_id, self._vault.key(voice_id), record)
            log.append(now, _status(voice_id, owner, VERIFIED, "approved", entry.consent), proof=digest(content))
        return self.voice(owner, voice_id)

    def revoke(self, owner: str, voice_id: str) -> VoiceStatus:
        """End the use of a voice; what is kept of it stays until it is purged. Again, it changes nothing.

        Raises:
            InvalidRequestError: the owner has no such voice, or it is pending or purged.
        """
        with self._changing() as log:
            entry = self._entry(owner, voice_id)
            if entry.state in (PENDING, PURGED):
                raise InvalidRequestError(f"voice: {voice_id} is {entry.state}, there is nothing to revoke")
            if entry.state != REVOKED:
                status = _status(voice_id, owner, REVOKED, "revoked", entry.consent)
                entry = log.append(self._now(), status, proof=entry.digest)
        return _as_status(entry)

    def purge(self, owner: str, voice_id: str) -> VoiceRecord:
        """Destroy a voice's key, recordings and record; a signed tombstone stays. Again, it changes nothing.

        Raises:
            InvalidRequestError: the owner has no such voice.
        """
        self._entry(owner, voice_id)
        self._drop(voice_id, "purged")
        return self.voice(owner, voice_id)

    def _drop(self, voice_id: str, why: str) -> None:
        with self._changing() as log:
            self._purge(log, voice_id, why)

    def _purge(self, log: Log, voice_id: str, why: str) -> None:
        entry, now = log.last(voice_id), self._now()
        if entry is None or entry.state == PURGED:
            return
        self._vault.forget(voice_id)
        tombstone = self._vault.keep_tombstone(
            voice_id,
            {
                "format": "heartvoice tombstone 1", "registry": self._id, "voice": voice_id, "consent": entry.consent,
                "owner": entry.owner, "was": entry.state, "why": why, "purged": utc(now),
            },
        )  # fmt: skip
        log.append(now, _status(voice_id, entry.owner, PURGED, why, entry.consent), proof=digest(tombstone))

    def _sweep(self) -> None:
        """Purge what was begun and left, and forget consents that nobody can use any more."""
        now = self._now()

        def is_left(entry: Entry) -> bool:
            age_s = now - entry.at_ms / 1000
            return (entry.state == OPEN and age_s > CONSENT_VALID_S) or (
                entry.state == PENDING and age_s > _ABANDONED_S
            )

        if not self._log_now().unfinished(is_left):
            return
        with self._changing() as log:
            for entry in log.unfinished(is_left):
                if entry.state == PENDING:
                    self._purge(log, entry.subject, "abandoned")
                else:
                    self._vault.forget(entry.subject)
                    log.append(now, _status(entry.subject, entry.owner, EXPIRED, "expired", ""))

    def _check_rate(self, log: Log, owner: str, state: str, most: int, what: str) -> None:
        if log.count_since(owner, state, self._now() - _HOUR_S) >= most:
            raise QuotaError(f"owner: expected at most {most} {what} in an hour; try again later")

    def _entry(self, owner: str, voice_id: str) -> Entry:
        entry = self._log_now().last(voice_id) if is_id(voice_id, VOICE) else None
        if entry is None or entry.owner != owner:
            raise InvalidRequestError(f"voice: there is none {voice_id!r}")
        return entry


def _status(subject: str, owner: str, state: str, why: str, consent: str) -> dict[str, str]:
    return {"subject": subject, "owner": owner, "state": state, "why": why, "consent": consent}


def _as_status(entry: Entry) -> VoiceStatus:
    return VoiceStatus(entry.subject, entry.owner, entry.state, entry.consent, entry.at_ms / 1000)


def _is_voice(entry: Entry, owner: str) -> bool:
    return entry.owner == owner and is_id(entry.subject, VOICE)
