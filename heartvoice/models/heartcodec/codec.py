"""The complete HeartCodec, and its decoding of a whole song: the reference for every engine's loop.

Source: heartcodec spec, sections 1 and 7.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from heartvoice.config.presets import HeartCodecConfig
from heartvoice.errors import InvalidRequestError
from heartvoice.models.heartcodec.flow import FlowMatching
from heartvoice.models.heartcodec.scalar import ScalarModel
from heartvoice.models.heartcodec.windows import DEFAULT_WINDOW, WindowPlan, decoder_context, join_windows

Noise = Callable[[int], npt.NDArray[np.float32]]
"""Maps a window's index to float32 [1, latent frames of a window, L]."""
_NEVER_READ = re.compile(
    r"flow_matching\.vq_embed\.(project_in\.(weight|bias)|layers\.\d+\._codebook\.(embed_avg|cluster_size|initted))"
)
_ENCODER = "scalar_model.encoder."


class HeartCodec(nn.Module):
    """Decodes codes to 48 kHz stereo; encodes audio to latents, but not to codes."""

    def __init__(self, sizes: HeartCodecConfig, *, decode_only: bool = False) -> None:
        """Make all tensors of the checkpoint, or only those for decoding."""
        super().__init__()
        self.sizes = sizes
        self.decode_only = decode_only
        self.flow_matching = FlowMatching(sizes, decode_only=decode_only)
        self.scalar_model = ScalarModel(sizes, decode_only=decode_only)

    def never_read(self, name: str) -> bool:
        """Return True if a checkpoint may lack this tensor, or contain it unused."""
        return _NEVER_READ.fullmatch(name) is not None or (self.decode_only and name.startswith(_ENCODER))

    def fold_weight_norm(self) -> None:
        """Fold the scalar model's weight norm once, instead of at every decoding."""
        self.scalar_model.fold_weight_norm()

    # ------------------------------------------------------------------------------------------------- whole songs

    def window_latents(
        self,
        codes: npt.NDArray[np.integer[Any]],
        noise: Noise,
        *,
        plan: WindowPlan,
        steps: int = 10,
        guidance: float = 1.25,
    ) -> Iterator[Tensor]:
        """Yield the latents of a song's windows in order; each window continues the previous one.

        Args:
            codes: integers [K, n], n at least 1.
            noise: initial state of each window.
            plan: window lengths.
            steps: number of Euler steps.
            guidance: values above 1 enable guidance.

        Yields:
            float32 [1, plan.latent_window, L].

        Raises:
            InvalidRequestError: the song is empty, or a code is out of range.
        """
        device = self.flow_matching.zero_cond_embedding1.device
        before = torch.zeros(1, plan.latent_window, self.sizes.out_channels, device=device)
        for index in range(plan.n_windows(codes.shape[1])):
            context = plan.context(index)
            known = torch.zeros_like(before)
            known[:, :context] = before[:, before.shape[1] - context :]
            window = np.ascontiguousarray(plan.codes(codes, index), dtype=np.int64)
            with torch.inference_mode():
                before = self.flow_matching.inference_codes(
                    torch.from_numpy(window)[None].to(device),
                    known,
                    torch.from_numpy(noise(index)).to(device),
                    latent_length=plan.latent_window,
                    context_length=context,
                    steps=steps,
                    guidance=guidance,
                )
            yield before

    @torch.inference_mode()
    def decode_latents(self, latents: Tensor) -> npt.NDArray[np.float32]:
        """Decode latents [1, T, L], whose first half is channel 0, to float32 [2, T * latent_hop]."""
        channels = latents.reshape(latents.shape[1], 2, -1).permute(1, 2, 0)  # [1, T, 2 F] -> [2, F, T]
        audio: npt.NDArray[np.float32] = self.scalar_model.decode(channels)[:, 0].cpu().numpy()
        return audio[:, : latents.shape[1] * self.sizes.latent_hop]

    def decode_continuously(self, latents: Iterable[Tensor]) -> Iterator[npt.NDArray[np.float32]]:
        """Decode consecutive latents [1, T, L] in pieces, with the same result as in one call.

        Yields:
            Consecutive float32 [2, N]; each piece waits for the decoder's look-ahead.

        Raises:
            InvalidRequestError: the scalar model is not causal.
        """
        if not self.sizes.causal:
            raise InvalidRequestError("join: 'continuous' needs a causal scalar model")
        history, lookahead = decoder_context(self.sizes)
        held: Tensor | None = None  # frames not decoded yet, preceded by the history that they need
        done = 0  # frames of `held` that are decoded
        for block in latents:
            held = block if held is None else torch.cat([held, block], dim=1)
            end = held.shape[1] - lookahead
            if end > done:
                yield self._decode_part(held, done, end)
                keep = max(0, end - history)
                held, done = held[:, keep:], end - keep
        if held is not None and held.shape[1] > done:
            yield self._decode_part(held, done, held.shape[1])

    def _decode_part(self, latents: Tensor, start: int, end: int) -> npt.NDArray[np.float32]:
        hop = self.sizes.latent_hop
        return self.decode_latents(latents)[:, start * hop : end * hop]

    def detokenize(
        self,
        codes: npt.NDArray[np.integer[Any]],
        noise: Noise,
        *,
        window: int = DEFAULT_WINDOW,
        steps: int = 10,
        guidance: float = 1.25,
        join: Literal["crossfade", "continuous"] = "crossfade",
    ) -> npt.NDArray[np.float32]:
        """Decode a whole song.

        Args:
            codes: integers [K, n], n at least 1.
            noise: maps a window's index to float32 [1, 2 * window, L].
            window: codes in a window, a multiple of 93.
            steps: Euler steps of the flow.
            guidance: values above 1 enable guidance.
            join: "crossfade" decodes windows separately and fades between them, as the reference does; "continuous"
                decodes the joined latents as one sequence.

        Returns:
            float32 [2, n * frame_hop]; values may exceed 1.

        Raises:
            InvalidRequestError: the song is empty, a code or the window is out of range.
        """
        plan = WindowPlan(window)
        latents = self.window_latents(codes, noise, plan=plan, steps=steps, guidance=guidance)
        if join == "crossfade":
            pieces = join_windows(map(self.decode_latents, latents), plan.latent_overlap * self.sizes.latent_hop)
        else:
            fresh = (block[:, plan.context(index) :] for index, block in enumerate(latents))
            pieces = self.decode_continuously(fresh)
        return np.concatenate(list(pieces), axis=1)[:, : codes.shape[1] * self.sizes.frame_hop]
