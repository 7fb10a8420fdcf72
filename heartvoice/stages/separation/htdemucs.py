"""The separation of one request by htdemucs: overlapping segments, weighted and added up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heartvoice.config.presets import SeparatorConfig
from heartvoice.contracts.constants import MAX_LEVEL
from heartvoice.contracts.models import HTDEMUCS
from heartvoice.errors import EngineError
from heartvoice.runtime.networks import Networks, check_size, run_finite
from heartvoice.stages.separation.plan import Segment, SeparationPlan
from heartvoice.stages.separation.request import Carry, SeparationRequest
from heartvoice.stages.separation.transform import SegmentTransform

Samples = NDArray[np.float32]


class HtdemucsEngine:
    """htdemucs over its network; a `SeparationEngine`."""

    def __init__(self, networks: Networks, sizes: SeparatorConfig, *, all_chunks: bool = False) -> None:
        """Plan the segments; see `SeparationPlan` for `all_chunks`."""
        self._networks, self._sizes = networks, sizes
        self.plan = SeparationPlan(sizes, all_chunks=all_chunks)
        self._transform = SegmentTransform(sizes)

    def run(self, request: SeparationRequest, wanted: list[int]) -> Iterator[Samples | Carry]:
        """See `SeparationEngine.run`."""
        plan, carry = self.plan, request.carry
        n_new = request.audio.shape[1] - request.context
        segments = plan.segments(n_new, carried=carry is not None, more=request.more)
        # Where the current segment lies: weighted sums of stems, and sums of weights.
        sums, weights = np.zeros((len(wanted), 2, plan.segment), np.float32), np.zeros(plan.segment, np.float32)
        if carry is not None:
            sums[..., : plan.overlap], weights[: plan.overlap] = carry, plan.weight[plan.stride :]
        if not segments:
            yield sums[..., :n_new] / weights[:n_new]
        for index, segment in enumerate(segments):
            weight = plan.weight[: segment.length]
            sums[..., : segment.length] += self._segment(request, segment, wanted) * weight
            weights[: segment.length] += weight
            is_last = index == len(segments) - 1
            n_final = n_new - segment.offset if is_last and not request.more else plan.stride
            yield sums[..., :n_final] / weights[:n_final]
            for buffer in (sums, weights):
                buffer[..., : plan.overlap] = buffer[..., plan.stride :].copy()
                buffer[..., plan.overlap :] = 0
        if request.more:
            yield Carry(sums[..., : plan.overlap].copy())

    def _segment(self, request: SeparationRequest, segment: Segment, wanted: list[int]) -> Samples:
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
