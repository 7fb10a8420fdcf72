"""A request to the language model: one song's text, length and sampling settings.

Source: heartmula spec, sections 5 to 9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import DEFAULT_UNKNOWN_WORDS, FRAMES_PER_S, UNKNOWN_WORDS_MODES
from heartvoice.contracts.encoding import encode_settings, encode_text
from heartvoice.contracts.field_checks import read_prompt, read_settings, read_word
from heartvoice.contracts.models import HEARTMULA
from heartvoice.contracts.settings import LM_SETTINGS
from heartvoice.contracts.validation import check_prompt
from heartvoice.errors import InvalidRequestError
from heartvoice.models.vocabulary import LyricVocabulary


@dataclass(frozen=True)
class LmRequest:
    """A checked request for one song's codes. Names and units of its fields are the contract's."""

    lyrics: str
    tags: str
    duration_s: float
    min_duration_s: float
    seed: int
    temperature: float
    top_k: int
    cfg_scale: float
    style: NDArray[np.float32] | None = None
    unknown_words: str = DEFAULT_UNKNOWN_WORDS
    replaced: Mapping[str, str] = field(default_factory=dict)
    """Unknown words of the lyrics as written, with what `lyrics` has in their place; see `SungLyrics`."""

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array], preset: Preset) -> LmRequest:
        """Read and check a request's tensors.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        check_prompt(inputs)
        lyrics, tags = read_prompt(inputs)
        settings = read_settings(inputs, HEARTMULA.settings)
        style = inputs.get("style")
        if style is not None and style.shape != (preset.lm.muq_dim,):
            raise InvalidRequestError(f"style: expected FP32 [{preset.lm.muq_dim}], got {list(style.shape)}")
        return cls(
            lyrics=lyrics,
            tags=tags,
            duration_s=float(settings["duration_s"]),
            min_duration_s=float(settings["min_duration_s"]),
            seed=int(settings["seed"]),
            temperature=float(settings["temperature"]),
            top_k=int(settings["top_k"]),
            cfg_scale=float(settings["cfg_scale"]),
            style=None if style is None else style.astype(np.float32),
            unknown_words=read_word(inputs, "unknown_words", UNKNOWN_WORDS_MODES) or DEFAULT_UNKNOWN_WORDS,
        )

    def to_inputs(self) -> dict[str, Array]:
        """The request as tensors of the contract; the reverse of `from_inputs`."""
        values = {setting.name: getattr(self, setting.name) for setting in LM_SETTINGS}
        inputs = {
            "lyrics": encode_text(self.lyrics),
            "tags": encode_text(self.tags),
            "unknown_words": encode_text(self.unknown_words),
            **encode_settings(values, LM_SETTINGS),
        }
        if self.style is not None:
            inputs["style"] = self.style
        return inputs

    def within(self, vocabulary: LyricVocabulary | None) -> LmRequest:
        """Return the request with lyrics whose words are in the vocabulary; None is an open one, which has all words.

        Raises:
            InvalidRequestError: nothing would be sung, or `unknown_words` refuses a word.
        """
        if vocabulary is None:
            return self
        sung = vocabulary.sung(self.lyrics, self.unknown_words)
        return replace(self, lyrics=sung.text, replaced=sung.replaced)

    @property
    def n_frames(self) -> int:
        """Greatest length in frames. (The reference makes one more: spec section 9.)"""
        return _frames(self.duration_s)

    @property
    def min_frames(self) -> int:
        """Least length in frames: the LM cannot end the song earlier."""
        return _frames(self.min_duration_s)


def _frames(seconds: float) -> int:
    """Whole frames that hold a duration. One that came as float32, such as 2.4 s, is no frame longer for that."""
    return math.ceil(round(seconds * FRAMES_PER_S, 4))
