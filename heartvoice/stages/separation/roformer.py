"""The separation of one request by BS-RoFormer or MelBand-RoFormer: overlapping chunks, faded and added up.

Source: roformer spec, sections 1, 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from heartvoice.config.presets import RoformerConfig
from heartvoice.contracts.constants import MAX_LEVEL
from heartvoice.contracts.models import ROFORMER
from heartvoice.errors import EngineError
from heartvoice.runtime.networks import Networks, check_size, run_finite
from heartvoice.stages.separation.plan import Span, adjacent_spans
from heartvoice.stages.separation.request import Carry, SeparationRequest
from heartvoice.stages.separation.roformer_chunks import ChunkLoop
from heartvoice.stages.separation.roformer_transform import RoformerTransform

Samples = NDArray[np.float32]


class RoformerPlan:
    """Where the chunks of a `ChunkLoop` lie in a recording; a `Plan`.

    A long recording is reflected at both ends, so the first chunks begin before it. The first request runs all chunks
    that reach there, and more if the recording might still be too short to be reflected.
    """

    def __init__(self, sizes: RoformerConfig) -> None:
        self.loop = ChunkLoop(sizes.chunk_size, sizes.num_overlap)
        self.overlap = self.loop.border

    def window(self, index: int) -> tuple[int, int]:
        """See `Plan.window`."""
        loop = self.loop
        start = (index + loop.first_calls - 1) * loop.step - loop.border
        return start if index else 0, start + loop.chunk

    def kept(self, index: int) -> int:
        """See `Plan.kept`: a chunk reads nothing before itself."""
        return self.window(index)[0]

    def fault(self, n_new: int, _context: int, *, carried: bool, more: bool) -> str:
        """See `Plan.fault`."""
        first = self.loop.chunk if carried else self.window(0)[1]
        if more and (n_new < first or (n_new - first) % self.loop.step):
            return f"more: expected {first} new samples and a multiple of {self.loop.step}, got {n_new}"
        if carried and not more and n_new <= self.overlap:
            return f"audio: expected more than the {self.overlap} new samples of the carry, got {n_new}"
        return ""

    def spans(self, n_samples: int, segments_per_window: int = 1) -> list[Span]:
        """See `Plan.spans`."""
        return adjacent_spans(self, n_samples, segments_per_window)


class RoformerEngine:
    """A RoFormer over its network; a `SeparationEngine`."""

    def __init__(self, networks: Networks, sizes: RoformerConfig) -> None:
        self._networks, self._sizes = networks, sizes
        self.plan = RoformerPlan(sizes)
        self._transform = RoformerTransform(sizes)

    def run(self, request: SeparationRequest, wanted: list[int]) -> Iterator[Samples | Carry]:
        """See `SeparationEngine.run`. The carry of the residual is that of the stem which it is left by."""
        audio, residual = request.audio[:, request.context :], len(self._sizes.stems)
        stems = [0 if source == residual else source for source in wanted]
        rows = sorted(set(stems))  # a stem and its residual have one mask
        carry = None if request.carry is None else request.carry[[stems.index(row) for row in rows]]
        start = 0
        for item in self.plan.loop.run(audio, partial(self._chunk, rows=rows), carry=carry, more=request.more):
            if isinstance(item, Carry):
                yield Carry(item.carry[[rows.index(stem) for stem in stems]])
                continue
            found: Samples = item[[rows.index(stem) for stem in stems]]
            for place, source in enumerate(wanted):
                if source == residual:
                    found[place] = audio[:, start : start + item.shape[2]] - found[place]
            check_size(ROFORMER.name, found, MAX_LEVEL)
            yield found
            start += item.shape[2]

    def _chunk(self, mix: Samples, *, rows: list[int]) -> Samples:
        """Stems [rows, 2, chunk] of one chunk; a network for mono gets the channels one by one."""
        channels = self._sizes.channels
        parts = [self._stems(mix[first : first + channels], rows) for first in range(0, len(mix), channels)]
        return np.concatenate(parts, axis=1)

    def _stems(self, mix: Samples, rows: list[int]) -> Samples:
        features = self._transform.features(mix)
        outputs = run_finite(self._networks, ROFORMER.name, {"features": features[None]})
        masks = outputs["masks"][0].astype(np.float32, copy=False)
        if masks.shape != (len(self._sizes.stems), *features.shape):
            raise EngineError(f"roformer: unexpected masks {list(masks.shape)}")
        return self._transform.separate(features, masks[rows])
