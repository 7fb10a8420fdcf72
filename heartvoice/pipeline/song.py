"""A song as a generator over stage calls. Knows no Triton: served, the calls are BLS requests; elsewhere, stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice import __version__
from heartvoice.arrays import Array
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import (
    DECODER_HISTORY,
    DECODER_LOOKAHEAD,
    FRAME_HOP,
    LATENTS_PER_FRAME,
    MAX_FRAMES,
    MAX_RESPONSE_SAMPLES,
    N_CODEBOOKS,
    SAMPLE_RATE_HZ,
)
from heartvoice.contracts.models import SONG
from heartvoice.contracts.settings import VOICE_SETTINGS
from heartvoice.contracts.tensors import CONVERSION_INPUTS
from heartvoice.contracts.validation import check_codes, read_settings
from heartvoice.errors import InvalidRequestError
from heartvoice.models.heartcodec.windows import WindowPlan
from heartvoice.pipeline.messages import AudioPiece, Codes, CodesPiece, Finished, Message, Progress
from heartvoice.pipeline.prefetch import Prefetcher, Timeout
from heartvoice.pipeline.voice_conversion import VoiceRequest
from heartvoice.stages.codec import CodecRequest
from heartvoice.stages.lm.request import LmRequest

LATENT_HOP = FRAME_HOP // LATENTS_PER_FRAME


class SongStages(Protocol):
    """What a song needs; both calls block and honour their job's cancellation."""

    def write_codes(self, request: LmRequest) -> Iterator[Codes]:
        """Frames [8, T] as they are made."""
        ...

    def decode_window(self, request: CodecRequest) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One window: audio [2, 3840 W] and latents [2 W, L]."""
        ...


@dataclass(frozen=True)
class SongRequest:
    """A checked song: either the LM's request or finished codes, and the codec's settings."""

    lm: LmRequest | None
    codes: Codes | None
    seed: int
    codec_window: int
    codec_steps: int
    codec_guidance: float
    return_codes: bool
    stems: bool = False
    voice: VoiceRequest | None = None
    """Whose voice shall sing it; None leaves the singer that the LM wrote."""
    settings: dict[str, float | int | bool | str] = field(default_factory=dict)

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array], preset: Preset) -> SongRequest:
        """Check a request's tensors.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        voice = _read_voice(inputs)
        settings = read_settings(inputs, [setting for setting in SONG.settings if setting not in VOICE_SETTINGS])
        lm, codes = None, None
        if "codes" in inputs:
            codes = inputs["codes"].astype(np.int32)
            check_codes(codes, preset.codec.codebook_size, MAX_FRAMES)
        else:
            lm = LmRequest.from_inputs(inputs, preset)
        return cls(
            lm=lm,
            codes=codes,
            seed=int(settings["seed"]),
            codec_window=int(settings["codec_window"]),
            codec_steps=int(settings["codec_steps"]),
            codec_guidance=float(settings["codec_guidance"]),
            return_codes=bool(settings["return_codes"]),
            stems=bool(settings["stems"]),
            voice=voice,
            settings={**settings, **(voice.settings if voice else {})},
        )

    @property
    def n_frames(self) -> int:
        """Longest song in frames."""
        return self.codes.shape[1] if self.codes is not None else self.lm.n_frames if self.lm else 0


def _read_voice(inputs: Mapping[str, Array]) -> VoiceRequest | None:
    """The voice that a song shall be sung in, if any."""
    if {"voice", "voice_audio"} & set(inputs):
        return VoiceRequest.from_inputs(inputs)
    for name in (*(tensor.name for tensor in CONVERSION_INPUTS), *(setting.name for setting in VOICE_SETTINGS)):
        if name in inputs:
            raise InvalidRequestError(f"{name}: expected only with a voice")
    return None


class SongPipeline:
    """One song under way: pumps codes while windows are decoded."""

    def __init__(
        self, request: SongRequest, stages: SongStages, preset: Preset, about: Mapping[str, Any] | None = None
    ) -> None:
        """`about` is what the report says of the networks: preset, precision, weights, random_weights."""
        self._request, self._stages, self._preset, self._about = request, stages, preset, about or {}
        self._windows = WindowPlan(request.codec_window)
        self._began = time.monotonic()
        self._codes: Codes = np.empty((N_CODEBOOKS, 0), np.int32)
        self._latents: NDArray[np.float32] | None = None
        self._tail: NDArray[np.float32] = np.empty((2, 0), np.float32)
        self._timings = {"lm_s": 0.0, "codec_s": 0.0}

    def run(self, check: Callable[[], None] = lambda: None) -> Generator[Message, None, None]:
        """Yield pieces as they are finished and the report at the end.

        `check` is called between pieces and while waiting; what it raises ends the job.

        The pieces are the same whatever the speed of LM and codec: a window is decoded when its codes exist, and its
        noise depends on the seed and the window's index alone.
        """
        first_audio_s: float | None = None
        n_sent, index = 0, 0
        with Prefetcher(self._source, name="song-codes") as pump:
            ended = False
            while not ended or index < self._windows.n_windows(self._codes.shape[1]):
                check()
                if not ended and self._codes.shape[1] < self._windows.ready_at(index):
                    chunk = pump.next(timeout_s=0.25)
                    ended = chunk is None
                    if chunk is not None and not isinstance(chunk, Timeout):
                        yield from self._take(chunk)
                    continue
                for piece in self._decode(index, n_sent, ended):
                    first_audio_s = first_audio_s or self._seconds()
                    n_sent = piece.start + piece.audio.shape[1]
                    yield piece
                index += 1
                yield self._progress("codec", n_sent // FRAME_HOP)
        if n_sent < self._codes.shape[1] * FRAME_HOP:  # the song ended just where a window did
            yield AudioPiece(self._tail, n_sent)
            n_sent += self._tail.shape[1]
        yield Finished(self._report(first_audio_s, n_sent))

    def _source(self) -> Iterator[Codes]:
        if self._request.codes is not None:
            yield self._request.codes
            return
        assert self._request.lm is not None
        began = time.monotonic()
        for chunk in self._stages.write_codes(self._request.lm):
            self._timings["lm_s"] = time.monotonic() - began
            yield chunk
        self._timings["lm_s"] = time.monotonic() - began

    def _take(self, chunk: Codes) -> Iterator[Message]:
        start = self._codes.shape[1]
        self._codes = np.concatenate([self._codes, chunk], axis=1)
        if self._request.return_codes:
            yield CodesPiece(chunk, start)
        yield self._progress("lm", self._codes.shape[1])

    def _decode(self, index: int, n_sent: int, ended: bool) -> Iterator[AudioPiece]:
        """Decode window `index` and yield what is final of it beyond `n_sent` samples, in pieces."""
        windows, n_frames = self._windows, self._codes.shape[1]
        start = windows.start(index)  # frames
        began = time.monotonic()
        audio, latents = self._stages.decode_window(
            CodecRequest(
                codes=windows.codes(self._codes, index).astype(np.int32),
                context=self._before(windows.latent_overlap, offset=0),
                history=self._before(DECODER_HISTORY, offset=windows.latent_overlap),
                window_index=index,
                seed=self._request.seed,
                steps=self._request.codec_steps,
                guidance=self._request.codec_guidance,
            )
        )
        self._latents = latents
        self._timings["codec_s"] += time.monotonic() - began
        # The last two latent frames lack their look-ahead: the next window, which begins with them, has it.
        end = windows.ready_at(index) * FRAME_HOP - DECODER_LOOKAHEAD * LATENT_HOP
        self._tail = audio[:, end - start * FRAME_HOP :]
        if ended and index + 1 == windows.n_windows(n_frames):
            end = n_frames * FRAME_HOP
        for at in range(n_sent, end, MAX_RESPONSE_SAMPLES):
            upto = min(at + MAX_RESPONSE_SAMPLES, end)
            yield AudioPiece(audio[:, at - start * FRAME_HOP : upto - start * FRAME_HOP], at)

    def _before(self, length: int, offset: int) -> NDArray[np.float32]:
        """The previous window's latents, `length` of them, ending `offset` before its end."""
        if self._latents is None:
            return np.empty((0, self._preset.codec.out_channels), np.float32)
        end = len(self._latents) - offset
        return self._latents[end - length : end]

    def _seconds(self) -> float:
        return round(time.monotonic() - self._began, 4)

    def _progress(self, stage: str, done: int) -> Progress:
        return Progress(stage, done, max(done, self._request.n_frames), self._seconds())

    def _report(self, first_audio_s: float | None, n_samples: int) -> dict[str, Any]:
        n_frames = self._codes.shape[1]
        return {
            "heartvoice": __version__,
            **self._about,
            "seed": self._request.seed,
            "settings": self._request.settings,
            "frames": n_frames,
            "samples": n_samples,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "duration_s": n_samples / SAMPLE_RATE_HZ,
            "ended_by": "codes"
            if self._request.lm is None
            else "eos"
            if n_frames < self._request.n_frames
            else "length",
            "timings": {
                **{name: round(value, 4) for name, value in self._timings.items()},
                "first_audio_s": first_audio_s,
                "total_s": self._seconds(),
            },
        }
