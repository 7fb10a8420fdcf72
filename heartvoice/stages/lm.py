"""The language model as a stage: a request into code frames, one at a time.

Source: heartmula spec, sections 5 to 9; the graph is `contracts.heartmula_step`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice import noise
from heartvoice.contracts import FRAMES_PER_S, HEARTMULA, MAX_TEXT_BYTES, N_CODEBOOKS
from heartvoice.engines import Array, Engine
from heartvoice.errors import InvalidRequestError, RequestCancelledError
from heartvoice.models.prompt import Tokenizer, build_prompt
from heartvoice.presets import Preset
from heartvoice.stages.inputs import check_finite, check_text, read_settings, read_text

KV_BLOCK = 256
"""Cache positions are allocated in blocks of this many: attention reads whole blocks, not `max_positions`."""


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
            check_finite("style", style)
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


class LmStage:
    """HeartMuLa over one engine. Holds no state of any song: each call of `frames` owns its cache."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, preset: Preset) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._preset = preset

    def frames(self, request: LmRequest, cancelled: Callable[[], bool] = lambda: False) -> Iterator[NDArray[np.int32]]:
        """Make one song's frames.

        Args:
            request: the checked request.
            cancelled: looked at before every frame.

        Yields:
            int32 [8]: the codes of one frame, each in [0, codebook_size).

        Raises:
            InvalidRequestError: prompt and duration together exceed `max_positions`.
            RequestCancelledError: `cancelled` returned true.
        """
        generation = self.prepare(request)
        codes: NDArray[np.int64] | None = None
        for index in range(request.n_frames):
            if cancelled():
                raise RequestCancelledError(f"heartmula: cancelled at frame {index}")
            codes = generation.next_frame(codes, allow_eos=index > 0 and index >= request.min_frames)
            # Any id from EOS on, in any codebook, ends the song; that frame is dropped (spec, section 9).
            if (codes >= self._preset.ids.audio_eos_id).any():
                return
            yield codes.astype(np.int32)

    def prepare(self, request: LmRequest) -> _Generation:
        """Tokenise, check the length and set up an empty cache: all that can refuse a request."""
        sizes = self._preset.lm
        prompt = build_prompt(
            request.tags, request.lyrics, self._tokenizer, self._preset.ids, text_vocab_size=sizes.text_vocab_size
        )
        n_positions = len(prompt.text_ids) + request.n_frames
        if n_positions > self._preset.max_positions:
            raise InvalidRequestError(
                f"duration_s: prompt ({len(prompt.text_ids)} tokens) and song ({request.n_frames} frames) need "
                f"{n_positions} positions, the limit is {self._preset.max_positions}; shorten the lyrics or the song"
            )
        return _Generation(self._engine, self._preset, request, prompt.text_ids, prompt.style_index)


class _Generation:
    """One song under way: its cache, its constant inputs, the number of frames made."""

    def __init__(
        self, engine: Engine, preset: Preset, request: LmRequest, text_ids: NDArray[np.int64], style_index: int
    ) -> None:
        self._engine, self._text_ids, self._style_index = engine, text_ids, style_index
        self._seed, self._n_made, self._position = request.seed, 0, 0
        self._greedy = request.temperature == 0
        guided = request.cfg_scale > 1
        n_rows = 2 if guided else 1
        style = np.zeros(preset.lm.muq_dim, np.float32) if request.style is None else request.style
        self._constant: dict[str, Array] = {
            "style": style[None],
            "row_song": np.zeros(n_rows, np.int64),
            "cond_row": np.zeros(1, np.int64),
            "uncond_row": np.array([int(guided)], np.int64),
            "temperature": np.array([1.0 if self._greedy else request.temperature], np.float32),
            "top_k": np.array([1 if self._greedy else request.top_k], np.int64),
            "cfg_scale": np.array([request.cfg_scale], np.float32),
        }
        backbone = preset.lm.backbone
        shape = (n_rows, backbone.num_kv_heads, 0, backbone.head_dim)
        self._past = {
            f"{kind}_past_{n}": np.empty(shape, np.float32) for n in range(backbone.num_layers) for kind in "kv"
        }

    def next_frame(self, codes: NDArray[np.int64] | None, *, allow_eos: bool) -> NDArray[np.int64]:
        """Feed the prompt (codes None) or one frame [8]; return the next frame's ids, int64 [8]."""
        text_ids = self._text_ids if codes is None else np.array([-1], np.int64)
        n_new = len(text_ids)
        draws = noise.uniform(self._seed, "lm", self._n_made, (1, N_CODEBOOKS))
        result = self._engine.run(
            {
                **self._constant,
                **self._past,
                "text_ids": text_ids[None],
                "codes": np.zeros((1, N_CODEBOOKS), np.int64) if codes is None else codes[None],
                "style_index": np.array([self._style_index if codes is None else -1], np.int64),
                "n_new": np.array([n_new], np.int64),
                "position": np.full(len(self._constant["row_song"]), self._position, np.int64),
                "uniform": np.zeros_like(draws) if self._greedy else draws,
                "allow_eos": np.array([allow_eos]),
            },
            ["next_codes", *(name.replace("past", "new") for name in self._past)],
        )
        self._remember(result, n_new)
        self._n_made += 1
        next_codes: NDArray[np.int64] = result["next_codes"][0].astype(np.int64)
        return next_codes

    def _remember(self, result: Mapping[str, Array], n_new: int) -> None:
        end = self._position + n_new
        for name, past in self._past.items():
            if past.shape[2] < end:
                size = KV_BLOCK * math.ceil(end / KV_BLOCK)
                # Zeros, not garbage: masked keys have weight 0, and 0 times NaN would still be NaN.
                grown = np.zeros((*past.shape[:2], size, past.shape[3]), np.float32)
                grown[:, :, : self._position] = past[:, :, : self._position]
                self._past[name] = past = grown
            past[:, :, self._position : end] = result[name.replace("past", "new")]
        self._position = end
