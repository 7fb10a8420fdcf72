"""The lyric error of a recording: the words that Whisper hears against the lyrics, by edit distance."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from heartvoice.errors import InvalidRequestError
from heartvoice.evaluation.lyric_text import CHARACTER_LANGUAGES, language_of, lyric_words, words
from heartvoice.evaluation.transcriber import Transcriber


@dataclass(frozen=True)
class LyricJudgeOrigin:
    """Where the judge's weights come from."""

    name: str
    origin: str
    licence: str
    sha256: str
    """Of `model.bin`."""


@dataclass(frozen=True)
class LyricError:
    """What was heard in one recording, against its lyrics."""

    error: float
    """Substituted, deleted and inserted units over the units of the lyrics: 0 is perfect, more than 1 is possible."""
    substituted: int
    deleted: int
    inserted: int
    heard: str
    """The transcript; empty if no words were heard."""
    n_heard: int
    """Units of the transcript."""


@dataclass(frozen=True)
class Lyrics:
    """The lyric errors of one case."""

    judge: LyricJudgeOrigin
    language: str
    unit: str
    """`word`, or `character` in languages without blanks."""
    n_units: int
    """Units of the lyrics."""
    errors: dict[str, LyricError] = field(default_factory=dict)
    """By side, `before` and `after`."""


class LyricJudge:
    """Whisper and the language of the lyrics."""

    def __init__(self, transcriber: Transcriber, origin: LyricJudgeOrigin, language: str | None = None) -> None:
        """Take a transcriber.

        Args:
            transcriber: the model.
            origin: of its weights.
            language: of all lyrics, ISO 639-1; default is what the lyrics look like.

        Raises:
            InvalidRequestError: the model does not know the language.
        """
        self.transcriber, self.origin, self._language = transcriber, origin, language
        if language is not None and language not in transcriber.languages:
            raise InvalidRequestError(f"lyrics language: {self._unknown(language)}")

    def judge(self, lyrics: str, sides: dict[str, NDArray[np.float32]]) -> Lyrics:
        """Measure the lyric error of recordings of the same lyrics.

        Args:
            lyrics: with or without section marks.
            sides: float32 [N], mono at 16 kHz, by name.

        Raises:
            InvalidRequestError: the lyrics have no words, or their language is unclear or unknown to the model.
            EngineError: the model failed.
        """
        language = self._language or language_of(lyrics)
        if language is None:
            raise InvalidRequestError("the language of the lyrics is unclear: name it with --lyrics-language")
        if language not in self.transcriber.languages:
            raise InvalidRequestError(self._unknown(language))
        wanted = lyric_words(lyrics, language)
        if not wanted:
            raise InvalidRequestError("the lyrics have no words")
        unit = "character" if language in CHARACTER_LANGUAGES else "word"
        errors = {side: self._error(wanted, audio, language) for side, audio in sides.items()}
        return Lyrics(self.origin, language, unit, len(wanted), errors)

    def _error(self, wanted: list[str], audio: NDArray[np.float32], language: str) -> LyricError:
        heard = " ".join(window.text for window in self.transcriber.hear(audio, language) if window.has_words)
        return lyric_error(wanted, words(heard, language), heard)

    def _unknown(self, language: str) -> str:
        known = sorted(self.transcriber.languages)
        shown = ", ".join(known) if len(known) < 10 else f"{len(known)} languages"
        return (
            f"{self.origin.name} does not know {language!r}, it knows {shown}; Whisper small knows 99: heartvoice "
            "weights pull --only faster-whisper-small, then --lyric-model weights/faster-whisper-small"
        )


def lyric_error(wanted: list[str], heard: list[str], transcript: str) -> LyricError:
    """Count the edits between the units of lyrics, at least one, and of a transcript."""
    from rapidfuzz.distance import Levenshtein

    edits = [edit.tag for edit in Levenshtein.editops(wanted, heard)]
    n = {tag: edits.count(tag) for tag in ("replace", "delete", "insert")}
    return LyricError(
        len(edits) / len(wanted), n["replace"], n["delete"], n["insert"], transcript if heard else "", len(heard)
    )
