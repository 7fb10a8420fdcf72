"""The converter: the answer to one request, served as the model `svc` or in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.config.presets import Preset
from heartvoice.errors import VoiceNotFoundError
from heartvoice.runtime.networks import Check, JobNetworks
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.svc.exact import ExactConversion
from heartvoice.stages.svc.live import LiveConverter
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk
from heartvoice.stages.svc.stage import ConvertStage
from heartvoice.stages.svc.voice_cache import DEFAULT_LIMIT_BYTES, VoiceCache, key_group, voice_key
from heartvoice.stages.svc.voice_features import VoiceFeatures

Samples = NDArray[np.float32]


class Converter:
    """The converter behind `svc`, with a cache of voices. May be used from several threads."""

    def __init__(self, preset: Preset, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        """Start with an empty cache; all its voices together occupy at most `limit_bytes`."""
        self._preset = preset
        self.voices: VoiceCache[VoiceFeatures] = VoiceCache(limit_bytes)

    def convert(self, networks: JobNetworks, request: ConversionRequest) -> Iterator[ConvertedChunk]:
        """Convert one request's vocals, chunk by chunk.

        Args:
            networks: the job's; they hold the converter's graphs and `f0_network`.
            request: what to convert.

        Yields:
            Chunks in order. The first one is empty: the voice is known. The last one has the report; its vocals are
            empty, too.

        Raises:
            VoiceNotFoundError: the voice is named by its key, and is not cached.
            InvalidRequestError: the vocals or the state are invalid.
            RequestCancelledError: the job was cancelled.
            EngineError: a network failed or returned what its contract forbids.
        """
        began = time.monotonic()
        preset, settings = self._preset, request.settings
        stage = ConvertStage(networks, preset.svc, F0Stage(networks, preset.f0), preset.style.n_bands)
        voice = self._voice(stage, request, networks.check)
        voice_ready = time.monotonic()
        yield ConvertedChunk(_no_samples())

        def report(of_conversion: Mapping[str, Any]) -> dict[str, Any]:
            timings = {"voice_s": voice_ready - began, "conversion_s": time.monotonic() - voice_ready}
            return {**of_conversion, "timings": {name: round(value, 4) for name, value in timings.items()}}

        if request.live:
            live = LiveConverter(stage, voice, settings)
            if request.state is not None:
                live = LiveConverter.restore(stage, voice, settings, request.state)
            yield from map(ConvertedChunk, live.push(request.vocals, more=request.more))
            yield ConvertedChunk(_no_samples(), live.state() if request.more else None, report(live.report()))
            return
        exact = ExactConversion(stage, request.vocals, voice, settings)
        del request  # its vocals, up to a whole song's, are not needed after their analysis
        yield from map(ConvertedChunk, exact)
        yield ConvertedChunk(_no_samples(), None, report(exact.report()))

    def forget(self, voice: str) -> int:
        """Drop all that is kept of a voice, named by `Voice.sha256`; return how many entries that was.

        Jobs that have begun go on with what they have; nothing that they make of it is kept.
        """
        return self.voices.forget(key_group(voice))

    def _voice(self, stage: ConvertStage, request: ConversionRequest, check: Check) -> VoiceFeatures:
        prompt_s = request.settings.prompt_s
        key = voice_key(request.voice_key, self._preset.name, prompt_s)
        reference = request.voice
        if reference is not None:
            return self.voices.get(key, lambda: stage.voice(reference.audio44, prompt_s), check=check)
        cached = self.voices.find(key)
        if cached is None:
            raise VoiceNotFoundError(
                f"voice_key: no voice {request.voice_key[:12]!r} with prompt_s {prompt_s:g} is kept here; send it again"
            )
        return cached


def _no_samples() -> Samples:
    return np.empty(0, np.float32)
