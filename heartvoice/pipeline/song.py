"""A song without a voice of the caller's choice: codes from the language model, audio from the codec.

The stages are calls: to other models when served, to engines in this process elsewhere.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import (
    DECODER_HISTORY,
    DECODER_LOOKAHEAD,
    FRAME_HOP,
    LATENTS_PER_FRAME,
    MAX_RESPONSE_SAMPLES,
    N_CODEBOOKS,
    SAMPLE_RATE_HZ,
)
from heartvoice.contracts.messages import AudioChunk, Codes, CodesChunk, Event
from heartvoice.errors import EngineError
from heartvoice.models.heartcodec.windows import WindowPlan
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.prefetch import Timeout
from heartvoice.pipeline.song_request import SongRequest
from heartvoice.stages.codec import CodecRequest
from heartvoice.stages.lm.request import LmRequest

LATENT_HOP = FRAME_HOP // LATENTS_PER_FRAME
_POLL_S = 0.25


class SongStages(Protocol):
    """The stages of a song. Their calls block and end when the job is cancelled."""

    def write_codes(self, request: LmRequest) -> Iterator[Codes]:
        """Code frames int32 [8, T], as the language model makes them."""
        ...

    def decode_window(self, request: CodecRequest) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decode one window of W frames: audio float32 [2, 3840 W] and latents float32 [2 W, L]."""
        ...


class SongPipeline:
    """Makes one song. Codes are written in a thread while windows of them are decoded."""

    def __init__(self, request: SongRequest, stages: SongStages, preset: Preset, context: JobContext) -> None:
        self._request, self._stages, self._preset, self._context = request, stages, preset, context
        self._windows = WindowPlan(request.codec_window)
        self._codes: Codes = np.empty((N_CODEBOOKS, 0), np.int32)
        self._latents: NDArray[np.float32] | None = None
        self._tail: NDArray[np.float32] = np.empty((2, 0), np.float32)
        context.timings |= {"lm_s": 0.0, "codec_s": 0.0}

    def run(self) -> Generator[AudioChunk | CodesChunk | Event, None, None]:
        """Yield chunks as they are finished; at the end the song's fields are in the context's report.

        The samples do not depend on the speed of LM and codec: a window is decoded when its codes exist, and its
        noise depends on the seed and the window's index alone.

        Raises:
            RequestCancelledError: the job was cancelled.
            EngineError: a stage failed.
        """
        n_sent, index = 0, 0
        with self._context.prefetch(self._write, name="song-codes") as written:
            ended = False
            while not ended or index < self._windows.n_windows(self._codes.shape[1]):
                self._context.check()
                if not ended and self._codes.shape[1] < self._windows.ready_at(index):
                    codes = written.next(timeout_s=_POLL_S)
                    ended = codes is None
                    if codes is not None and not isinstance(codes, Timeout):
                        yield from self._accept(codes)
                    continue
                for chunk in self._decode(index, n_sent, ended):
                    n_sent = chunk.start + chunk.length
                    yield chunk
                index += 1
                yield self._event("codec", n_sent // FRAME_HOP)
        if n_sent < self._codes.shape[1] * FRAME_HOP:  # the song ended exactly where a window did
            yield AudioChunk(self._tail, n_sent)
            n_sent += self._tail.shape[1]
        self._write_report(n_sent)

    def _write(self) -> Iterator[Codes]:
        """The song's codes: those of the request, or the language model's."""
        if self._request.codes is not None:
            yield self._request.codes
        elif self._request.lm is not None:
            for codes in self._context.timed_items("lm_s", self._stages.write_codes(self._request.lm)):
                self._check_codes(codes)
                yield codes

    def _check_codes(self, codes: Codes) -> None:
        """Refuse codes of the language model that the codec does not have: it would blame its caller."""
        size, low, high = self._preset.codec.codebook_size, int(codes.min()), int(codes.max())
        if not 0 <= low <= high < size:
            raise EngineError(f"heartmula: expected codes in [0, {size}), got {low} to {high}")

    def _accept(self, codes: Codes) -> Iterator[CodesChunk | Event]:
        start = self._codes.shape[1]
        self._codes = np.concatenate([self._codes, codes], axis=1)
        if self._request.return_codes:
            yield CodesChunk(codes, start)
        yield self._event("lm", self._codes.shape[1])

    def _decode(self, index: int, n_sent: int, ended: bool) -> Iterator[AudioChunk]:
        """Decode window `index`; yields its final samples from `n_sent` on."""
        windows, n_frames = self._windows, self._codes.shape[1]
        start = windows.start(index)  # frames
        with self._context.timed("codec_s"):
            audio, self._latents = self._stages.decode_window(self._codec_request(index))
        # The last two latent frames lack their look-ahead: the next window, which begins with them, has it.
        end = windows.ready_at(index) * FRAME_HOP - DECODER_LOOKAHEAD * LATENT_HOP
        self._tail = audio[:, end - start * FRAME_HOP :]
        if ended and index + 1 == windows.n_windows(n_frames):
            end = n_frames * FRAME_HOP
        for at in range(n_sent, end, MAX_RESPONSE_SAMPLES):
            upto = min(at + MAX_RESPONSE_SAMPLES, end)
            yield AudioChunk(audio[:, at - start * FRAME_HOP : upto - start * FRAME_HOP], at)

    def _codec_request(self, index: int) -> CodecRequest:
        windows = self._windows
        return CodecRequest(
            codes=windows.codes(self._codes, index).astype(np.int32),
            context=self._latents_before(windows.latent_overlap, offset=0),
            history=self._latents_before(DECODER_HISTORY, offset=windows.latent_overlap),
            window_index=index,
            seed=self._request.seed,
            steps=self._request.codec_steps,
            guidance=self._request.codec_guidance,
        )

    def _latents_before(self, length: int, offset: int) -> NDArray[np.float32]:
        """`length` latents of the previous window, the last of them `offset` before its end."""
        if self._latents is None:
            return np.empty((0, self._preset.codec.out_channels), np.float32)
        end = len(self._latents) - offset
        return self._latents[end - length : end]

    def _event(self, stage: str, done: int) -> Event:
        return self._context.event(stage, done, self._request.n_frames)

    def _write_report(self, n_samples: int) -> None:
        n_frames = self._codes.shape[1]
        ended_by = "eos" if n_frames < self._request.n_frames else "length"
        self._context.report |= {
            "seed": self._request.seed,
            "settings": self._request.settings,
            "frames": n_frames,
            "samples": n_samples,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "duration_s": n_samples / SAMPLE_RATE_HZ,
            "ended_by": ended_by if self._request.lm is not None else "codes",
            "warnings": list(self._request.warnings),
        }
        if self._request.replaced is not None:
            self._context.report["unknown_words"] = dict(self._request.replaced)
