"""A fake Whisper: it hears what a test says, window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from heartvoice.evaluation.lyrics import LyricJudge, LyricJudgeOrigin
from heartvoice.evaluation.transcriber import Transcriber

_FIRST_SPECIAL = 0x110000
"""Text tokens are code points."""
_NAMES = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|fr|>", "<|zh|>", "<|transcribe|>", "<|notimestamps|>")
SPECIAL = {name: _FIRST_SPECIAL + place for place, name in enumerate(_NAMES)}
FIRST_TIMESTAMP = SPECIAL["<|notimestamps|>"] + 1


@dataclass(frozen=True)
class Said:
    """What the model says of one window."""

    text: str
    no_speech: float = 0.1
    log_probability: float = -0.3
    breaks_off_at_s: float | None = None
    """In the window."""


class FakeWhisper:
    """Says its lines in turn, the last one for ever; as a tokenizer, it has a token for every character."""

    n_mels = 80

    def __init__(self, lines: Sequence[Said], *, multilingual: bool = False) -> None:
        self._lines, self.is_multilingual = list(lines), multilingual
        self.prompts: list[list[int]] = []

    def generate(self, features: Any, prompts: list[list[int]], **options: Any) -> list[SimpleNamespace]:
        assert np.asarray(features).shape == (1, 80, 3000)
        self.prompts += prompts
        said = self._lines.pop(0) if len(self._lines) > 1 else self._lines[0]
        ids = [FIRST_TIMESTAMP, *(ord(each) for each in said.text), FIRST_TIMESTAMP + 1]
        if said.breaks_off_at_s is not None:
            ids += [FIRST_TIMESTAMP + round(50 * said.breaks_off_at_s)] * 2
        return [SimpleNamespace(sequences_ids=[ids], scores=[said.log_probability], no_speech_prob=said.no_speech)]

    def get_vocab(self, *, with_added_tokens: bool) -> dict[str, int]:
        assert with_added_tokens
        return SPECIAL

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def transcriber(*lines: Said, multilingual: bool = False) -> tuple[Transcriber, FakeWhisper]:
    model: Any = FakeWhisper(lines, multilingual=multilingual)
    return Transcriber(model, model), model


def lyric_judge(*lines: Said, language: str | None = None, multilingual: bool = False) -> LyricJudge:
    origin = LyricJudgeOrigin("Whisper fake", "nowhere", "CC0", "0" * 64)
    return LyricJudge(transcriber(*lines, multilingual=multilingual)[0], origin, language)
