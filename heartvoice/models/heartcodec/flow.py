"""Codes to latents: RVQ lookup, condition, and the flow under that condition.

Source: heartcodec spec, sections 3 to 5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from heartvoice.config.presets import HeartCodecConfig
from heartvoice.errors import InvalidRequestError
from heartvoice.models.heartcodec.estimator import Estimator
from heartvoice.models.heartcodec.solver import euler, guide

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Maps estimator input [B, T, in_channels] and time [B] to velocity [B, T, out_channels]."""


class Codebook(nn.Module):
    """Vectors of one quantizer level; the training statistics are loaded but unused."""

    embed: Tensor

    def __init__(self, sizes: HeartCodecConfig, *, decode_only: bool) -> None:
        """Make the tables."""
        super().__init__()
        size, width = sizes.codebook_size, sizes.codebook_dim
        self.register_buffer("embed", torch.zeros(1, size, width))
        if not decode_only:
            self.register_buffer("embed_avg", torch.zeros(1, size, width))
            self.register_buffer("cluster_size", torch.zeros(1, size))
            self.register_buffer("initted", torch.zeros((), dtype=torch.bool))


class Quantizer(nn.Module):
    """A level, under the checkpoint's name `_codebook`."""

    def __init__(self, sizes: HeartCodecConfig, *, decode_only: bool) -> None:
        """Make the codebook."""
        super().__init__()
        self._codebook = Codebook(sizes, decode_only=decode_only)

    def forward(self, index: Tensor) -> Tensor:
        """Look up int64 [B, T]; -1 is a zero vector. Returns [B, T, codebook_dim]."""
        return self._codebook.embed[0][index.clamp(min=0)] * (index >= 0)[..., None]


class ResidualVQ(nn.Module):
    """The lookup half of a residual vector quantizer."""

    def __init__(self, sizes: HeartCodecConfig, *, decode_only: bool) -> None:
        """Make all levels and the projections; equal widths of codes and output need no projection."""
        super().__init__()
        self.codebook_size = sizes.codebook_size
        projected = sizes.codebook_dim != sizes.dim
        self.project_in = nn.Linear(sizes.dim, sizes.codebook_dim) if projected and not decode_only else None
        self.project_out = nn.Linear(sizes.codebook_dim, sizes.dim) if projected else None
        self.layers = nn.ModuleList(Quantizer(sizes, decode_only=decode_only) for _ in range(sizes.num_quantizers))

    def check(self, indices: Tensor) -> None:
        """Check that every index is in the tables.

        Raises:
            InvalidRequestError: an index is below -1 or not below `codebook_size`.
        """
        low, high = int(indices.min()), int(indices.max())
        if low < -1 or high >= self.codebook_size:
            raise InvalidRequestError(f"codes: expected -1 to {self.codebook_size - 1}, got {low} to {high}")

    def forward(self, indices: Tensor) -> Tensor:
        """Sum of the looked-up vectors, projected.

        Args:
            indices: int64 [B, T, Q]; -1 contributes nothing. Not checked: see `check`.

        Returns:
            [B, T, dim].
        """
        total: Tensor | None = None
        for level, layer in enumerate(self.layers):
            vectors: Tensor = layer(indices[..., level])
            total = vectors if total is None else total + vectors
        if total is None:
            raise ValueError("num_quantizers: expected at least 1, got 0")
        if self.project_out is None:
            return total
        out: Tensor = self.project_out(total)
        return out


class FlowMatching(nn.Module):
    """The detokenizer: codes to latents."""

    def __init__(self, sizes: HeartCodecConfig, *, decode_only: bool = False) -> None:
        """Make all parts; `decode_only` omits those for training and encoding."""
        super().__init__()
        self.sizes = sizes
        self.vq_embed = ResidualVQ(sizes, decode_only=decode_only)
        self.cond_feature_emb = nn.Linear(sizes.dim, sizes.dim)
        self.zero_cond_embedding1 = nn.Parameter(torch.zeros(sizes.dim))
        self.estimator = Estimator(sizes)

    def condition(self, codes: Tensor, latent_length: int | None = None) -> Tensor:
        """Compute the condition of the flow.

        Args:
            codes: int64 [B, K, n], each -1 (nothing) or below codebook_size; not checked.
            latent_length: frames from this one on get the learned empty condition; None keeps all.

        Returns:
            [B, 2 n, dim].
        """
        feature: Tensor = self.cond_feature_emb(self.vq_embed(codes.transpose(1, 2)))
        mu = feature.repeat_interleave(2, dim=1)
        if latent_length is None:
            return mu
        beyond = torch.arange(mu.shape[1], device=mu.device) >= latent_length
        return torch.where(beyond[:, None], self.zero_cond_embedding1, mu)

    def solve(
        self,
        noise: Tensor,
        context: Tensor,
        mu: Tensor,
        *,
        context_length: int,
        steps: int,
        guidance: float,
        estimator: Velocity | None = None,
    ) -> Tensor:
        """Solve the flow.

        Args:
            noise: [B, T, L].
            context: [B, T, L], zero beyond `context_length`.
            mu: [B, T, dim].
            context_length: in-context frames.
            steps: Euler steps.
            guidance: above 1, each step also runs rows with a zero condition (not the learned empty condition).
            estimator: replaces the network, for example to record its calls.

        Returns:
            [B, T, L]; the first `context_length` frames are `context`.
        """
        run: Velocity = self.estimator if estimator is None else estimator
        guided = guidance > 1
        # Unconditional rows come first; they still get the in-context latents.
        conditions = torch.cat([torch.zeros_like(mu), mu]) if guided else mu
        contexts = torch.cat([context, context]) if guided else context

        def velocity(state: Tensor, t: float) -> Tensor:
            states = torch.cat([state, state]) if guided else state
            time = torch.full((states.shape[0],), t, dtype=torch.float32, device=state.device)
            out = run(torch.cat([states, contexts, conditions], dim=-1), time)
            if not guided:
                return out
            unconditional, conditional = out.chunk(2)
            combined: Tensor = guide(unconditional, conditional, guidance)
            return combined

        solved: Tensor = euler(noise, context, context_length, steps, velocity)
        return solved

    def inference_codes(  # noqa: PLR0913 (the reference's arguments)
        self,
        codes: Tensor,
        true_latents: Tensor,
        noise: Tensor,
        *,
        latent_length: int,
        context_length: int = 0,
        steps: int = 10,
        guidance: float = 1.25,
        scenario: str = "other_seg",
        estimator: Velocity | None = None,
    ) -> Tensor:
        """Compute the latents of one window.

        Args:
            codes: int64 [B, K, n]; -1 contributes nothing.
            true_latents: [B, 2 n, L], read on the in-context frames only.
            noise: [B, 2 n, L].
            latent_length: frames from this one on have no condition.
            context_length: frames of `true_latents` that the window continues.
            steps: Euler steps.
            guidance: values above 1 enable guidance.
            scenario: every value but "other_seg" ignores the context.
            estimator: as for `solve`.

        Returns:
            [B, 2 n, L].

        Raises:
            InvalidRequestError: a code is out of range.
        """
        self.vq_embed.check(codes)
        if scenario != "other_seg":
            context_length = 0
        context = torch.zeros_like(true_latents)
        context[:, :context_length] = true_latents[:, :context_length]
        return self.solve(
            noise, context, self.condition(codes, latent_length),
            context_length=context_length, steps=steps, guidance=guidance, estimator=estimator,
        )  # fmt: skip
