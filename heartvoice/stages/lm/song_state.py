"""The state of one song while the language model writes it.

Source: heartmula spec, sections 5 to 9; the graph is `contracts.graphs.heartmula_step`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heartvoice import keyed_random
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import N_CODEBOOKS
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.models.prompt import Tokenizer, build_prompt, refuse_special_tokens
from heartvoice.stages.lm.engine import Codes, FrameInput, SongPrompt
from heartvoice.stages.lm.request import LmRequest


class SongState:
    """One song while the language model writes it: its prompt, its random draws and its end. Knows no engine."""

    def __init__(self, request: LmRequest, tokenizer: Tokenizer, preset: Preset) -> None:
        """Tokenise the texts and check the length.

        Raises:
            InvalidRequestError: prompt and duration together exceed `max_positions`, or a text has special tokens.
        """
        sizes = preset.lm
        refuse_special_tokens(request.tags, request.lyrics, tokenizer)
        prompt = build_prompt(
            request.tags, request.lyrics, tokenizer, preset.ids, text_vocab_size=sizes.text_vocab_size
        )
        n_positions = len(prompt.text_ids) + request.n_frames
        if n_positions > preset.max_positions:
            raise InvalidRequestError(
                f"duration_s: prompt ({len(prompt.text_ids)} tokens) and song ({request.n_frames} frames) need "
                f"{n_positions} positions, the limit is {preset.max_positions}; shorten the lyrics or the song"
            )
        self.request = request
        self.n_made = 0
        """Frames made so far."""
        self.finished = False
        """All frames are made, or the model has ended the song."""
        self.prompt = SongPrompt(
            prompt.text_ids,
            np.zeros(sizes.muq_dim, np.float32) if request.style is None else request.style,
            prompt.style_index,
            request.temperature,
            request.top_k,
            request.cfg_scale,
            n_positions,
        )
        self._eos_id, self._codebook_size = preset.ids.audio_eos_id, sizes.codebook_size

    def next_input(self, pending: int = 0) -> FrameInput:
        """Random draws and EOS rule of the next frame; `pending` frames before it are not yet accepted."""
        index = self.n_made + pending
        draws = keyed_random.uniform(self.request.seed, "lm", index, (N_CODEBOOKS,))
        return FrameInput(draws, allow_eos=self._may_end(index))

    def _may_end(self, index: int) -> bool:
        """True if frame `index` may end the song."""
        return index > 0 and index >= self.request.min_frames

    def accept(self, ids: Codes) -> NDArray[np.int32] | None:
        """Take the model's ids [8]; returns them as a frame int32 [8], or None if they end the song.

        Raises:
            EngineError: the logits were not finite, or an id is neither a code nor an allowed end of the song.
        """
        self._check(ids)
        # Any id from EOS on, in any codebook, ends the song; that frame is dropped (spec, section 9).
        if (ids >= self._eos_id).any():
            self.finished = True
            return None
        self.n_made += 1
        self.finished = self.n_made == self.request.n_frames
        return ids.astype(np.int32)

    def _check(self, ids: Codes) -> None:
        """Refuse what no working engine draws: whatever it is, the codec would make a sound of it."""
        if (ids < 0).any():
            raise EngineError(
                f"heartmula: frame {self.n_made}: the network's logits are not finite, so no code was drawn"
            )
        allowed = ids < self._codebook_size
        if self._may_end(self.n_made):
            allowed |= ids == self._eos_id
        if not allowed.all():
            raise EngineError(
                f"heartmula: frame {self.n_made}: expected codes in [0, {self._codebook_size}), got {ids[~allowed][0]}"
            )
