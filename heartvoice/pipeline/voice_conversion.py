"""Streaming singing-voice conversion of a recording, which may still be coming.

Window n + 1 is separated while window n is converted, and the final part of the mix is yielded at once. In exact mode
the conversion waits for the last window, because its pitch and its norms are those of the whole recording; `live` does
not wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.audio.mixer import Mixer, MixPiece
from heartvoice.audio.polarity import PolarityFollower, turned
from heartvoice.audio.recordings import Voice
from heartvoice.audio.stereo_image import mid_channel
from heartvoice.contracts.constants import FRAMES_PER_S, MIX_STEM_NAMES, SAMPLE_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.messages import Event, Message
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.pipeline.chunks import split_into_chunks
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.prefetch import Timeout
from heartvoice.pipeline.singing import BLOCKS_PER_S, SingingDetector, SingingExcerpt, compare_singing
from heartvoice.pipeline.streaming_separation import RecordingChunk, SeparatedWindow, StreamingSeparator
from heartvoice.pipeline.voice_request import VoiceRequest
from heartvoice.pipeline.watermarking import check_reference
from heartvoice.stages.reference import STYLE_JUDGE, Embed, ReferenceCheck
from heartvoice.stages.separation.plan import Plan
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.svc.report import ConversionReports
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk
from heartvoice.stages.svc.voice_cache import pcm_sha256

Audio = NDArray[np.float32]

MAX_AHEAD_WINDOWS = 2
"""Windows that a stage may run ahead of the next stage. More would only fill memory."""
POLL_S = 0.1
"""Interval at which posted messages are passed on."""
_FOUND_BLOCKS = 10
"""Blocks with singing after which a recording counts as sung."""


class VoiceStages(Protocol):
    """The stages of a conversion. Calls block, end when the job is cancelled, and come from several threads."""

    def separate(self, request: SeparationRequest) -> tuple[Audio, Audio | None]:
        """Final stems float32 [1, 2, M] of the wanted source, and the carry if more follows."""
        ...

    def convert(self, request: ConversionRequest) -> Iterable[ConvertedChunk]:
        """The vocals in the other voice, as they are finished."""
        ...

    def embed(self, audio: Audio) -> Audio:
        """Unit vector float32 [D] of the singer of float32 [N] at 44.1 kHz."""
        ...

    def embed_style(self, audio: Audio) -> Audio:
        """Unit vector float32 [D] by the converter's style encoder of float32 [N] at 16 kHz."""
        ...

    def track_f0(self, audio: Audio) -> Audio:
        """F0 of float32 [N] at 16 kHz: Hz, 100 values a second, 0 = unvoiced."""
        ...


@dataclass(frozen=True, eq=False)
class _MixInput:
    """The mixer's next input: a window, or converted vocals."""

    window: SeparatedWindow | None = None
    converted: Audio | None = None
    passthrough: bool = False
    """Nobody sings in the recording: the window is yielded as it is."""


class VoiceConversionPipeline:
    """Converts the singing of one recording to another voice."""

    def __init__(  # noqa: PLR0913 (the parts of a job)
        self,
        request: VoiceRequest,
        stages: VoiceStages,
        plan: Plan,
        context: JobContext,
        *,
        encoder: str = "",
        detect_vocals: bool = True,
        random_networks: Container[str] = (),
        stems: bool = False,
        n_frames: int = 0,
        inverted: bool = False,
    ) -> None:
        """Prepare; nothing runs before `run`.

        Args:
            request: the voice.
            stages: separate and convert.
            plan: of the separator.
            context: of the job.
            encoder: name of the speaker encoder, for the report.
            detect_vocals: false where the separator has random weights: then everything is converted.
            random_networks: the reference is not checked by a network with random weights.
            stems: also yield the mix's stems.
            n_frames: greatest possible length of the recording in LM frames, for progress events.
            inverted: the recording's channels cancel each other (see `PolarityFollower`).
        """
        self._request, self._stages, self._plan, self._context = request, stages, plan, context
        self._encoder, self._stems, self._n_frames = encoder, stems, n_frames
        self._detect = detect_vocals and request.no_vocals != "convert"
        self._random, self._voice = random_networks, request.voice
        self._reference = ReferenceCheck(np.empty(0, np.float32), "off")
        self._compared = False
        self._mark_facts: dict[str, Any] = {}
        self._source, self._result = SingingExcerpt(), SingingExcerpt()
        self._singing = SingingDetector()
        self._svc = ConversionReports()
        self._polarity = PolarityFollower(inverted=inverted)
        self._mixer = Mixer(vocal_gain_db=request.vocal_gain_db, live=request.live, inverted=inverted)
        self.passthrough = False
        """Nobody sings in the recording, which is yielded as it is; known before the first audio."""
        self.n_samples = 0
        """Samples at 48 kHz that were yielded."""
        context.timings |= {"separation_s": 0.0, "conversion_s": 0.0, "mix_s": 0.0}

    def run(self, source: Callable[[], Iterable[RecordingChunk]]) -> Generator[Message, None, None]:
        """Yield the mix chunk by chunk. It is as long as all of `source`.

        Args:
            source: makes the recording; iterated in its own thread.

        Raises:
            InvalidRequestError: nobody sings in the recording, and `no_vocals` is "error"; or the reference holds
                something else than one voice (see `ReferenceCheck`).
            RequestCancelledError: the job was cancelled.
            EngineError: a stage failed or broke its contract.
        """
        context = self._context
        with context.timed("reference_s"):
            self._take_reference()
        with (
            context.prefetch(
                lambda: self._separate(source()), name="voice-separate", max_ahead=MAX_AHEAD_WINDOWS
            ) as separated,
            context.prefetch(
                lambda: self._convert(separated.items()), name="voice-convert", max_ahead=MAX_AHEAD_WINDOWS
            ) as inputs,
        ):
            for item in inputs.poll(tick_s=POLL_S):
                yield from context.posted()
                if not isinstance(item, Timeout):
                    yield from self._emit(self._mix(item))
        yield from context.posted()
        if not self.passthrough:
            with context.timed("mix_s"):
                last = self._mixer.finish()
            yield from self._emit(last)

    # ---------------------------------------------------------------------------------------------------- reference

    def _take_reference(self) -> None:
        """Separate and check the reference, as far as it can be refused."""
        request = self._request
        self._mark_facts = check_reference(self._context.watermark, request.voice.audio, request.reference_check)
        if request.reference_separate:
            self._voice = self._separated_voice(request.voice)
        audio16 = resample(self._voice.audio44, STEM_RATE_HZ, SPEECH_RATE_HZ)
        self._reference = ReferenceCheck(audio16, request.reference_check)
        if "f0" not in self._random:
            self._reference.hear(self._stages.track_f0)
        if request.reference_check == "strict":  # the others are warned at the end, and need not wait
            self._compare_reference()

    def _compare_reference(self) -> None:
        if self._compared:
            return
        self._compared = True
        judges: dict[str, Embed] = {}
        if "svc_style" not in self._random:
            judges[STYLE_JUDGE] = self._stages.embed_style
        if "speaker" not in self._random:  # the same engine hears longer parts here
            judges[self._encoder] = lambda part: self._stages.embed(resample(part, SPEECH_RATE_HZ, STEM_RATE_HZ))
        self._reference.compare(judges)

    def _separated_voice(self, voice: Voice) -> Voice:
        """The vocals of a reference, as another voice."""
        stereo = np.repeat(voice.audio44[None], 2, axis=0)
        windows = self._separate([RecordingChunk(stereo, stereo)])
        audio44 = np.concatenate([mid_channel(window.vocals) for window in windows])
        return replace(voice, audio44=audio44, sha256=pcm_sha256(audio44))

    # ------------------------------------------------------------------------------------------------------- stages

    def _separate(self, source: Iterable[RecordingChunk]) -> Iterator[SeparatedWindow]:
        def separate(request: SeparationRequest) -> tuple[Audio, Audio | None]:
            with self._context.timed("separation_s"):
                return self._stages.separate(request)

        return StreamingSeparator(separate, self._plan).run(source)

    def _convert(self, separated: Iterable[SeparatedWindow]) -> Iterator[_MixInput]:
        """Windows and their conversion. Nothing is converted before the first singing is found."""
        found, waiting = not self._detect, list[SeparatedWindow]()
        state: Array | None = None
        sung = _Sung(self._polarity)  # an exact conversion waits for all of it
        at = 0
        for window in separated:
            waiting.append(window)
            at += window.vocals.shape[1]
            self._post_event("separate", at / STEM_RATE_HZ)
            self._singing.add(window.vocals, window.mix)
            found = found or self._singing.n_blocks >= _FOUND_BLOCKS
            while found and waiting:
                window = waiting.pop(0)
                yield _MixInput(window)
                sung.add(window.vocals)
                if self._request.live:
                    state = yield from self._convert_vocals(sung, state, more=not window.last)
        if len(sung):
            yield from self._convert_vocals(sung, None, more=False)
        if waiting:
            self._refuse_without_vocals(self._singing.n_blocks)
            self.passthrough = True
            yield from (_MixInput(window, passthrough=True) for window in waiting)

    def _refuse_without_vocals(self, n_singing: int) -> None:
        if self._request.no_vocals == "error":
            raise InvalidRequestError(
                f"recording: no vocals found: expected at least {_FOUND_BLOCKS / BLOCKS_PER_S:g} s of them, got "
                f"{n_singing / BLOCKS_PER_S:g} s; no_vocals can also be passthrough or convert"
            )

    def _convert_vocals(
        self, sung: _Sung, state: Array | None, *, more: bool
    ) -> Generator[_MixInput, None, Array | None]:
        """Send one request to the converter; returns the state for the next one.

        `sung` is emptied, so that its samples are freed as soon as the converter has them.
        """
        vocals = sung.take()
        self._source.add(vocals)
        after: Array | None = None
        chunks = self._stages.convert(self._request.conversion(vocals, state, more, voice=self._voice))
        del vocals
        for chunk in self._context.timed_items("conversion_s", chunks):
            after = chunk.state
            self._svc.add(chunk.report)
            if len(chunk.vocals):
                self._result.add(chunk.vocals)
                self._post_event("convert", self._result.n_samples / STEM_RATE_HZ)
                yield _MixInput(converted=chunk.vocals)
        if more and after is None:
            raise EngineError("svc: expected a state for the next window, got none")
        return after

    def _mix(self, item: _MixInput) -> MixPiece | None:
        window = item.window
        if item.passthrough and window is not None:
            recording = window.recording
            return MixPiece(recording, recording, np.zeros_like(recording), self.n_samples)
        with self._context.timed("mix_s"):
            if window is not None:
                piece = self._mixer.push(window.recording, window.vocals)
                if window.last:
                    self._mixer.end_vocals()
                return piece
            return self._mixer.push(converted=item.converted)

    def _emit(self, piece: MixPiece | None) -> Iterator[Message]:
        if piece is None or not piece.audio.shape[1]:
            return
        if piece.start != self.n_samples:
            raise EngineError(f"mix: expected a piece from sample {self.n_samples} on, got one from {piece.start}")
        self.n_samples += piece.audio.shape[1]
        yield from split_into_chunks(piece, stems=self._stems)
        yield self._event("mix", self.n_samples / SAMPLE_RATE_HZ)

    # ------------------------------------------------------------------------------------------------------- report

    def _event(self, stage: str, done_s: float) -> Event:
        return self._context.event(stage, round(done_s * FRAMES_PER_S), self._n_frames)

    def _post_event(self, stage: str, done_s: float) -> None:
        self._context.post(self._event(stage, done_s))

    def write_report(self) -> None:
        """Add the conversion's fields to the context's report. Call it at the end, once."""
        voice, report = self._request.voice, self._context.report
        compared: dict[str, Any] = {}
        with self._context.timed("judging_s"):
            self._compare_reference()
            if not self.passthrough:
                sung = self._source.audio() if self._singing.n_blocks else np.empty(0, np.float32)
                compared = compare_singing(
                    self._stages, self._voice.audio44, sung, self._result.audio(), encoder=self._encoder
                )
        mix = {} if self.passthrough else _rounded(asdict(self._mixer.report))
        warnings = [
            *(f"voice: {each}" for each in voice.warnings),
            *self._polarity.warnings(),
            *self._svc.warnings,
            *mix.pop("warnings", ()),
        ]
        if self._mark_facts:
            warnings.append("voice: it carries this server's watermark: it was generated here")
        report |= {
            "converted": not self.passthrough,
            "voice_sha256": voice.sha256,
            "reference": {
                "separated": self._request.reference_separate,
                **self._reference.facts,
                **self._mark_facts,
            },
            "voice_consent": self._request.consent,
            "warnings": [*report.get("warnings", ()), *warnings, *self._reference.warnings],
            "pitch": self._svc.pitch(),
            **compared,
            "svc": self._svc.last,
            "mix": mix,
        }
        if self._stems:
            report["stems"] = list(MIX_STEM_NAMES)


class _Sung:
    """Vocals that wait for their conversion.

    They wait as the stereo arrays that the mixer keeps, too. Their mid channel, half as much, exists once it is sent.
    """

    def __init__(self, polarity: PolarityFollower) -> None:
        self._polarity = polarity
        self._pieces, self._n = deque[Audio](), 0

    def __len__(self) -> int:
        return self._n

    def add(self, vocals: Audio) -> None:
        """Append [2, N]. The array is kept: do not change it afterwards."""
        self._pieces.append(vocals)
        self._n += vocals.shape[1]

    def take(self) -> Audio:
        """Remove all and return their mid channel [N]."""
        mid, at = np.empty(self._n, np.float32), 0
        while self._pieces:
            piece = self._pieces.popleft()
            mid[at : at + piece.shape[1]] = mid_channel(turned(piece, self._polarity.push(piece)))
            at += piece.shape[1]
        self._n = 0
        return mid


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Round floats to four digits."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
