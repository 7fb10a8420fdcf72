"""Conversion as a stage: vocals into the same vocals in another voice, window by window.

A conversion is exact: pitch statistics and the regulator's norms are those of the whole song, so that everything but
the flow and the vocoder runs before the first window. `convert_live.py` goes on from request to request.

    vocals -> 16 kHz -> content, F0 -> shift -> regulator -> cond [T, D]
    for each window: flow(prompt, cond) -> mel -> vocoder -> cross-fade

Memory grows with the song by its content and its condition alone. Source: seed_vc spec, sections 1 to 12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice import keyed_random
from heartvoice.config.svc import SVC_HOP, SvcConfig
from heartvoice.contracts.constants import MAX_LEVEL, STEM_RATE_HZ
from heartvoice.contracts.graphs import MAX_SVC_FRAMES, SVC_CONTEXT, SVC_FLOW, SVC_REGULATOR, SVC_STYLE, VOCODER
from heartvoice.contracts.settings import PROMPT_S
from heartvoice.contracts.validation import check_finite
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.runtime.networks import Networks
from heartvoice.stages.f0 import Contour, F0Stage, median_hz
from heartvoice.stages.speaker import campplus_features
from heartvoice.stages.svc.content import content_features, sinc_resample
from heartvoice.stages.svc.flow import network_velocity, sample
from heartvoice.stages.svc.mel import log_mel, n_mel_frames
from heartvoice.stages.svc.pitch import Contour as AnyContour
from heartvoice.stages.svc.pitch import shifted
from heartvoice.stages.svc.settings import ConvertSettings
from heartvoice.stages.svc.vocoder import VocodeStage
from heartvoice.stages.svc.voice_cache import pcm_sha256
from heartvoice.stages.svc.voice_features import (
    SAMPLES_PER_VALUE,
    VoiceFeatures,
    from_the_start,
    stretch_start,
    voiced_share,
)
from heartvoice.stages.svc.windows import SvcWindow, WindowJoiner, plan_windows, regulator_inputs

Floats = NDArray[np.float32]
Noise = Callable[[int, int], Floats]
"""Number of a window and its frames T to the flow's beginning, float32 [T, M]."""

MIN_VOICE_SAMPLES = STEM_RATE_HZ // 10
"""Less has too few frames for the style encoder."""
MAX_VOCALS_SAMPLES = (MAX_SVC_FRAMES + 1) * SVC_HOP - 1
"""600 s, and what resampling may have rounded up."""


@dataclass(frozen=True)
class SourceFeatures:
    """What is sung: content [S, C], contour [n] in Hz, and mel frames of the recording."""

    content: Floats
    f0: Contour
    n_frames: int


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did, for people."""

    mode: str
    windows: int
    shift_semitones: float
    """In all, of which ..."""
    auto_shift_semitones: float
    """... this was found."""
    shift_off_semitones: float
    """What was found less what the vocals up to their end ask for; 0 but in a live conversion."""
    voiced_share: float
    median_hz: float
    voice_voiced_share: float
    voice_median_hz: float
    prompt_s: float
    prompt_start_s: float

    def rounded(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: round(v, 4) if isinstance(v, float) else v for name, v in asdict(self).items()}


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
            f0: finds pitch.
            style_bands: bands that the style encoder hears.
            context_frames: frames that the flow hears at once, prompt included. Fewer need less memory; the weights
                were trained with the default.
        """
        self._networks, self._sizes, self._f0 = networks, sizes, f0
        self._style_bands, self._context = style_bands, context_frames
        self._vocoder = VocodeStage(networks, sizes.vocoder)

    # ------------------------------------------------------------------------------------------------------- a voice

    def voice(self, audio44: Floats, prompt_s: float = 12.0) -> VoiceFeatures:
        """Listen to a reference.

        Args:
            audio44: float32 [N], mono at 44.1 kHz, at least 0.1 s.
            prompt_s: length of the stretch that is taken, see `voice_features`; a shorter reference is taken whole.

        Returns:
            The voice. A reference without a voiced value gives one too, to which no pitch is moved.

        Raises:
            InvalidRequestError: the reference has the wrong shape or dtype, is too short, or not finite.
            RequestCancelledError: the job was cancelled.
            EngineError: a network failed or returned what its contract forbids.
        """
        PROMPT_S.check(prompt_s)
        _check("voice", audio44, MIN_VOICE_SAMPLES, MAX_VOCALS_SAMPLES)
        start, n = 0, min(len(audio44), round(prompt_s * STEM_RATE_HZ))
        if not from_the_start(len(audio44), prompt_s):
            whole = sinc_resample(audio44)
            at = stretch_start(whole, self._f0.track(whole), prompt_s)
            start = min(at * SAMPLES_PER_VALUE, len(audio44) - n)
        stretch = audio44[start : start + n]
        audio16 = sinc_resample(stretch)
        f0 = self._f0.track(audio16)  # of the stretch alone, as if it were the whole reference
        return self.voice_of(stretch, f0, self.style(audio16), start / STEM_RATE_HZ)

    def voice_of(
        self,
        stretch44: Floats,
        f0: AnyContour,
        style: Floats,
        start_s: float = 0.0,
    ) -> VoiceFeatures:
        """A voice of a stretch [N] whose contour and style [S] are known; errors as for `voice`."""
        mel = log_mel(stretch44, self._sizes.dit.in_channels)
        content = self.content(sinc_resample(stretch44))
        cond = self.condition(content, f0, len(mel))  # the contour as it is: 0 where unvoiced
        return VoiceFeatures(mel, cond, style, f0, pcm_sha256(stretch44), len(stretch44) / STEM_RATE_HZ, start_s)

    def style(self, audio16: Floats) -> Floats:
        """Style [S] of samples [N] at 16 kHz, at most 60 s."""
        (features,) = campplus_features(audio16, self._style_bands)
        found = self._run(SVC_STYLE.name, {"features": features[None]}, "embedding")
        return self._shaped(SVC_STYLE.name, found[0], (self._sizes.dit.style_dim,))

    # -------------------------------------------------------------------------------------------------------- a song

    def convert(self, vocals44: Floats, voice: VoiceFeatures, settings: ConvertSettings) -> ConversionStream:
        """Sing a whole song in another voice.

        Args:
            vocals44: float32 [N], mono at 44.1 kHz, N at least 512. Silence and vocals without a voiced value are
                converted as anything else, and their pitch is not moved.
            voice: see `voice`.
            settings: how.

        Returns:
            An iterator of float32 pieces, in order, N // 512 * 512 samples together, in [-1, 1]; a piece is ready as
            soon as its window is. Vocals are checked at once, and nothing else is done before the first is asked for.

        Raises:
            InvalidRequestError: the vocals have the wrong shape or dtype or length, or are not finite.
            RequestCancelledError: while iterating: the job was cancelled.
            EngineError: while iterating: a network failed or returned what its contract forbids.
        """
        return ConversionStream(self, vocals44, voice, settings)

    def listen(self, vocals44: Floats) -> SourceFeatures:
        """Content and pitch of vocals [N]."""
        audio16 = sinc_resample(vocals44)
        f0 = self._f0.track(audio16)
        return SourceFeatures(self.content(audio16), f0, n_mel_frames(len(vocals44)))

    def content(self, audio16: Floats) -> Floats:
        """Content [S, C] of samples at 16 kHz; see `svc_content.content_features`."""
        return content_features(self._networks, audio16, self._sizes.whisper.num_mel_bins)

    def condition(self, content: Floats, f0: AnyContour, n_frames: int) -> Floats:
        """The flow's condition, in one call: its norms are over all frames.

        Args:
            content: float32 [S, C].
            f0: Hz, 100 values a second: a song's as `svc_pitch.shifted` leaves it, a reference's as it was found.
            n_frames: mel frames T.

        Returns:
            float32 [T, D].
        """
        inputs = regulator_inputs(content, f0, n_frames, self._sizes.regulator.n_f0_bins)
        found = self._run(SVC_REGULATOR.name, inputs, "cond")
        return self._shaped(SVC_REGULATOR.name, found[0], (n_frames, self._sizes.regulator.channels))

    def plan(self, n_frames: int, voice: VoiceFeatures) -> list[SvcWindow]:
        """Windows of so many frames beside a voice's prompt."""
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
        """Sing what a condition says, window by window.

        Args:
            cond: float32 [T, D].
            voice: see `voice`.
            settings: steps, guidance and seed.
            first: number of the first window, for its noise.
            draw: the noise; default `self.keyed_random`.

        Yields:
            Each window of `plan` and its samples, float32 [frames * 512], those that it shares with others included.
        """
        draw = draw or self.noise(settings.seed)
        for index, window in enumerate(self.plan(len(cond), voice), first):
            begin = draw(index, window.end - window.start)
            mel = self.solve(begin, cond[window.start : window.end], voice, settings)
            yield window, self.vocode(mel)

    def noise(self, seed: int) -> Noise:
        """Noise by seed and window; it does not depend on the voice."""
        return lambda index, n_frames: keyed_random.normal(seed, "svc", index, (n_frames, self._sizes.dit.in_channels))

    def solve(
        self,
        begin: Floats,
        cond: Floats,
        voice: VoiceFeatures,
        settings: ConvertSettings,
    ) -> Floats:
        """One window of the flow: noise [T, M] and condition [T, D] to mel [T, M], T frames beside the prompt."""
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
        """Frames [T, M] into samples [T * 512]."""
        wave = self._vocoder.decode(np.ascontiguousarray(mel.T))
        return self._shaped(VOCODER.name, wave, (len(mel) * SVC_HOP,))

    # -------------------------------------------------------------------------------------------------------- inside

    def _run(self, name: str, inputs: Any, output: str) -> Floats:
        found: Floats = self._networks.run(name, inputs)[output].astype(np.float32, copy=False)
        return found

    @staticmethod
    def _shaped(name: str, value: Floats, shape: tuple[int, ...]) -> Floats:
        if value.shape != shape:
            raise EngineError(f"{name}: expected {list(shape)}, got {list(value.shape)}")
        if not np.isfinite(value).all():
            raise EngineError(f"{name}: returned NaN or Inf")
        return value


class ConversionStream(Iterator[Floats]):
    """One exact conversion under way: iterate for its samples, then ask for its report."""

    def __init__(
        self,
        stage: ConvertStage,
        vocals44: Floats,
        voice: VoiceFeatures,
        settings: ConvertSettings,
    ) -> None:
        check_vocals(vocals44, least=SVC_HOP)
        self._stage, self._voice, self._settings = stage, voice, settings
        self._windows, self._auto = 0, 0.0
        self._f0: AnyContour = np.empty(0)
        self._pieces = self._sung(vocals44)

    def __next__(self) -> Floats:
        return next(self._pieces)

    def report(self) -> dict[str, Any]:
        """Shift, windows, voiced share and prompt; complete once the first piece is there, but for the windows."""
        auto = self._auto
        return make_report("exact", self._windows, self._f0, (auto, auto), self._voice, self._settings)

    def _sung(self, vocals44: Floats) -> Iterator[Floats]:
        stage, settings = self._stage, self._settings
        heard = stage.listen(vocals44)
        self._f0, self._auto = heard.f0, settings.automatic_shift(heard.f0, self._voice.f0)
        moved = shifted(heard.f0, self._auto + settings.pitch_shift)
        cond = stage.condition(heard.content, moved, heard.n_frames)
        del heard, vocals44  # a song's content is as large as its condition
        joiner = WindowJoiner()
        for window, wave in stage.waves(cond, self._voice, settings):
            self._windows += 1
            yield joiner.add(wave, last=window.last)


def make_report(
    mode: str,
    windows: int,
    f0: AnyContour,
    auto: tuple[float, float],
    voice: VoiceFeatures,
    settings: ConvertSettings,
    share: float | None = None,
) -> dict[str, Any]:
    """A report out of the contour so far and of the automatic shift: what was applied, and what the contour asks for.

    `share` is given where the contour holds voiced values alone.
    """
    return ConversionReport(
        mode=mode,
        windows=windows,
        shift_semitones=auto[0] + settings.pitch_shift,
        auto_shift_semitones=auto[0],
        shift_off_semitones=auto[0] - auto[1],
        voiced_share=voiced_share(f0) if share is None else share,
        median_hz=median_hz(f0),
        voice_voiced_share=voice.voiced_share,
        voice_median_hz=voice.median_hz,
        prompt_s=voice.prompt_s,
        prompt_start_s=voice.start_s,
    ).rounded()


def check_vocals(vocals44: Floats, *, least: int = 0, before: int = 0) -> None:
    """Refuse vocals of the wrong shape, dtype, length or level, or with NaN or Inf; `before` samples came earlier."""
    _check("vocals", vocals44, least, MAX_VOCALS_SAMPLES - before)


def _check(name: str, audio: Floats, least: int, most: int) -> None:
    if audio.ndim != 1 or audio.dtype != np.float32:
        raise InvalidRequestError(f"{name}: expected float32 [sample], got {audio.dtype} {list(audio.shape)}")
    if not least <= len(audio) <= most:
        raise InvalidRequestError(f"{name}: expected {least} to {most} samples at 44.1 kHz, got {len(audio)}")
    check_finite(name, audio, most=MAX_LEVEL)
