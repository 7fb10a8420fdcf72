"""The codec as a stage: it decodes one window of codes by flow matching and the scalar decoder.

Source: heartcodec spec, sections 3 to 7 and 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice import keyed_random
from heartvoice.arrays import Array
from heartvoice.config.presets import HeartCodecConfig
from heartvoice.contracts.constants import DECODER_HISTORY, DECODER_LOOKAHEAD, LATENTS_PER_FRAME, MAX_FEATURE
from heartvoice.contracts.encoding import encode_settings
from heartvoice.contracts.field_checks import check_codes, check_finite, read_int, read_settings
from heartvoice.contracts.models import HEARTCODEC
from heartvoice.contracts.validation import check_window
from heartvoice.errors import InvalidRequestError
from heartvoice.models.heartcodec.solver import euler, guide
from heartvoice.models.heartcodec.windows import DEFAULT_WINDOW
from heartvoice.runtime.networks import Networks, check_size, run_finite

DECODER_CHUNK = 372
"""Latent frames of one decoder call, without its history. Bounds memory, whatever the window (benchmarks/DIARY.md)."""

Latents = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CodecRequest:
    """A checked request to decode one window."""

    codes: NDArray[np.int32]
    """int32 [8, W]."""
    context: Latents
    """float32 [c, L], c < 2 W: known latents at the window's beginning."""
    history: Latents
    """float32 [h, L], h <= 44: latents before the window, which the scalar decoder needs."""
    window_index: int = 0
    """Selects the window's noise."""
    seed: int = 0
    steps: int = 10
    guidance: float = 1.25

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array], sizes: HeartCodecConfig) -> CodecRequest:
        """Read and check a request's tensors.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        check_window(inputs)
        codes = inputs["codes"].astype(np.int32)
        check_codes(codes, sizes.codebook_size, DEFAULT_WINDOW)
        latents: dict[str, Latents] = {}
        limits = {"context_latents": LATENTS_PER_FRAME * codes.shape[1] - 1, "history_latents": DECODER_HISTORY}
        for name, limit in limits.items():
            value = inputs.get(name, np.empty((0, sizes.out_channels), np.float32)).astype(np.float32)
            if value.shape[1] != sizes.out_channels or value.shape[0] > limit:
                raise InvalidRequestError(
                    f"{name}: expected FP32 [at most {limit}, {sizes.out_channels}], got {list(value.shape)}"
                )
            check_finite(name, value, most=MAX_FEATURE)
            latents[name] = value
        settings = read_settings(inputs, HEARTCODEC.settings)
        return cls(
            codes=codes,
            context=latents["context_latents"],
            history=latents["history_latents"],
            window_index=read_int(inputs, "window_index", 0),
            seed=int(settings["seed"]),
            steps=int(settings["codec_steps"]),
            guidance=float(settings["codec_guidance"]),
        )

    def to_inputs(self) -> dict[str, Array]:
        """The request as tensors of the contract; the reverse of `from_inputs`."""
        values = {"seed": self.seed, "codec_steps": self.steps, "codec_guidance": self.guidance}
        inputs: dict[str, Array] = {
            "codes": self.codes,
            "window_index": np.array([self.window_index]),
            **encode_settings(values, HEARTCODEC.settings),
        }
        if len(self.context):
            inputs["context_latents"] = self.context
        if len(self.history):
            inputs["history_latents"] = self.history
        return inputs


class CodecStage:
    """HeartCodec over three networks. Holds no state of any song."""

    def __init__(self, networks: Networks, sizes: HeartCodecConfig) -> None:
        self._networks = networks
        self._sizes = sizes

    def decode_window(self, request: CodecRequest) -> tuple[NDArray[np.float32], Latents]:
        """Decode one window of codes.

        Args:
            request: the window.

        Returns:
            audio float32 [2, 3840 W] and latents float32 [2 W, L]. With `history`, all samples equal those of one
            decoding of the whole song, except those of the last two latent frames, which lack their look-ahead.

        Raises:
            RequestCancelledError: the job was cancelled.
        """
        n_frames = LATENTS_PER_FRAME * request.codes.shape[1]
        z = keyed_random.normal(request.seed, "codec", request.window_index, (n_frames, self._sizes.out_channels))
        latents = self.solve(request, z)
        audio = self.decode_latents(np.concatenate([request.history, latents]), len(request.history))
        return audio, latents

    def solve(self, request: CodecRequest, z: Latents) -> Latents:
        """Integrate the flow from noise `z` [2 W, L] to latents [2 W, L] by Euler's method (spec, section 5)."""
        mu = run_finite(self._networks, "heartcodec_condition", {"codes": request.codes[None]})["mu"]
        n_context, guided = len(request.context), request.guidance > 1
        context = np.zeros_like(z)[None]
        context[0, :n_context] = request.context
        # The unconditional row comes first; it loses the codes and keeps the context.
        rows = 2 if guided else 1
        constant = {
            "context": np.repeat(context, rows, axis=0),
            "mu": np.concatenate([np.zeros_like(mu), mu]) if guided else mu,
        }

        for value in constant.values():
            value.setflags(write=False)  # an engine on a GPU copies what is read-only once

        def velocity(x: Latents, t: float) -> Latents:
            inputs = {**constant, "x": np.repeat(x, rows, axis=0), "t": np.full((rows, 1), t, np.float32)}
            v: Latents = run_finite(self._networks, "heartcodec_flow", inputs)["velocity"].astype(
                np.float32, copy=False
            )
            return guide(v[:1], v[1:], request.guidance) if guided else v

        latents: Latents = euler(z[None], context, n_context, request.steps, velocity)[0]
        check_size("heartcodec_flow", latents, MAX_FEATURE)  # what a next window would refuse as its caller's fault
        return latents

    def decode_latents(self, latents: Latents, n_history: int = 0) -> NDArray[np.float32]:
        """Decode latents [T, L] in chunks to audio [2, (T - n_history) * hop].

        Each chunk has a context of 44 past and 2 future frames, the decoder's receptive field. Memory does not grow
        with T, and every sample equals that of a single call.
        """
        hop, half = self._sizes.latent_hop, self._sizes.latent_hidden_dim
        channels = np.ascontiguousarray(latents.reshape(len(latents), 2, half).transpose(1, 2, 0))  # [2, L / 2, T]
        pieces = []
        for start in range(n_history, len(latents), DECODER_CHUNK):
            end = min(start + DECODER_CHUNK, len(latents))
            first = max(0, start - DECODER_HISTORY)
            chunk = np.ascontiguousarray(channels[:, :, first : end + DECODER_LOOKAHEAD])
            audio = run_finite(self._networks, "heartcodec_decoder", {"latents": chunk})["audio"]
            pieces.append(audio[:, 0, (start - first) * hop : (end - first) * hop])
        joined: NDArray[np.float32] = np.concatenate(pieces, axis=1).astype(np.float32, copy=False)
        return joined
