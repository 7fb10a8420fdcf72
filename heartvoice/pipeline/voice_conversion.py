"""Another singer for a recording that may still be coming: a generator over stage calls. Knows no Triton.

Window n + 1 is separated while window n is converted, and what is final of the mix leaves at once. In exact mode the
conversion waits for the last window, since its pitch and its norms are those of the whole recording; `live` does not.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.audio.mixer import Mixer, MixPiece
from heartvoice.audio.recordings import Voice, read_consent, read_voice
from heartvoice.audio.stereo_image import mid_channel
from heartvoice.contracts.constants import (
    FRAMES_PER_S,
    MIX_STEM_NAMES,
    NO_VOCALS_MODES,
    SAMPLE_RATE_HZ,
    SPEECH_RATE_HZ,
    STEM_RATE_HZ,
)
from heartvoice.contracts.settings import VOICE_SETTINGS
from heartvoice.contracts.validation import read_settings, read_text
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.pipeline.messages import Message, Progress, drain, split_into_chunks
from heartvoice.pipeline.prefetch import Prefetcher, Timeout
from heartvoice.pipeline.streaming_separation import RecordingChunk, SeparatedWindow, StreamingSeparator
from heartvoice.stages.f0 import median_hz, shift_semitones
from heartvoice.stages.separation import SeparationPlan, SeparationRequest
from heartvoice.stages.svc.converter import ConversionRequest, ConvertedChunk
from heartvoice.stages.svc.settings import ConvertSettings

Audio = NDArray[np.float32]

MAX_AHEAD_WINDOWS = 2
"""Windows that a stage may be ahead of the next one: more would only fill memory."""
JUDGED_S = 30.0
"""Seconds of singing that similarity and F0 are judged by."""
POLL_S = 0.1
"""How often messages of other threads are passed on."""
_BLOCK = STEM_RATE_HZ // 10
_AUDIBLE_DBFS, _BELOW_MIX_DB, _FOUND_BLOCKS = -50.0, -20.0, 10


@dataclass(frozen=True, eq=False)
class VoiceRequest:
    """A checked voice, and how it shall sing."""

    voice: Voice
    consent: str
    no_vocals: str
    live: bool
    vocal_gain_db: float
    convert: ConvertSettings
    settings: dict[str, float | int | bool | str]
    """All of these, for the report."""

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array]) -> VoiceRequest:
        """Check a request's tensors, cheap ones first.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        values = read_settings(inputs, VOICE_SETTINGS)
        convert = ConvertSettings.from_inputs(inputs)
        no_vocals = read_text(inputs, "no_vocals") or "passthrough"
        if no_vocals not in NO_VOCALS_MODES:
            raise InvalidRequestError(f"no_vocals: expected one of {', '.join(NO_VOCALS_MODES)}, got {no_vocals!r}")
        if not {"voice", "voice_audio"} & set(inputs):
            raise InvalidRequestError("voice: missing, expected a reference of the voice that shall sing")
        consent = read_consent(inputs)
        return cls(
            voice=read_voice(inputs),
            consent=consent,
            no_vocals=no_vocals,
            live=bool(values["live"]),
            vocal_gain_db=float(values["vocal_gain_db"]),
            convert=convert,
            settings={**values, "auto_pitch": convert.auto_pitch, "no_vocals": no_vocals},
        )

    def conversion(self, vocals: Audio, state: Array | None, more: bool) -> ConversionRequest:
        """A request to the converter."""
        voice = self.voice
        return ConversionRequest(vocals, voice, voice.sha256, self.consent, self.convert, self.live, state, more)


class VoiceStages(Protocol):
    """What another singer needs. Calls block, honour the job's cancellation, and come from several threads."""

    def separate(self, request: SeparationRequest) -> tuple[Audio, Audio | None]:
        """Final stems [1, 2, M] of the wanted source, and the carry if there is more."""
        ...

    def convert(self, request: ConversionRequest) -> Iterable[ConvertedChunk]:
        """Vocals in the other voice, as they are finished."""
        ...

    def embed(self, audio: Audio) -> Audio:
        """Unit vector [D] of who sings in float32 [N] at 44.1 kHz."""
        ...

    def track_f0(self, audio: Audio) -> Audio:
        """F0 of float32 [N] at 16 kHz: Hz, 100 a second, 0 = unvoiced."""
        ...


@dataclass(frozen=True, eq=False)
class _Step:
    """What the mixer hears next; if there is nothing to convert in the whole recording, that `passed`."""

    window: SeparatedWindow | None = None
    converted: Audio | None = None
    passed: bool = False


class VoiceConversionPipeline:
    """One recording under way to another singer."""

    def __init__(
        self,
        request: VoiceRequest,
        stages: VoiceStages,
        plan: SeparationPlan,
        *,
        encoder: str = "",
        detect_vocals: bool = True,
        stems: bool = False,
        n_frames: int = 0,
    ) -> None:
        """Take what is needed.

        Args:
            request: the voice.
            stages: see there.
            plan: of the separator.
            encoder: name of the speaker encoder, for the report.
            detect_vocals: off where separation has random weights: then everything is converted.
            stems: also yield the mix's stems.
            n_frames: longest that the recording can become, in LM frames, for progress events.
        """
        self._request, self._stages, self._plan = request, stages, plan
        self._encoder, self._stems, self._n_frames = encoder, stems, n_frames
        self._detect = detect_vocals and request.no_vocals != "convert"
        self._began = time.monotonic()
        self._timings = {"separation_s": 0.0, "conversion_s": 0.0, "mix_s": 0.0}
        self._source, self._result = _Excerpt(), _Excerpt()
        self._svc: dict[str, Any] = {}
        self._mixer = Mixer(vocal_gain_db=request.vocal_gain_db)
        self._passed = False
        self.first_audio_s: float | None = None
        self.n_samples = 0
        """Samples at 48 kHz that were yielded."""

    def run(
        self,
        source: Callable[[], Iterable[RecordingChunk]],
        check: Callable[[], None] = lambda: None,
        side_messages: queue.SimpleQueue[Message] | None = None,
    ) -> Generator[Message, None, None]:
        """Yield the mix piece by piece, as long as what `source` gives together.

        Args:
            source: makes the recording; iterated in a thread of its own.
            check: called between pieces and while waiting; what it raises ends the job.
            aside: further messages, passed on as they come.

        Raises:
            InvalidRequestError: there are no vocals, and `no_vocals` is "error".
            EngineError: a stage broke its contract.
        """
        side_messages = side_messages or queue.SimpleQueue()
        with (
            Prefetcher(
                lambda: self._separated(source()), name="voice-separate", max_ahead=MAX_AHEAD_WINDOWS
            ) as separated,
            Prefetcher(
                lambda: self._converted(separated.items(check), side_messages),
                name="voice-convert",
                max_ahead=MAX_AHEAD_WINDOWS,
            ) as steps,
        ):
            for step in steps.poll(check, tick_s=POLL_S):
                yield from drain(side_messages)
                if not isinstance(step, Timeout):
                    yield from self._sent(self._mixed(step))
        yield from drain(side_messages)
        if not self._passed:
            began = time.monotonic()
            last = self._mixer.finish()
            self._timings["mix_s"] += time.monotonic() - began
            yield from self._sent(last)

    # ------------------------------------------------------------------------------------------------------- stages

    def _separated(self, source: Iterable[RecordingChunk]) -> Iterator[SeparatedWindow]:
        def timed(request: SeparationRequest) -> tuple[Audio, Audio | None]:
            began = time.monotonic()
            found = self._stages.separate(request)
            self._timings["separation_s"] += time.monotonic() - began
            return found

        return StreamingSeparator(timed, self._plan).run(source)

    def _converted(
        self, separated: Iterable[SeparatedWindow], side_messages: queue.SimpleQueue[Message]
    ) -> Iterator[_Step]:
        """Windows with their conversion; nothing is converted before the first singing is found."""
        found, held, n_active = not self._detect, list[SeparatedWindow](), 0
        state: Array | None = None
        sung: list[Audio] = []  # what an exact conversion waits for
        at = 0
        for window in separated:
            held.append(window)
            at += window.vocals.shape[1]
            side_messages.put(self._progress("separate", at / STEM_RATE_HZ))
            if not found:
                n_active += _singing_blocks(window.vocals, window.mix)
                found = n_active >= _FOUND_BLOCKS
            while found and held:
                window = held.pop(0)
                yield _Step(window)
                if self._request.live:
                    state = yield from self._convert(mid_channel(window.vocals), state, not window.last, side_messages)
                else:
                    sung.append(mid_channel(window.vocals))
        if sung:
            yield from self._convert(np.concatenate(sung), None, False, side_messages)
        if held:
            if self._request.no_vocals == "error":
                raise InvalidRequestError(
                    f"recording: no vocals found: expected at least {_FOUND_BLOCKS / 10:g} s of them, got "
                    f"{n_active / 10:g} s; no_vocals can also be passthrough or convert"
                )
            self._passed = True
            yield from (_Step(window, passed=True) for window in held)

    def _convert(
        self, vocals: Audio, state: Array | None, more: bool, side_messages: queue.SimpleQueue[Message]
    ) -> Generator[_Step, None, Array | None]:
        """One request to the converter; returns the state for the next one."""
        began = time.monotonic()
        self._source.add(vocals)
        after: Array | None = None
        for piece in self._stages.convert(self._request.conversion(vocals, state, more)):
            self._timings["conversion_s"] += time.monotonic() - began
            after = piece.state
            self._svc |= piece.report or {}
            if len(piece.vocals):
                self._result.add(piece.vocals)
                side_messages.put(self._progress("convert", self._result.seen / STEM_RATE_HZ))
                yield _Step(converted=piece.vocals)
            began = time.monotonic()
        if more and after is None:
            raise EngineError("svc: expected a state for the next window, got none")
        return after

    def _mixed(self, step: _Step) -> MixPiece | None:
        began = time.monotonic()
        window = step.window
        if step.passed and window is not None:
            recording = window.recording
            return MixPiece(recording, recording, np.zeros_like(recording), self.n_samples)
        if window is not None:
            piece = self._mixer.push(window.recording, window.vocals, None)
        else:
            piece = self._mixer.push(None, None, step.converted)
        self._timings["mix_s"] += time.monotonic() - began
        return piece

    def _sent(self, piece: MixPiece | None) -> Iterator[Message]:
        if piece is None or not piece.audio.shape[1]:
            return
        if piece.start != self.n_samples:
            raise EngineError(f"mix: goes on at {piece.start}, expected {self.n_samples}")
        if self.first_audio_s is None:
            self.first_audio_s = self._seconds()
        self.n_samples += piece.audio.shape[1]
        yield from split_into_chunks(piece, stems=self._stems)
        yield self._progress("mix", (piece.start + piece.audio.shape[1]) / SAMPLE_RATE_HZ)

    # ------------------------------------------------------------------------------------------------------- report

    def _seconds(self) -> float:
        return round(time.monotonic() - self._began, 4)

    def _progress(self, stage: str, done_s: float) -> Progress:
        done = round(done_s * FRAMES_PER_S)
        return Progress(stage, done, max(done, self._n_frames), self._seconds())

    def report(self) -> dict[str, Any]:
        """What a voice adds to a job's report; ask for it at the end."""
        began = time.monotonic()
        judged = {} if self._passed else self._judged()
        self._timings["judging_s"] = time.monotonic() - began
        voice = self._request.voice
        return {
            "converted": not self._passed,
            "voice_sha256": voice.sha256,
            "voice_consent": self._request.consent,
            "warnings": list(voice.warnings),
            **judged,
            "svc": self._svc,
            "mix": {} if self._passed else _rounded(asdict(self._mixer.report)),
            **({"stems": list(MIX_STEM_NAMES)} if self._stems else {}),
            "timings": {name: round(value, 4) for name, value in self._timings.items()},
        }

    def _judged(self) -> dict[str, Any]:
        """Similarity to the reference and F0, before and after; None where too little is sung to tell."""
        voice = self._request.voice.audio44
        source, result = self._source.audio(), self._result.audio()
        similarity: dict[str, Any] = {"encoder": self._encoder, "before": None, "after": None}
        sung = {name: audio for name, audio in (("before", source), ("after", result)) if len(audio) >= STEM_RATE_HZ}
        if sung:
            reference = self._stages.embed(voice)
            similarity |= {name: round(float(reference @ self._stages.embed(sung[name])), 4) for name in sung}
        contours = [
            self._stages.track_f0(resample(audio, STEM_RATE_HZ, SPEECH_RATE_HZ)) if len(audio) else np.zeros(1)
            for audio in (source, result, voice)
        ]
        medians = [median_hz(contour) for contour in contours]
        names = ("source_median_hz", "result_median_hz", "voice_median_hz")
        f0: dict[str, Any] = {name: round(m, 2) if m else None for name, m in zip(names, medians, strict=True)}
        shift = shift_semitones(contours[0], contours[1])
        return {
            "similarity": similarity,
            "f0": f0 | {"shift_semitones": None if shift is None else round(shift, 3)},
        }


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Floats to four digits."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


class _Excerpt:
    """The first `JUDGED_S` of audible singing."""

    def __init__(self) -> None:
        self._parts: list[Audio] = []
        self._n = 0
        self.seen = 0
        """Samples that came."""

    def add(self, audio: Audio) -> None:
        """Keep the audible seconds of float32 [N] at 44.1 kHz."""
        self.seen += len(audio)
        for start in range(0, len(audio), STEM_RATE_HZ):
            part = audio[start : start + STEM_RATE_HZ]
            if self._n < JUDGED_S * STEM_RATE_HZ and _dbfs(part[None])[0] > _AUDIBLE_DBFS:
                self._parts.append(part)
                self._n += len(part)

    def audio(self) -> Audio:
        """What was kept, joined."""
        return np.concatenate(self._parts) if self._parts else np.empty(0, np.float32)


def _dbfs(blocks: Audio) -> Audio:
    """Level of each block of [B, N]."""
    power = np.mean(np.square(blocks), axis=-1, dtype=np.float64)
    level: Audio = (10 * np.log10(power + 1e-20)).astype(np.float32)
    return level


def _singing_blocks(vocals: Audio, mix: Audio) -> int:
    """How many tenths of a second of [2, N] hold vocals that are audible, alone and beside the mix."""
    n = vocals.shape[1] // _BLOCK
    shape = (2, n, _BLOCK)
    sung, all_ = (
        _dbfs(audio[:, : n * _BLOCK].reshape(shape).transpose(1, 0, 2).reshape(n, -1)) for audio in (vocals, mix)
    )
    return int(np.sum((sung > _AUDIBLE_DBFS) & (sung > all_ + _BELOW_MIX_DB)))
