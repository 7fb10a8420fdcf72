"""Requests for songs and covers: frozen values, and how a client method's arguments become one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from heartvoice.arrays import Array
from heartvoice.client.arguments import SettingValue
from heartvoice.client.recordings import Recording, RecordingLike, as_recording
from heartvoice.client.registered_voices import RegisteredVoice, as_registered, look_up
from heartvoice.contracts.field_checks import COVER_LIMITS_S, VOICE_LIMITS_S
from heartvoice.contracts.texts import canonical_lyrics, lyrics_warnings
from heartvoice.errors import InvalidRequestError, LyricsWarning


@dataclass(frozen=True, eq=False)
class SongRequest:
    """A song to be made. What is None or missing takes the server's default.

    Attributes:
        lyrics: text; section marks such as [verse] are plain text.
        tags: text, comma separated: genre, mood, instruments; blanks around commas do not matter.
        settings: by the names of `contracts.SONG.settings`, ranges as there; `contracts.VOICE_SETTINGS` with a voice.
        style: float32 [D], HeartMuLa's style slot.
        codes: int32 [8, T] of a finished song, which is then decoded again instead of being written anew.
        unknown_words: what becomes of words outside a closed vocabulary, one of `contracts.UNKNOWN_WORDS_MODES`.
        voice: a reference of 3 to 60 s of the voice that shall sing (see `as_recording`), or a registered voice.
        consent: who consents to the use of the voice, and how; with a reference only, and then required.
        no_vocals: what a song in which nobody sings becomes, one of `contracts.NO_VOCALS_MODES`; with a voice only.
        auto_pitch: how the singing moves to the voice's pitch, one of `contracts.AUTO_PITCH_MODES`; likewise.
        reference_check: what a doubtful reference does, one of `contracts.REFERENCE_CHECK_MODES`; likewise.
    """

    lyrics: str = ""
    tags: str = ""
    settings: Mapping[str, SettingValue | None] = field(default_factory=dict)
    style: Array | None = None
    codes: Array | None = None
    voice: Recording | RegisteredVoice | None = None
    consent: str = ""
    no_vocals: str | None = None
    auto_pitch: str | None = None
    reference_check: str | None = None
    unknown_words: str | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in self.settings.items() if value is not None}
        object.__setattr__(self, "settings", MappingProxyType(given))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the model was not made for, known before the song; the song's report repeats it."""
        if not isinstance(self.lyrics, str) or self.codes is not None:
            return ()
        return lyrics_warnings(canonical_lyrics(self.lyrics))


@dataclass(frozen=True, eq=False)
class CoverRequest:
    """A cover to be made. What is None or missing takes the server's default.

    Attributes:
        recording: the song; its singer is replaced.
        voice: a reference of 3 to 60 s of the voice that shall sing, or a registered voice.
        consent: who consents to the use of the voice, and how; with a reference only, and then required.
        no_vocals: what a recording without vocals becomes, one of `contracts.NO_VOCALS_MODES`.
        settings: by the names of `contracts.COVER.settings`, ranges as there.
        auto_pitch: how the singing moves to the voice's pitch, one of `contracts.AUTO_PITCH_MODES`.
        reference_check: what a doubtful reference does, one of `contracts.REFERENCE_CHECK_MODES`.
    """

    recording: Recording
    voice: Recording | RegisteredVoice
    consent: str = ""
    no_vocals: str | None = None
    settings: Mapping[str, SettingValue | None] = field(default_factory=dict)
    auto_pitch: str | None = None
    reference_check: str | None = None


JobRequest = SongRequest | CoverRequest
"""A request that ends in a `Song`, or by `render` in a file."""


def as_request(  # noqa: PLR0913 (the parts of a request)
    lyrics: str | SongRequest,
    tags: str = "",
    *,
    style: Array | None = None,
    codes: Array | None = None,
    voice: RecordingLike | RegisteredVoice | None = None,
    consent: str = "",
    no_vocals: str | None = None,
    auto_pitch: str | None = None,
    reference_check: str | None = None,
    unknown_words: str | None = None,
    **settings: SettingValue | None,
) -> SongRequest:
    """Make a request of a client method's arguments; a `SongRequest` in the first place stands alone.

    A `LyricsWarning` is issued for section marks that the model was not made for.

    Raises:
        InvalidRequestError: a `SongRequest` and other arguments were given together, or the voice is no recording.
            The rest is checked when the request is encoded.
    """
    if isinstance(lyrics, SongRequest):
        others = (style, codes, voice, no_vocals, auto_pitch, reference_check, unknown_words)
        if tags or consent or settings or any(other is not None for other in others):
            raise InvalidRequestError("request: expected a SongRequest alone, got further song arguments beside it")
        return lyrics
    reference = None if voice is None else as_singer(voice)
    request = SongRequest(
        lyrics,
        tags,
        settings,
        style,
        codes,
        reference,
        consent,
        no_vocals,
        auto_pitch,
        reference_check,
        unknown_words,
    )
    for warning in request.warnings:
        warnings.warn(warning, LyricsWarning, stacklevel=3)  # of the caller of a client's method
    return request


def as_cover(
    recording: RecordingLike,
    voice: RecordingLike | RegisteredVoice,
    *,
    consent: str = "",
    no_vocals: str | None = None,
    auto_pitch: str | None = None,
    reference_check: str | None = None,
    **settings: SettingValue | None,
) -> CoverRequest:
    """Make a request of a client method's arguments.

    Raises:
        InvalidRequestError: the recording or the voice is none. The rest is checked when the request is encoded.
    """
    checked = as_recording(recording, limits_s=COVER_LIMITS_S)
    return CoverRequest(checked, as_singer(voice), consent, no_vocals, settings, auto_pitch, reference_check)


def as_voice(voice: RecordingLike) -> Recording:
    """Check a voice reference as `as_recording` does, with its own limits."""
    return as_recording(voice, field="voice", limits_s=VOICE_LIMITS_S)


def as_singer(voice: RecordingLike | RegisteredVoice) -> Recording | RegisteredVoice:
    """Check a voice reference as `as_voice` does; a text of an id's form that names no file is a registered voice."""
    if isinstance(voice, RegisteredVoice):
        return voice
    return as_registered(voice) or as_voice(voice)


def with_reference(request: JobRequest, registry: str | Path, owner: str | None) -> JobRequest:
    """Return a request with a registered voice's reference and consent record, out of a registry, in place of its id.

    Raises:
        InvalidRequestError: the owner has no such voice, or it may not sing; there is a consent text.
        ModelUnavailableError: the extra `trust` is missing.
        RegistryError: the registry is not what was written.
    """
    voice = as_registered(request.voice)
    if voice is None:
        return request
    recording, consent = look_up(voice, request.consent, registry, owner)
    return replace(request, voice=recording, consent=consent)
