"""Separation as a stage: a recording into its stems, segment by segment.

The network gets one segment at a time, so that memory does not depend on the length. A recording may come in windows,
one request each. What a window leaves unfinished is its carry; the samples are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice.config.presets import AnySeparator, RoformerConfig, SpleeterConfig
from heartvoice.contracts.constants import MAX_RESPONSE_BYTES
from heartvoice.contracts.messages import StemsChunk
from heartvoice.runtime.networks import Networks
from heartvoice.stages.separation.htdemucs import HtdemucsEngine
from heartvoice.stages.separation.plan import Plan, SeparationPlan
from heartvoice.stages.separation.request import Carry, SeparationRequest
from heartvoice.stages.separation.roformer import RoformerEngine, RoformerPlan
from heartvoice.stages.separation.spleeter import SpleeterEngine, SpleeterPlan

Samples = NDArray[np.float32]
_BYTES_PER_SAMPLE = 2 * 4
"""Of one stem: two channels of float32."""


class SeparationEngine(Protocol):
    """A separator over its network."""

    @property
    def plan(self) -> Plan:
        """How it cuts recordings."""
        ...

    def run(self, request: SeparationRequest, wanted: list[int]) -> Iterator[Samples | Carry]:
        """Separate one checked request.

        Args:
            request: what to separate.
            wanted: numbers of the sources, in the order of the answer.

        Yields:
            Final stems float32 [S', 2, M] without gaps; with `more`, the carry at the end.
        """
        ...


def plan_of(sizes: AnySeparator) -> Plan:
    """Return how the separator of these sizes cuts recordings."""
    if isinstance(sizes, SpleeterConfig):
        return SpleeterPlan(sizes)
    return RoformerPlan(sizes) if isinstance(sizes, RoformerConfig) else SeparationPlan(sizes)


def _engine(networks: Networks, sizes: AnySeparator, *, all_chunks: bool) -> SeparationEngine:
    if isinstance(sizes, SpleeterConfig):
        return SpleeterEngine(networks, sizes)
    if isinstance(sizes, RoformerConfig):
        return RoformerEngine(networks, sizes)
    return HtdemucsEngine(networks, sizes, all_chunks=all_chunks)


class SeparateStage:
    """The separator over its network. Holds no state of any recording."""

    def __init__(self, networks: Networks, sizes: AnySeparator, *, all_chunks: bool = False) -> None:
        """Choose the engine by its sizes; see `SeparationPlan` for `all_chunks`, which is htdemucs' alone."""
        self._sizes = sizes
        self._engine = _engine(networks, sizes, all_chunks=all_chunks)
        self.plan = self._engine.plan

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
        names = request.sources or self._sizes.sources
        start = 0
        for item in self._engine.run(request, [self._sizes.sources.index(name) for name in names]):
            if isinstance(item, Carry):
                yield item
                continue
            most = MAX_RESPONSE_BYTES // (len(item) * _BYTES_PER_SAMPLE)
            for first in range(0, item.shape[2], most):
                yield StemsChunk(np.ascontiguousarray(item[..., first : first + most]), start + first)
            start += item.shape[2]
