"""Conversion as a stage: the features of a voice and of vocals, and the vocals in that voice, window by window.

    vocals -> 16 kHz -> content, F0 -> shift -> regulator -> cond [T, D]
    for each window: flow(prompt, cond) -> mel -> vocoder -> cross-fade

`exact.py` converts a whole song in one request, `live.py` in several. Memory grows with the song by its content and
its condition alone.

Source: seed_vc spec, sections 1 to 12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice import keyed_random
from heartvoice.audio.levels import SILENCE_DBFS, at_level, heard, loudness_levels, voice_level
from heartvoice.config.svc import SVC_HOP, SvcConfig
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.contracts.graphs import SVC_CONTEXT, SVC_FLOW, SVC_REGULATOR, SVC_STYLE, VOCODER
from heartvoice.contracts.settings import PROMPT_S
from heartvoice.errors import EngineError
from heartvoice.runtime.networks import Networks, run_finite
from heartvoice.stages.f0 import Contour, F0Stage, heard_contour
from heartvoice.stages.speaker import campplus_features
from heartvoice.stages.svc.content import content_features, sinc_resample
from heartvoice.stages.svc.flow import network_velocity, sample
from heartvoice.stages.svc.mel import log_mel, n_mel_frames
from heartvoice.stages.svc.pitch import Contour as AnyContour
from heartvoice.stages.svc.settings import ConvertSettings
from heartvoice.stages.svc.vocals import check_voice
from heartvoice.stages.svc.vocoder import VocodeStage
from heartvoice.stages.svc.voice_cache import pcm_sha256
from heartvoice.stages.svc.voice_features import (
    SAMPLES_PER_VALUE,
    VoiceFeatures,
    from_the_start,
    stretch_start,
)
from heartvoice.stages.svc.windows import SvcWindow, plan_windows, regulator_inputs

Floats = NDArray[np.float32]
PROMPT_DBFS = -16.0
"""Level of the voice in every prompt (`levels.voice_level`), about -20 dBFS on average: that to which corpora of speech
are brought. A soft prompt would make a soft voice, near the floor of the log-mel."""
Noise = Callable[[int, int], Floats]
"""Makes the flow's initial noise, float32 [T, M], from a window's number and its frames T."""


@dataclass(frozen=True)
class SourceFeatures:
    """Features of vocals: content [S, C], contour [n] in Hz, and the number of mel frames."""

    content: Floats
    f0: Contour
    n_frames: int
    levels: Floats
    """A-weighted level of each value of the contour in dBFS."""
    level_dbfs: float
    """Level of the voice, so far."""

    @property
    def heard_f0(self) -> Contour:
        """The contour for statistics: 0 also where the vocals are far below their level."""
        return np.where(heard(self.levels, self.level_dbfs), self.f0, np.float32(0))


class ConvertStage:
    """The converter over its networks. Holds no state of any song or voice; may be used from several threads."""

    def __init__(
        self,
        networks: Networks,
        sizes: SvcConfig,
        f0: F0Stage,
        style_bands: int = 80,
        *,
        context_frames: int = SVC_CONTEXT,
    ) -> None:
        """Choose the networks.

        Args:
            networks: hold `content_encoder`, `svc_regulator`, `svc_flow`, `svc_style` and `vocoder`.
            sizes: of those.
            f0: tracks the pitch.
            style_bands: mel bands of the style encoder.
            context_frames: frames of one window of the flow, prompt included. Fewer need less memory; the weights
                were trained with the default.
        """
        self._networks, self._sizes, self._f0 = networks, sizes, f0
        self._style_bands, self._context = style_bands, context_frames
        self._vocoder = VocodeStage(networks, sizes.vocoder)

    # ------------------------------------------------------------------------------------------------------- a voice

    def voice(self, audio44: Floats, prompt_s: float = 12.0) -> VoiceFeatures:
        """Compute the features of a voice. The level of its recording makes no difference.

        Args:
            audio44: float32 [N], mono at 44.1 kHz, at least 0.1 s.
            prompt_s: length of the prompt, see `voice_features`; a shorter reference is taken whole.

        Returns:
            The voice. If the reference has no voiced value, no pitch is moved to it.

        Raises:
            InvalidRequestError: the reference has the wrong shape or dtype, is too short, or not finite.
            RequestCancelledError: the job was cancelled.
            EngineError: a network failed or returned what its contract forbids.
        """
        PROMPT_S.check(prompt_s)
        check_voice(audio44)
        start, n = 0, min(len(audio44), round(prompt_s * STEM_RATE_HZ))
        if not from_the_start(len(audio44), prompt_s):
            whole = sinc_resample(audio44 - audio44.mean(dtype=np.float64).astype(np.float32))
            at = stretch_start(whole, heard_contour(self._f0.track(whole), whole), prompt_s)
            start = min(at * SAMPLES_PER_VALUE, len(audio44) - n)
        stretch = audio44[start : start + n]
        level_dbfs = voice_level(loudness_levels(sinc_resample(stretch)))
        stretch = at_level(stretch, level_dbfs, PROMPT_DBFS)
        audio16 = sinc_resample(stretch)
        f0 = self._f0.track(audio16)  # of the stretch alone, as if it were the whole reference
        voice = self.voice_of(stretch, f0, self.style(audio16), start / STEM_RATE_HZ)
        return replace(voice, gain_db=PROMPT_DBFS - level_dbfs if level_dbfs > SILENCE_DBFS else 0.0)

    def voice_of(self, stretch44: Floats, f0: AnyContour, style: Floats, start_s: float = 0.0) -> VoiceFeatures:
        """The features of a voice from its prompt [N], contour and style [S]; errors as for `voice`."""
        mel, audio16 = log_mel(stretch44, self._sizes.dit.in_channels), sinc_resample(stretch44)
        cond = self.condition(self.content(audio16), f0, len(mel))  # the contour as it is: 0 where unvoiced
        heard_f0, seconds = heard_contour(f0, audio16), len(stretch44) / STEM_RATE_HZ
        return VoiceFeatures(mel, cond, style, heard_f0, pcm_sha256(stretch44), seconds, start_s)

    def style(self, audio16: Floats) -> Floats:
        """The style vector [S] of samples [N] at 16 kHz, at most 60 s."""
        (features,) = campplus_features(audio16, self._style_bands)
        found = self._run(SVC_STYLE.name, {"features": features[None]}, "embedding")
        return self._shaped(SVC_STYLE.name, found[0], (self._sizes.dit.style_dim,))

    # -------------------------------------------------------------------------------------------------------- a song

    def analyse(self, vocals44: Floats, level_dbfs: float = -np.inf) -> SourceFeatures:
        """The content and pitch of vocals [N]; `level_dbfs` is the voice's level in what came before them."""
        audio16 = sinc_resample(vocals44)
        levels = loudness_levels(audio16).astype(np.float32)
        level = max(voice_level(levels), level_dbfs)
        f0 = self._f0.track(audio16, level)
        return SourceFeatures(self.content(audio16), f0, n_mel_frames(len(vocals44)), levels[: len(f0)], level)

    def content(self, audio16: Floats) -> Floats:
        """The content [S, C] of samples at 16 kHz; see `content.content_features`."""
        return content_features(self._networks, audio16, self._sizes.whisper.num_mel_bins)

    def condition(self, content: Floats, f0: AnyContour, n_frames: int) -> Floats:
        """The flow's condition, in one call, because its norms are over all frames.

        Args:
            content: float32 [S, C].
            f0: Hz, 100 values a second: of a song after `pitch.shifted`, of a reference as it was tracked.
            n_frames: mel frames T.

        Returns:
            float32 [T, D].
        """
        inputs = regulator_inputs(content, f0, n_frames, self._sizes.regulator.n_f0_bins)
        found = self._run(SVC_REGULATOR.name, inputs, "cond")
        return self._shaped(SVC_REGULATOR.name, found[0], (n_frames, self._sizes.regulator.channels))

    def plan(self, n_frames: int, voice: VoiceFeatures) -> list[SvcWindow]:
        """The windows of `n_frames` frames, each beside the voice's prompt."""
        return plan_windows(n_frames, voice.n_frames, context=self._context)

    def waves(
        self,
        cond: Floats,
        voice: VoiceFeatures,
        settings: ConvertSettings,
        *,
        first: int = 0,
        draw: Noise | None = None,
    ) -> Iterator[tuple[SvcWindow, Floats]]:
        """Turn a condition into samples, window by window.

        Args:
            cond: float32 [T, D].
            voice: see `voice`.
            settings: steps, guidance and seed.
            first: number of the first window, for its noise.
            draw: the noise; default `noise(settings.seed)`.

        Yields:
            Each window of `plan` and its samples, float32 [frames * 512], overlaps included.
        """
        draw = draw or self.noise(settings.seed)
        for index, window in enumerate(self.plan(len(cond), voice), first):
            begin = draw(index, window.end - window.start)
            mel = self.solve(begin, cond[window.start : window.end], voice, settings)
            yield window, self.vocode(mel)

    def noise(self, seed: int) -> Noise:
        """The noise of a seed, by window. It does not depend on the voice."""
        return lambda index, n_frames: keyed_random.normal(seed, "svc", index, (n_frames, self._sizes.dit.in_channels))

    def solve(self, begin: Floats, cond: Floats, voice: VoiceFeatures, settings: ConvertSettings) -> Floats:
        """Solve one window of the flow: noise [T, M] and condition [T, D] to mel [T, M], T without the prompt."""
        head = voice.n_frames
        mel: Floats = sample(
            np.concatenate([np.zeros_like(voice.mel), begin])[None],
            voice.mel[None],
            voice.style[None],
            np.concatenate([voice.cond, cond])[None],
            steps=settings.steps,
            guidance=settings.guidance,
            velocity=network_velocity(self._networks),
        )[0, head:]
        return self._shaped(SVC_FLOW.name, mel, begin.shape)

    def vocode(self, mel: Floats) -> Floats:
        """Turn mel frames [T, M] into samples [T * 512]."""
        wave = self._vocoder.decode(np.ascontiguousarray(mel.T))
        return self._shaped(VOCODER.name, wave, (len(mel) * SVC_HOP,))

    # -------------------------------------------------------------------------------------------------------- inside

    def _run(self, name: str, inputs: Any, output: str) -> Floats:
        found: Floats = run_finite(self._networks, name, inputs)[output].astype(np.float32, copy=False)
        return found

    @staticmethod
    def _shaped(name: str, value: Floats, shape: tuple[int, ...]) -> Floats:
        if value.shape != shape:
            raise EngineError(f"{name}: expected {list(shape)}, got {list(value.shape)}")
        if not np.isfinite(value).all():
            raise EngineError(f"{name}: returned NaN or Inf")
        return value
