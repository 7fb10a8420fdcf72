"""Exact conversion: all vocals of a song in one request.

Pitch statistics and the regulator's norms are those of the whole song. Therefore everything but the flow and the
vocoder runs before the first window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.config.svc import SVC_HOP
from heartvoice.stages.svc.pitch import Contour, shifted
from heartvoice.stages.svc.report import make_report
from heartvoice.stages.svc.settings import ConvertSettings
from heartvoice.stages.svc.stage import ConvertStage
from heartvoice.stages.svc.vocals import check_vocals
from heartvoice.stages.svc.voice_features import VoiceFeatures
from heartvoice.stages.svc.windows import WindowJoiner

Floats = NDArray[np.float32]


class ExactConversion(Iterator[Floats]):
    """One exact conversion: iterate for its samples, then ask for its report.

    The pieces are float32 [M] in [-1, 1], one for each window, as soon as it is converted. All together have
    N // 512 * 512 samples. While iterating, RequestCancelledError says that the job was cancelled, and EngineError
    that a network failed or returned what its contract forbids.
    """

    def __init__(self, stage: ConvertStage, vocals44: Floats, voice: VoiceFeatures, settings: ConvertSettings) -> None:
        """Check the vocals. No network runs before the first piece is asked for.

        Args:
            stage: over the job's networks.
            vocals44: float32 [N], mono at 44.1 kHz, N at least 512. The pitch of silence and of vocals without a
                voiced value is not moved.
            voice: see `ConvertStage.voice`.
            settings: of the conversion.

        Raises:
            InvalidRequestError: the vocals have the wrong shape or dtype or length, or are not finite.
        """
        check_vocals(vocals44, least=SVC_HOP)
        self._stage, self._voice, self._settings = stage, voice, settings
        self._windows, self._auto = 0, 0.0
        self._f0: Contour = np.empty(0)
        self._pieces = self._convert(vocals44)

    def __next__(self) -> Floats:
        return next(self._pieces)

    def report(self) -> dict[str, Any]:
        """Windows so far, shift, voiced share and prompt; all but the windows are final with the first piece."""
        auto = self._auto
        return make_report("exact", self._windows, self._f0, (auto, auto), self._voice, self._settings)

    def _convert(self, vocals44: Floats) -> Iterator[Floats]:
        stage, settings = self._stage, self._settings
        source = stage.analyse(vocals44)
        self._f0 = source.heard_f0
        self._auto = settings.automatic_shift(self._f0, self._voice.f0)
        moved = shifted(source.f0, self._auto + settings.pitch_shift)
        cond = stage.condition(source.content, moved, source.n_frames)
        del source, vocals44  # a song's content is as large as its condition
        joiner = WindowJoiner()
        for window, wave in stage.waves(cond, self._voice, settings):
            self._windows += 1
            yield joiner.add(wave, last=window.last)
