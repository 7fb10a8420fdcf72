"""HeartMuLa's generation loop for one song, in PyTorch: the reference for every engine's loop.

Source: heartmula spec, sections 7 and 9.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heartvoice.contracts.constants import GREEDY_BELOW
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.models.heartmula import HeartMuLa, StepInputs, StepOutputs
from heartvoice.models.llama import KVCache

FRAME_MS = 80


def max_frames_of(max_audio_length_ms: int) -> int:
    """Largest number of frames that the reference makes: the length in frames, rounded down, plus 1."""
    return 1 + max_audio_length_ms // FRAME_MS


@torch.inference_mode()
def generate(  # noqa: PLR0913 (the reference's arguments)
    model: HeartMuLa,
    text_ids: npt.NDArray[np.int64],
    *,
    max_frames: int,
    eos_id: int,
    uniform: Callable[[int], npt.NDArray[np.float32]],
    style: npt.NDArray[np.float32] | None = None,
    style_index: int = -1,
    cfg_scale: float = 1.5,
    temperature: float = 1.0,
    top_k: int = 50,
    min_frames: int = 1,
    observe: Callable[[int, StepOutputs], None] | None = None,
) -> Tensor:
    """Generate one song.

    Frame 0 is always kept. A later frame that contains an id >= `eos_id` ends the song and is discarded.

    Args:
        model: the network; the cache has its first parameter's dtype.
        text_ids: int64 [P], the prompt's text column.
        max_frames: at least 1; prompt and frames together fit the backbone's positions.
        eos_id: first id that ends a song.
        uniform: frame index to float32 [K] in [0, 1 - 2^-23]; read only if temperature is above 0.
        style: float32 [muq_dim]; None leaves the slot's text embedding.
        style_index: the style's slot in the prompt; -1 none.
        cfg_scale: guidance by the prompt; values up to 1 disable it (below 1, the reference runs two equal rows).
        temperature: below `GREEDY_BELOW` the most likely code is taken (the reference divides by zero).
        top_k: at least 1; values above the vocabulary's size count as that size.
        min_frames: EOS is masked before this many frames.
        observe: called with each frame's index and outputs, also for the discarded last frame.

    Returns:
        int32 [K, n], 1 <= n <= max_frames.

    Raises:
        InvalidRequestError: the prompt is empty or too long, or a setting is out of range.
        EngineError: logits are not finite.
    """
    _check(model, text_ids, max_frames, temperature, top_k)
    books = model.sizes.audio_num_codebooks
    guided = cfg_scale > 1
    if temperature < GREEDY_BELOW:
        temperature, top_k = 1.0, 1
        uniform = _zeros(books)
    device, dtype = model.audio_head.device, model.audio_head.dtype
    rows = 2 if guided else 1
    # The last frame is drawn but never fed back.
    cache = KVCache(model.sizes.backbone, rows, len(text_ids) + max_frames - 1, dtype=dtype, device=device)
    fresh = torch.from_numpy(np.ascontiguousarray(text_ids, dtype=np.int64))[None].to(device)
    vector = np.zeros(model.sizes.muq_dim, np.float32) if style is None else np.asarray(style, np.float32)
    codes = torch.zeros(1, books, dtype=torch.int64, device=device)
    used, frames = 0, []
    for frame in range(max_frames):
        inputs = StepInputs(
            text_ids=fresh,
            codes=codes,
            style=torch.from_numpy(vector)[None].to(device),
            style_index=torch.tensor([style_index if frame == 0 and style is not None else -1], device=device),
            n_new=torch.tensor([fresh.shape[1]], device=device),
            position=torch.full((rows,), used, device=device),
            row_song=torch.zeros(rows, dtype=torch.int64, device=device),
            cond_row=torch.tensor([0], device=device),
            uncond_row=torch.tensor([rows - 1], device=device),
            temperature=torch.tensor([temperature], dtype=torch.float32, device=device),
            top_k=torch.tensor([top_k], device=device),
            cfg_scale=torch.tensor([max(cfg_scale, 1.0)], dtype=torch.float32, device=device),
            uniform=torch.from_numpy(uniform(frame))[None].to(device),
            allow_eos=torch.tensor([frame >= max(1, min_frames)], device=device),
        )
        outputs = model.step(inputs, cache.past(used), eos_id=eos_id, max_top_k=top_k)
        if observe is not None:
            observe(frame, outputs)
        codes = outputs.codes
        if bool((codes < 0).any()):
            raise EngineError(f"heartmula: frame {frame}: logits are not finite")
        if frame > 0 and bool((codes >= eos_id).any()):
            break
        frames.append(codes[0])
        if frame + 1 < max_frames:
            cache.write(outputs.new, inputs.position)
        used += fresh.shape[1]
        fresh = torch.full((1, 1), -1, dtype=torch.int64, device=device)
    return torch.stack(frames, dim=1).to(torch.int32)


def _zeros(books: int) -> Callable[[int], npt.NDArray[np.float32]]:
    return lambda _frame: np.zeros(books, np.float32)


def _check(model: HeartMuLa, text_ids: npt.NDArray[np.int64], max_frames: int, temperature: float, top_k: int) -> None:
    limit = model.sizes.backbone.max_seq_len
    if len(text_ids) == 0:
        raise InvalidRequestError("text_ids: expected at least one id, got none")
    if max_frames < 1:
        raise InvalidRequestError(f"max_frames: expected at least 1, got {max_frames}")
    if len(text_ids) + max_frames > limit:
        raise InvalidRequestError(f"prompt {len(text_ids)} + frames {max_frames}: expected at most {limit} positions")
    if temperature < 0:
        raise InvalidRequestError(f"temperature: expected 0 or more, got {temperature}")
    if top_k < 1:
        raise InvalidRequestError(f"top_k: expected at least 1, got {top_k}")
