"""One request to the converter and its answer, whichever way it goes: served as the model `svc`, or in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.recordings import Voice, read_consent, read_voice
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.contracts.settings import LIVE, MORE
from heartvoice.contracts.validation import read_settings, read_text
from heartvoice.errors import InvalidRequestError, VoiceNotFoundError
from heartvoice.runtime.networks import Check, JobNetworks
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.svc.live import LiveConverter
from heartvoice.stages.svc.settings import ConvertSettings
from heartvoice.stages.svc.stage import ConvertStage
from heartvoice.stages.svc.voice_cache import DEFAULT_LIMIT_BYTES, VoiceCache, voice_key
from heartvoice.stages.svc.voice_features import VoiceFeatures

Samples = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ConversionRequest:
    """Vocals to be converted, and how."""

    vocals: Samples
    """float32 [N] mono at 44.1 kHz; if `state` is given, going on where the last ones ended."""
    voice: Voice | None
    voice_key: str
    """`Voice.sha256`; alone if the voice is None."""
    consent: str
    settings: ConvertSettings = field(default_factory=ConvertSettings)
    live: bool = False
    state: Array | None = None
    more: bool = False

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array]) -> ConversionRequest:
        """Check a request's tensors.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        if "vocals" not in inputs:
            raise InvalidRequestError("vocals: missing, expected FP32 [stem_sample] at 44.1 kHz")
        settings = ConvertSettings.from_inputs(inputs)
        how = read_settings(inputs, (LIVE, MORE))
        state = inputs.get("state")
        if not how["live"] and (how["more"] or state is not None):
            field_ = "more" if how["more"] else "state"
            raise InvalidRequestError(f"{field_}: expected only with live: else all vocals come in one request")
        sent, named = {"voice", "voice_audio"} & set(inputs), "voice_key" in inputs
        if bool(sent) == named:
            got = "both" if named else "neither"
            raise InvalidRequestError(f"voice: expected either a voice or its key, got {got}")
        consent = read_consent(inputs)
        voice = read_voice(inputs) if sent else None
        key = voice.sha256 if voice else read_text(inputs, "voice_key")
        vocals = inputs["vocals"].astype(np.float32, copy=False)
        return cls(vocals, voice, key, consent, settings, bool(how["live"]), state, bool(how["more"]))

    def inputs(self, *, named: bool) -> dict[str, Array]:
        """As tensors of the contract `svc`; `named` gives the voice by its key alone."""
        settings = self.settings
        arrays: dict[str, Array] = {
            "vocals": self.vocals,
            "voice_consent": np.array([self.consent.encode()], np.object_),
            "auto_pitch": np.array([settings.auto_pitch.encode()], np.object_),
            "seed": np.array([settings.seed]),
            "svc_steps": np.array([settings.steps]),
            "svc_guidance": np.array([settings.guidance]),
            "pitch_shift": np.array([settings.pitch_shift]),
            "prompt_s": np.array([settings.prompt_s]),
            "live": np.array([self.live]),
            "more": np.array([self.more]),
        }
        if self.state is not None:
            arrays["state"] = self.state
        if named or self.voice is None:
            arrays["voice_key"] = np.array([self.voice_key.encode()], np.object_)
        else:
            arrays["voice_audio"] = self.voice.audio44[None]
            arrays["voice_sample_rate"] = np.array([STEM_RATE_HZ])
        return arrays


@dataclass(frozen=True, eq=False)
class ConvertedChunk:
    """A stretch of converted vocals, float32 [M]. The last one has the report and, if more vocals follow, the state."""

    vocals: Samples
    state: Samples | None = None
    report: Mapping[str, Any] | None = None


class Converter:
    """The converter behind `svc`, with the voices that it has heard. May be used from several threads."""

    def __init__(self, preset: Preset, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        """`limit_bytes` is what all kept voices may occupy together."""
        self._preset = preset
        self.voices: VoiceCache[VoiceFeatures] = VoiceCache(limit_bytes)

    def convert(self, networks: JobNetworks, request: ConversionRequest) -> Iterator[ConvertedChunk]:
        """Convert one request's vocals, piece by piece.

        Args:
            networks: the job's; they hold the converter's graphs and `f0_network`.
            request: what to convert.

        Yields:
            Pieces in order; the last one, which may be empty, has the report.

        Raises:
            VoiceNotFoundError: the voice is given by its key, and not kept.
            InvalidRequestError: vocals or state are none.
            RequestCancelledError: the job was cancelled.
            EngineError: a network failed or returned what its contract forbids.
        """
        began = time.monotonic()
        preset, settings = self._preset, request.settings
        stage = ConvertStage(networks, preset.svc, F0Stage(networks, preset.f0), preset.style.n_bands)
        voice = self._voice(stage, request, networks.check)
        heard = time.monotonic()

        def report(of_stage: Mapping[str, Any]) -> dict[str, Any]:
            timings = {"voice_s": heard - began, "conversion_s": time.monotonic() - heard}
            return {**of_stage, "timings": {name: round(value, 4) for name, value in timings.items()}}

        if request.live:
            live = LiveConverter(stage, voice, settings)
            if request.state is not None:
                live = LiveConverter.restore(stage, voice, settings, request.state)
            pieces = live.push(request.vocals, more=request.more)
            yield from (ConvertedChunk(piece) for piece in pieces)
            yield ConvertedChunk(_nothing(), live.state() if request.more else None, report(live.report()))
            return
        song = stage.convert(request.vocals, voice, settings)
        yield from (ConvertedChunk(piece) for piece in song)
        yield ConvertedChunk(_nothing(), None, report(song.report()))

    def _voice(self, stage: ConvertStage, request: ConversionRequest, check: Check) -> VoiceFeatures:
        prompt_s = request.settings.prompt_s
        key = voice_key(request.voice_key, self._preset.name, prompt_s)
        reference = request.voice
        if reference is not None:
            return self.voices.get(key, lambda: stage.voice(reference.audio44, prompt_s), check=check)
        kept = self.voices.find(key)
        if kept is None:
            raise VoiceNotFoundError(
                f"voice_key: no voice {request.voice_key[:12]!r} with prompt_s {prompt_s:g} is kept here; send it again"
            )
        return kept


def _nothing() -> Samples:
    return np.empty(0, np.float32)
