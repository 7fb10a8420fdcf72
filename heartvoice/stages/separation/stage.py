"""Separation as a stage: a recording into its stems, segment by segment.

The network gets one segment at a time, so that memory does not depend on the length. A recording may come in windows,
one request each. What a window leaves unfinished is its carry; the samples are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heartvoice.config.presets import SeparatorConfig
from heartvoice.contracts.constants import MAX_LEVEL, MAX_RESPONSE_BYTES
from heartvoice.contracts.messages import StemsChunk
from heartvoice.contracts.models import HTDEMUCS
from heartvoice.errors import EngineError
from heartvoice.runtime.networks import Networks, check_size, run_finite
from heartvoice.stages.separation.plan import Segment, SeparationPlan
from heartvoice.stages.separation.request import Carry, SeparationRequest
from heartvoice.stages.separation.transform import SegmentTransform

Samples = NDArray[np.float32]
_BYTES_PER_SAMPLE = 2 * 4
"""Of one stem: two channels of float32."""


class SeparateStage:
    """The separator over its network. Holds no state of any recording."""

    def __init__(self, networks: Networks, sizes: SeparatorConfig, *, all_chunks: bool = False) -> None:
        """Plan the segments; see `SeparationPlan` for `all_chunks`."""
        self._networks, self._sizes = networks, sizes
        self.plan = SeparationPlan(sizes, all_chunks=all_chunks)
        self._transform = SegmentTransform(sizes)

    def separate(self, request: SeparationRequest) -> Iterator[StemsChunk | Carry]:
        """Separate one request's audio.

        Args:
            request: what to separate.

        Yields:
            Final chunks in order, each of at most `MAX_RESPONSE_BYTES`; with `more`, the carry at the end. Starts
            count from the first sample after the context.

        Raises:
            InvalidRequestError: the request is wrong; no network has run.
            RequestCancelledError: the job was cancelled.
            EngineError: the network failed.
        """
        request.check(self._sizes, self.plan)
        return self._separate(request)

    def _separate(self, request: SeparationRequest) -> Iterator[StemsChunk | Carry]:
        plan, carry = self.plan, request.carry
        names = request.sources or self._sizes.sources
        wanted = [self._sizes.sources.index(name) for name in names]
        n_new = request.audio.shape[1] - request.context
        segments = plan.segments(n_new, carried=carry is not None, more=request.more)
        # Where the current segment lies: weighted sums of stems, and sums of weights.
        sums, weights = np.zeros((len(wanted), 2, plan.segment), np.float32), np.zeros(plan.segment, np.float32)
        if carry is not None:
            sums[..., : plan.overlap], weights[: plan.overlap] = carry, plan.weight[plan.stride :]
        if not segments:
            yield from self._finished(0, sums[..., :n_new], weights[:n_new])
        for index, segment in enumerate(segments):
            weight = plan.weight[: segment.length]
            sums[..., : segment.length] += self._run(request, segment, wanted) * weight
            weights[: segment.length] += weight
            is_last = index == len(segments) - 1
            n_final = n_new - segment.offset if is_last and not request.more else plan.stride
            yield from self._finished(segment.offset, sums[..., :n_final], weights[:n_final])
            for buffer in (sums, weights):
                buffer[..., : plan.overlap] = buffer[..., plan.stride :].copy()
                buffer[..., plan.overlap :] = 0
        if request.more:
            yield Carry(sums[..., : plan.overlap].copy())

    def _finished(self, start: int, sums: Samples, weights: Samples) -> Iterator[StemsChunk]:
        """Weighted means, in chunks that fit a response."""
        most = MAX_RESPONSE_BYTES // (len(sums) * _BYTES_PER_SAMPLE)
        for first in range(0, len(weights), most):
            piece = slice(first, first + most)
            yield StemsChunk(np.ascontiguousarray(sums[..., piece] / weights[piece]), start + first)

    def _run(self, request: SeparationRequest, segment: Segment, wanted: list[int]) -> Samples:
        """The wanted stems of one segment, [S', 2, length]."""
        begin = request.context + segment.offset - segment.before
        read = request.audio[:, max(begin, 0) : begin + self.plan.segment]
        mix = np.zeros((2, self.plan.segment), np.float32)
        mix[:, max(-begin, 0) : max(-begin, 0) + read.shape[1]] = read
        inputs = {"mix": mix[None], "spectrum": self._transform.forward(mix)[None]}
        outputs = run_finite(self._networks, HTDEMUCS.name, inputs)
        spectra, waves = (outputs[name][0][wanted].astype(np.float32, copy=False) for name in ("spectra", "waves"))
        if spectra.shape[1:] != inputs["spectrum"].shape[1:] or waves.shape[1:] != mix.shape:
            raise EngineError(f"htdemucs: unexpected spectra {list(spectra.shape)} and waves {list(waves.shape)}")
        stems = self._transform.inverse(spectra)
        stems += waves
        check_size(HTDEMUCS.name, stems, MAX_LEVEL)
        return stems[..., segment.before : segment.before + segment.length]
