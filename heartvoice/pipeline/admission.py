"""Checks of a song before it waits for its turn: what its codes or its prompt alone decide."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from heartvoice.arrays import Array
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import MAX_FRAMES
from heartvoice.contracts.field_checks import check_codes
from heartvoice.models.prompt import Tokenizer, load_tokenizer
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.lm.song_state import SongState

_MARKS = 32
"""More than the ids that a prompt has beside those of its texts: their begins and ends, `<tag>`, `</tag>`, a slot."""


class SongAdmission:
    """Refuses a song at once that would fail when its turn comes, minutes later. Safe in all threads."""

    def __init__(self, preset: Preset, tokenizer_path: Path) -> None:
        """Keep what the language model keeps; the tokenizer is loaded for the first song that needs it."""
        self._preset, self._path = preset, tokenizer_path
        self._tokenizer: Tokenizer | None = None
        self._lock = threading.Lock()

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Check the codes or the prompt of inputs that `contracts.validation` accepts.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        if "codes" in inputs:
            check_codes(inputs["codes"], self._preset.codec.codebook_size, MAX_FRAMES)
            return
        request = LmRequest.from_inputs(inputs, self._preset)
        if self._is_short(request):
            return
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = load_tokenizer(self._path)
        SongState(request, self._tokenizer, self._preset)

    def _is_short(self, request: LmRequest) -> bool:
        """True if the song fits even with a token for each byte of its texts, as tokenizers of bytes have at most."""
        n_bytes = len((request.lyrics + request.tags).lower().encode())
        return n_bytes + _MARKS + request.n_frames <= self._preset.max_positions
