"""The system as the gate measures it: a real server, asked through the client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.decode import decode
from heartvoice.audio.dsp import resample
from heartvoice.client.requests import SongRequest
from heartvoice.contracts.constants import MAX_RECORDING_S, SAMPLE_RATE_HZ
from heartvoice.contracts.messages import Audio
from heartvoice.errors import EngineError
from heartvoice.evaluation.gate.world import CoverOrder, MadeCover, MadeSong, SongOrder

if TYPE_CHECKING:
    from heartvoice.client.sync import Client

CONSENT = "A synthetic singer of the gate: nobody's voice"


class ServedMaker:
    """Songs and covers of a server; a `Maker`."""

    def __init__(self, client: Client) -> None:
        """Take a client of the server."""
        self._client = client

    def sing(self, order: SongOrder) -> MadeSong:
        """Make a song, and decode its codes once more in one answer if `whole`."""
        settings = dict(order.settings) | {"return_codes": True, "stems": order.stems}
        made = self._client.song(_request(order, settings, order.codes))
        codes = made.codes if order.codes is None else order.codes
        if codes is None:
            raise EngineError("song: expected codes with its report, got none")
        whole = None
        if order.whole:
            settings = {name: value for name, value in settings.items() if name not in ("return_codes", "stems")}
            whole = _decoded(self._client.render(_request(order, settings, codes))[0], made.audio.shape[1])
        vocals = None if made.stems is None else made.stems["vocals"]
        return MadeSong(codes, made.audio, vocals, whole)

    def cover(self, order: CoverOrder) -> MadeCover:
        """Make a cover, streamed and in one answer."""
        recording, reference = (order.recording, SAMPLE_RATE_HZ), (order.reference, SAMPLE_RATE_HZ)
        given: dict[str, Any] = {**order.settings, "consent": CONSENT, "no_vocals": "error"}
        made = self._client.cover(recording, reference, stems=True, **given)
        if made.stems is None:
            raise EngineError("cover: expected stems, got none")
        whole = _decoded(self._client.render_cover(recording, reference, **given)[0], made.audio.shape[1])
        return MadeCover(
            made.audio, made.stems["vocals"], made.stems["instrumental"], whole,
            float(made.report.pitch["shift_semitones"]),
        )  # fmt: skip


def _request(order: SongOrder, settings: Mapping[str, Any], codes: NDArray[np.int32] | None) -> SongRequest:
    """Ask for lyrics, or for finished codes, which have no words."""
    if codes is None:
        return SongRequest(order.lyrics, order.tags, settings)
    return SongRequest(settings=settings, codes=codes)


def _decoded(file: bytes, n_samples: int) -> Audio:
    """Decode a file of the server's; a length of its own would hide what is missing."""
    sound = decode(file, field="render", max_s=MAX_RECORDING_S)
    audio = resample(sound.audio, sound.sample_rate_hz, SAMPLE_RATE_HZ)
    if audio.shape[1] != n_samples:
        raise EngineError(f"render: expected the {n_samples} samples of the stream, got {audio.shape[1]}")
    return audio
