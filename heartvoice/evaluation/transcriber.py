"""Whisper as a transcriber of singing: windows of up to 30 s, and no words where nobody sings words.

Whisper writes a transcript of anything, noise included. What it says of its own transcript decides whether a window has
words: the probability that nobody speaks, the mean log-probability of its tokens, and how well the text compresses.

Source: A. Radford, J. W. Kim, T. Xu, G. Brockman, C. McLeavey, I. Sutskever, "Robust Speech Recognition via Large-Scale
Weak Supervision", 2022, section 4.5 (the three measures).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.errors import CheckpointError, EngineError
from heartvoice.runtime.engines import default_threads
from heartvoice.stages.svc.content import whisper_log_mel

if TYPE_CHECKING:
    from ctranslate2.models import Whisper
    from tokenizers import Tokenizer

Samples = NDArray[np.float32]

MODEL, CONFIG, TOKENIZER, VOCABULARIES = (
    "model.bin",
    "config.json",
    "tokenizer.json",
    ("vocabulary.txt", "vocabulary.json"),
)
"""Files of a Whisper in CTranslate2's format; one vocabulary of the two."""
WINDOW_S = 30.0
"""What Whisper hears at once."""
SEARCHED_S = 5.0
"""A window ends at the quietest place this far around an even division."""
MAX_NO_SPEECH = 0.6
"""Above this probability that nobody speaks, a window has no words."""
MIN_LOG_PROBABILITY = -1.25
"""Below this mean log-probability of its tokens, a text is no transcript."""
MAX_COMPRESSION = 2.4
"""A text that zlib compresses better than this is a loop: its window is halved and heard again."""
MIN_HALVED_S = 6.0
"""A shorter window with a loop has no words."""
_TIMESTAMP = SPEECH_RATE_HZ // 50
"""Samples at 16 kHz between neighbouring timestamps."""
_TOKENS_PER_S, _MOST_TOKENS = 10.0, 224
"""More tokens than the fastest singer has words, which ends loops; the library writes half of its `max_length`."""
_QUIET_S = 0.2
_STEP = SPEECH_RATE_HZ // 100
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")


@dataclass(frozen=True)
class Heard:
    """One window: its text, and what Whisper says of it."""

    start_s: float
    end_s: float
    text: str
    no_speech: float
    """Probability that nobody speaks."""
    log_probability: float
    """Mean over the tokens."""
    compression: float
    """Bytes of the text over bytes of its zlib stream."""

    @property
    def is_loop(self) -> bool:
        """True if the text repeats itself more than singers do."""
        return self.compression > MAX_COMPRESSION

    @property
    def has_words(self) -> bool:
        """True if the text is a transcript."""
        return (
            bool(self.text)
            and not self.is_loop
            and self.no_speech <= MAX_NO_SPEECH
            and self.log_probability >= MIN_LOG_PROBABILITY
        )


class Transcriber:
    """A Whisper model, opened once."""

    def __init__(self, model: Whisper, tokenizer: Tokenizer) -> None:
        """Use `Transcriber.open`."""
        self._model, self._tokenizer = model, tokenizer
        special = tokenizer.get_vocab(with_added_tokens=True)
        self._start, self._last_text = special["<|startoftranscript|>"], special["<|endoftext|>"] - 1
        self._first_timestamp = special["<|notimestamps|>"] + 1
        self._transcribe = special["<|transcribe|>"]
        self._languages = {
            found[1]: token for name, token in special.items() if (found := _LANGUAGE.fullmatch(name)) is not None
        }

    @classmethod
    def open(cls, files: Mapping[str, Path], *, threads: int | None = None) -> Transcriber:
        """Open a model in CTranslate2's format.

        Args:
            files: `MODEL`, `CONFIG`, `TOKENIZER` and one of `VOCABULARIES` by their names.
            threads: default is `default_threads()`.

        Raises:
            CheckpointError: a file is missing or damaged, or the model is no Whisper of 80 mel bands.
        """
        from ctranslate2.models import Whisper
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(files[TOKENIZER]))
            with ExitStack() as stack:
                contents = {
                    name: stack.enter_context(path.open("rb")) for name, path in files.items() if name != TOKENIZER
                }
                model = Whisper(
                    str(files[MODEL].parent), compute_type="int8", intra_threads=threads or default_threads(),
                    files=contents,
                )  # fmt: skip
            if model.n_mels != 80:
                raise CheckpointError(f"{files[MODEL]}: expected a Whisper of 80 mel bands, got {model.n_mels}")
            return cls(model, tokenizer)
        except KeyError as error:
            raise CheckpointError(f"{files[TOKENIZER]}: not Whisper's: it has no token {error}") from error
        except CheckpointError:
            raise
        except Exception as error:  # both libraries raise plain exceptions
            raise CheckpointError(f"{files[MODEL]}: not a readable Whisper model: {error}") from error

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-1 codes of the languages that it transcribes."""
        return frozenset(self._languages) if self._model.is_multilingual else frozenset({"en"})

    def hear(self, audio: Samples, language: str) -> list[Heard]:
        """Transcribe a recording window by window; memory does not depend on its length.

        Args:
            audio: float32 [N], mono at 16 kHz.
            language: among `languages`.

        Raises:
            EngineError: the model failed.
        """
        return [heard for start, end in windows(audio) for heard in self._hear(audio, start, end, language)]

    def _hear(self, audio: Samples, start: int, end: int, language: str) -> Iterator[Heard]:
        """Hear one window.

        A text may break off early: its timestamps tell where, and the rest is heard as a window of its own. A loop is
        heard again in halves, whose other beginnings often end it.
        """
        heard, until = self._window(audio, start, end, language)
        nobody = heard.no_speech > MAX_NO_SPEECH
        if not heard.is_loop or nobody or end - start < MIN_HALVED_S * SPEECH_RATE_HZ:
            yield heard
            if until < end:
                yield from self._hear(audio, until, end, language)
            return
        quarter = (end - start) // 4
        middle = quietest(audio, start + quarter, end - quarter)
        for part in ((start, middle), (middle, end)):
            yield from self._hear(audio, *part, language)

    def _window(self, audio: Samples, start: int, end: int, language: str) -> tuple[Heard, int]:
        """Transcribe one window; returns also the sample where its text breaks off, `end` if it does not."""
        from ctranslate2 import StorageView

        prompt = [self._start]
        if self._model.is_multilingual:
            prompt += [self._languages[language], self._transcribe]
        features = StorageView.from_array(whisper_log_mel(audio[start:end])[None])
        try:
            (result,) = self._model.generate(
                features, [prompt], beam_size=1, return_scores=True, return_no_speech_prob=True,
                max_length=2 * min(_MOST_TOKENS, round(10 + _TOKENS_PER_S * (end - start) / SPEECH_RATE_HZ)),
            )  # fmt: skip
        except Exception as error:  # the library raises RuntimeError and ValueError
            raise EngineError(f"the lyric judge failed: {error}") from error
        tokens = result.sequences_ids[0]
        until = self._break(tokens, start, end)
        text = self._tokenizer.decode([token for token in tokens if token <= self._last_text]).strip()
        stored = text.encode()
        heard = Heard(
            start / SPEECH_RATE_HZ, until / SPEECH_RATE_HZ, text, result.no_speech_prob, result.scores[0],
            len(stored) / len(zlib.compress(stored)),
        )  # fmt: skip
        return heard, until

    def _break(self, tokens: list[int], start: int, end: int) -> int:
        """Return the sample at which the text breaks off: two timestamps at its end begin what it leaves out."""
        if len(tokens) < 2 or min(tokens[-2:]) < self._first_timestamp:
            return end
        at = start + (tokens[-1] - self._first_timestamp) * _TIMESTAMP
        return at if start + SPEECH_RATE_HZ <= at <= end - SPEECH_RATE_HZ else end


def windows(audio: Samples) -> list[tuple[int, int]]:
    """Cut [N] at 16 kHz at quiet places into windows of at most `WINDOW_S`, about evenly long.

    Returns:
        Start and end of each in samples; together they are the recording.
    """
    longest, searched = round(WINDOW_S * SPEECH_RATE_HZ), round(SEARCHED_S * SPEECH_RATE_HZ)
    made, start = [], 0
    for left in range(-(-len(audio) // longest), 0, -1):
        rest = len(audio) - start
        end = len(audio)
        if left > 1:
            even = rest // left
            lowest, highest = max(even - searched, rest - (left - 1) * longest), min(even + searched, longest)
            end = quietest(audio, start + lowest, start + highest)
        made.append((start, end))
        start = end
    return made


def quietest(audio: Samples, start: int, end: int) -> int:
    """Return the sample in [start, end] around which `_QUIET_S` have the least energy."""
    half = round(_QUIET_S * SPEECH_RATE_HZ) // 2
    centres = np.arange(start, max(end, start + 1), _STEP)
    first = max(start - half, 0)
    energy = np.concatenate([[0.0], np.cumsum(np.square(audio[first : end + half], dtype=np.float64))])
    low, high = (np.clip(centres + side - first, 0, len(energy) - 1) for side in (-half, half))
    return int(centres[np.argmin(energy[high] - energy[low])])
