"""A recording with another singer, as a generator over stage calls. Knows no Triton, as `pipeline.py` does not.

Window n + 1 is separated while window n is converted, and what is final of the mix leaves at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice import __version__
from heartvoice.contracts import (
    COVER,
    FRAMES_PER_S,
    MAX_RECORDING_S,
    MAX_RESPONSE_SAMPLES,
    MIN_RECORDING_S,
    NO_VOCALS_MODES,
    SAMPLE_RATE_HZ,
    SPEECH_RATE_HZ,
    STEM_RATE_HZ,
)
from heartvoice.dsp import resample
from heartvoice.engines import Array
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.pipeline import AudioPiece, Finished, Message, Progress
from heartvoice.pump import Pump
from heartvoice.stages.f0 import median_hz, shift_semitones
from heartvoice.stages.image import middle
from heartvoice.stages.inputs import read_settings, read_text
from heartvoice.stages.mix import Mixer, MixPiece
from heartvoice.stages.recordings import Voice, read_consent, read_recording, read_voice
from heartvoice.stages.separate import SeparationPlan, SeparationRequest

Audio = NDArray[np.float32]

VOCALS = "vocals"
AHEAD = 2
"""Windows that a stage may be ahead of the next one: more would only fill memory."""
JUDGED_S = 30.0
"""Seconds of singing that similarity and F0 are judged by."""
_BLOCK = STEM_RATE_HZ // 10
_AUDIBLE_DBFS, _BELOW_MIX_DB, _FOUND_BLOCKS = -50.0, -20.0, 10


@dataclass(frozen=True)
class CoverRequest:
    """A checked cover."""

    recording: Audio
    """float32 [2, N] at 48 kHz: what comes back has this length."""
    mix: Audio
    """The same at 44.1 kHz, for separation."""
    voice: Voice
    consent: str
    no_vocals: str
    seed: int
    vocal_gain_db: float
    warnings: tuple[str, ...] = ()
    settings: dict[str, float | int | bool] = field(default_factory=dict)

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array]) -> CoverRequest:
        """Check a request's tensors, cheap ones first.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        settings = read_settings(inputs, COVER.settings)
        no_vocals = read_text(inputs, "no_vocals") or "passthrough"
        if no_vocals not in NO_VOCALS_MODES:
            raise InvalidRequestError(f"no_vocals: expected one of {', '.join(NO_VOCALS_MODES)}, got {no_vocals!r}")
        if not {"voice", "voice_audio"} & set(inputs):
            raise InvalidRequestError("voice: missing, expected a reference of the voice that shall sing")
        consent = read_consent(inputs)
        voice = read_voice(inputs)
        recording = read_recording(inputs, min_s=MIN_RECORDING_S, max_s=MAX_RECORDING_S)
        stereo = recording.stereo()
        return cls(
            recording=resample(stereo, recording.sample_rate_hz, SAMPLE_RATE_HZ),
            mix=resample(stereo, recording.sample_rate_hz, STEM_RATE_HZ),
            voice=voice,
            consent=consent,
            no_vocals=no_vocals,
            seed=int(settings["seed"]),
            vocal_gain_db=float(settings["vocal_gain_db"]),
            warnings=(*recording.warnings, *voice.warnings),
            settings=settings,
        )


@dataclass(frozen=True)
class Conversion:
    """One window of vocals to be converted."""

    vocals: Audio
    """float32 [N] mono at 44.1 kHz, going on where the last window ended."""
    voice: Voice
    state: Array | None
    more: bool
    seed: int


@dataclass(frozen=True)
class Converted:
    """What a converter returns: vocals float32 [N'], the state for its next window, what it says of itself."""

    vocals: Audio
    state: Array | None
    report: dict[str, Any]


class CoverStages(Protocol):
    """What a cover needs. Calls block, honour the job's cancellation, and come from several threads."""

    def separate(self, request: SeparationRequest) -> tuple[Audio, Audio | None]:
        """Final stems [1, 2, M] of the wanted source, and the carry if there is more."""
        ...

    def convert(self, request: Conversion) -> Converted:
        """One window in the other voice."""
        ...

    def embed(self, audio: Audio) -> Audio:
        """Unit vector [D] of who sings in float32 [N] at 44.1 kHz."""
        ...

    def track_f0(self, audio: Audio) -> Audio:
        """F0 of float32 [N] at 16 kHz: Hz, 100 a second, 0 = unvoiced."""
        ...


@dataclass(frozen=True)
class _Step:
    """Vocals [2, M] and the new ones [M'] of one window; no new ones at all if there is nothing to convert."""

    vocals: Audio
    converted: Audio | None


class CoverPipeline:
    """One cover under way."""

    def __init__(
        self,
        request: CoverRequest,
        stages: CoverStages,
        plan: SeparationPlan,
        about: Mapping[str, Any] | None = None,
        *,
        detect_vocals: bool = True,
    ) -> None:
        """`detect_vocals` is off where separation has random weights: then everything is converted."""
        self._request, self._stages, self._plan, self._about = request, stages, plan, about or {}
        self._detect = detect_vocals and request.no_vocals != "convert"
        self._began = time.monotonic()
        self._timings = {"separation_s": 0.0, "conversion_s": 0.0, "mix_s": 0.0}
        self._source, self._result = _Excerpt(), _Excerpt()
        self._svc: dict[str, Any] = {}
        self._passed = False

    def run(self, check: Callable[[], None] = lambda: None) -> Generator[Message, None, None]:
        """Yield pieces as they are finished and the report at the end.

        `check` is called between pieces and while waiting; what it raises ends the job.

        Raises:
            InvalidRequestError: there are no vocals, and `no_vocals` is "error".
            EngineError: a stage broke its contract.
        """
        n_samples = self._request.recording.shape[1]
        mixer = Mixer(n_samples, vocal_gain_db=self._request.vocal_gain_db)
        first_audio_s: float | None = None
        n_sent = 0
        with (
            Pump(self._separated, name="cover-separate", ahead=AHEAD) as separated,
            Pump(lambda: self._converted(separated.items(check)), name="cover-convert", ahead=AHEAD) as converted,
        ):
            for piece in self._mixed(mixer, converted.items(check)):
                for audio in _cut(piece, n_sent):
                    first_audio_s = first_audio_s or self._seconds()
                    n_sent = audio.start + audio.audio.shape[1]
                    yield audio
                yield self._progress("mix", n_sent / SAMPLE_RATE_HZ)
        if n_sent != n_samples:
            raise EngineError(f"cover: the mix has {n_sent} samples, the recording {n_samples}")
        yield Finished(self._report(first_audio_s, n_samples, mixer))

    # ------------------------------------------------------------------------------------------------------- stages

    def _separated(self) -> Iterator[Audio]:
        """Vocals [2, M] at 44.1 kHz, window by window."""
        carry: Audio | None = None
        for span in self._plan.spans(self._request.mix.shape[1]):
            began = time.monotonic()
            stems, carry = self._stages.separate(
                SeparationRequest(
                    audio=self._request.mix[:, span.start : span.end],
                    context=span.context,
                    carry=carry,
                    sources=(VOCALS,),
                    more=span.more,
                )
            )
            self._timings["separation_s"] += time.monotonic() - began
            yield stems[0]

    def _converted(self, separated: Iterable[Audio]) -> Iterator[_Step]:
        """Windows with their conversion; nothing is converted before the first singing is found."""
        found, held, n_active = not self._detect, list[Audio](), 0
        state: Array | None = None
        at = 0
        total = self._request.mix.shape[1]
        for vocals in separated:
            held.append(vocals)
            at += vocals.shape[1]
            if not found:
                n_active += _singing_blocks(vocals, self._request.mix[:, at - vocals.shape[1] : at])
                found = n_active >= _FOUND_BLOCKS
            while found and held:
                window = held.pop(0)
                more = bool(held) or at < total
                step, state = self._convert(window, state, more)
                yield step
        if held:
            if self._request.no_vocals == "error":
                raise InvalidRequestError(
                    f"recording: no vocals found: expected at least {_FOUND_BLOCKS / 10:g} s of them, got "
                    f"{n_active / 10:g} s; no_vocals can also be passthrough or convert"
                )
            self._passed = True
            yield from (_Step(vocals, None) for vocals in held)

    def _convert(self, vocals: Audio, state: Array | None, more: bool) -> tuple[_Step, Array | None]:
        began = time.monotonic()
        mid = middle(vocals)
        request = self._request
        answer = self._stages.convert(Conversion(mid, request.voice, state, more, request.seed))
        self._timings["conversion_s"] += time.monotonic() - began
        self._svc |= answer.report
        self._source.add(mid)
        self._result.add(answer.vocals)
        return _Step(vocals, answer.vocals), answer.state

    def _mixed(self, mixer: Mixer, steps: Iterable[_Step]) -> Iterator[MixPiece]:
        given = 0
        recording = self._request.recording
        for step in steps:
            began = time.monotonic()
            if step.converted is None:
                continue  # nothing was found in the whole recording: it goes out as it came
            upto = min(recording.shape[1], given + round(step.vocals.shape[1] * SAMPLE_RATE_HZ / STEM_RATE_HZ))
            piece = mixer.push(recording[:, given:upto], step.vocals, step.converted)
            given = upto
            self._timings["mix_s"] += time.monotonic() - began
            if piece is not None:
                yield piece
        if self._passed:
            silence = np.zeros_like(recording)
            yield MixPiece(recording, recording, silence, 0)
            return
        began = time.monotonic()
        last = [mixer.push(recording[:, given:], None, None)] if given < recording.shape[1] else []
        last.append(mixer.finish())
        self._timings["mix_s"] += time.monotonic() - began
        yield from (piece for piece in last if piece is not None)

    # ------------------------------------------------------------------------------------------------------- report

    def _seconds(self) -> float:
        return round(time.monotonic() - self._began, 4)

    def _progress(self, stage: str, done_s: float) -> Progress:
        total_s = self._request.recording.shape[1] / SAMPLE_RATE_HZ
        return Progress(stage, round(done_s * FRAMES_PER_S), round(total_s * FRAMES_PER_S), self._seconds())

    def _report(self, first_audio_s: float | None, n_samples: int, mixer: Mixer) -> dict[str, Any]:
        began = time.monotonic()
        judged = {} if self._passed else self._judged()
        self._timings["judging_s"] = time.monotonic() - began
        request = self._request
        return {
            "heartvoice": __version__,
            **self._about,
            "seed": request.seed,
            "settings": request.settings | {"no_vocals": request.no_vocals},
            "samples": n_samples,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "duration_s": n_samples / SAMPLE_RATE_HZ,
            "converted": not self._passed,
            "voice_sha256": request.voice.sha256,
            "voice_consent": request.consent,
            "warnings": list(request.warnings),
            **judged,
            "svc": self._svc,
            "mix": {} if self._passed else _rounded(asdict(mixer.report)),
            "timings": {
                **{name: round(value, 4) for name, value in self._timings.items()},
                "first_audio_s": first_audio_s,
                "total_s": self._seconds(),
            },
        }

    def _judged(self) -> dict[str, Any]:
        """Similarity to the reference and F0, before and after; None where too little is sung to tell."""
        voice = self._request.voice.audio44
        source, result = self._source.audio(), self._result.audio()
        similarity: dict[str, Any] = {"encoder": self._about.get("speaker_encoder"), "before": None, "after": None}
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

    def add(self, audio: Audio) -> None:
        """Keep the audible seconds of float32 [N] at 44.1 kHz."""
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


def _cut(piece: MixPiece, n_sent: int) -> Iterator[AudioPiece]:
    """A piece of the mix in pieces that a response may carry."""
    if piece.start != n_sent:
        raise EngineError(f"cover: the mix goes on at {piece.start}, expected {n_sent}")
    for at in range(0, piece.audio.shape[1], MAX_RESPONSE_SAMPLES):
        yield AudioPiece(piece.audio[:, at : at + MAX_RESPONSE_SAMPLES], n_sent + at)
