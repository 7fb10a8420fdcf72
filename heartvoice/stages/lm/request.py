"""The language model as a stage: what a song asks for, frame by frame, and what its ids become.

`lm_scheduler.LmScheduler` makes songs in an engine, many at once.

Source: heartmula spec, sections 5 to 9; the graph is `contracts.graphs.heartmula_step`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice import keyed_random
from heartvoice.arrays import Array
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import FRAMES_PER_S, MAX_FEATURE, MAX_TEXT_BYTES, N_CODEBOOKS
from heartvoice.contracts.models import HEARTMULA
from heartvoice.contracts.validation import check_finite, check_text, read_settings, read_text
from heartvoice.errors import InvalidRequestError
from heartvoice.models.prompt import Tokenizer, build_prompt, refuse_special_tokens
from heartvoice.stages.lm.engine import Codes, FrameInput, SongPrompt


@dataclass(frozen=True)
class LmRequest:
    """A checked request for one song's codes; field names and units are the contract's."""

    lyrics: str
    tags: str
    duration_s: float
    min_duration_s: float
    seed: int
    temperature: float
    top_k: int
    cfg_scale: float
    style: NDArray[np.float32] | None = None

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array], preset: Preset) -> LmRequest:
        """Check a request's tensors.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        lyrics, tags = read_text(inputs, "lyrics"), read_text(inputs, "tags")
        for field, text in (("lyrics", lyrics), ("tags", tags)):
            check_text(field, text, MAX_TEXT_BYTES)
        if not lyrics.strip() and not tags.strip():
            raise InvalidRequestError("lyrics, tags: expected text in at least one of them, got none")
        settings = read_settings(inputs, HEARTMULA.settings)
        if settings["min_duration_s"] > settings["duration_s"]:
            raise InvalidRequestError(
                f"min_duration_s: expected at most duration_s = {settings['duration_s']:g}, "
                f"got {settings['min_duration_s']:g}"
            )
        style = inputs.get("style")
        if style is not None:
            if style.shape != (preset.lm.muq_dim,):
                raise InvalidRequestError(f"style: expected FP32 [{preset.lm.muq_dim}], got {list(style.shape)}")
            check_finite("style", style, most=MAX_FEATURE)
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
        )

    @property
    def n_frames(self) -> int:
        """Longest song in frames. (The reference makes one more: spec section 9.)"""
        return math.ceil(self.duration_s * FRAMES_PER_S)

    @property
    def min_frames(self) -> int:
        """Frames before which the LM cannot end the song."""
        return math.ceil(self.min_duration_s * FRAMES_PER_S)


class SongState:
    """A request under way: what its next frame is drawn with, and when it ends. Knows no engine."""

    def __init__(self, request: LmRequest, tokenizer: Tokenizer, preset: Preset) -> None:
        """Tokenise and check the length: all that can refuse a request.

        Raises:
            InvalidRequestError: prompt and duration together exceed `max_positions`, or a text holds special tokens.
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
        self.over = False
        self.prompt = SongPrompt(
            prompt.text_ids,
            np.zeros(sizes.muq_dim, np.float32) if request.style is None else request.style,
            prompt.style_index,
            request.temperature,
            request.top_k,
            request.cfg_scale,
            n_positions,
        )
        self._eos_id = preset.ids.audio_eos_id

    def next_input(self, pending: int = 0) -> FrameInput:
        """Draws and EOS rule of the next frame, or of the one behind so many that are under way."""
        index = self.n_made + pending
        draws = keyed_random.uniform(self.request.seed, "lm", index, (N_CODEBOOKS,))
        return FrameInput(draws, allow_eos=index > 0 and index >= self.request.min_frames)

    def take(self, ids: Codes) -> NDArray[np.int32] | None:
        """The frame that these ids [8] are, int32 [8]; None if they end the song instead."""
        # Any id from EOS on, in any codebook, ends the song; that frame is dropped (spec, section 9).
        if (ids >= self._eos_id).any():
            self.over = True
            return None
        self.n_made += 1
        self.over = self.n_made == self.request.n_frames
        return ids.astype(np.int32)
