"""How much time do voices take: covers, songs, the voice cache, and live conversion?

    python -m benchmarks.song_with_voice [--preset mid] [--only cover|song|cache|live] [--quick]

It runs in one process over an exported repository (first `heartvoice export --preset mid --random-weights 0`). A job
runs as a whole, with overlapping stages, and then stage by stage: each stage alone repeats the calls of an earlier job,
and the mix is the job with stored results. All variants alternate. Peak memory is measured for a job in a separate
process, without a cached voice. Run it with OMP_WAIT_POLICY=PASSIVE on a shared machine.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.separation import recording
from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.audio.recordings import read_voice
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.messages import AudioChunk, Codes, Message, Report
from heartvoice.contracts.network_names import NETWORKS
from heartvoice.loadtest.harness import RESULTS, Run, Timing, alternate
from heartvoice.loadtest.machine import peak_in_child
from heartvoice.loadtest.signals import agreement, melody
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.in_process import InProcessStages, InProcessVoiceStages, make_cover
from heartvoice.pipeline.song import SongStages
from heartvoice.pipeline.song_request import SongRequest
from heartvoice.pipeline.song_with_voice import run_song
from heartvoice.pipeline.voice_conversion import VoiceStages
from heartvoice.runtime.engines import default_threads
from heartvoice.runtime.networks import JobNetworks, LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.stages.codec import CodecRequest
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.svc.converter import Converter
from heartvoice.stages.svc.mel import log_mel
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk
from heartvoice.stages.svc.settings import ConvertSettings

Floats = npt.NDArray[np.float32]
T = TypeVar("T")
PARTS = ("cover", "song", "cache", "live")
BUDGET = 1.05
"""Allowed time of a job relative to the sum of its stages."""
REFERENCE_S = 15.0
CODEC_WINDOW = 93
"""Window in frames: even a short song has several windows, so its stages overlap."""
PUSH_SAMPLES = 257_985
"""Samples that the separation finishes at a time."""
CONSENT = "nobody: this is a synthetic voice"
LYRICS, TAGS = "[verse]\nOver the hills and far away\n", "pop, piano, female voice"


# --------------------------------------------------------------------------------------------------------------- stages


@dataclass
class StageRecorder:
    """Stages of song and cover that record every call and its result; streams are collected first."""

    song: SongStages
    voice: VoiceStages
    calls: dict[str, list[tuple[Callable[[], Any], Any]]] = field(default_factory=dict)
    """Recorded calls by stage in order: a function that repeats the call, and its result."""

    def write_codes(self, request: LmRequest) -> Iterator[Codes]:
        """See `pipeline.SongStages`."""
        return iter(self._answer("lm", lambda: list(self.song.write_codes(request))))

    def decode_window(self, request: CodecRequest) -> tuple[Floats, Floats]:
        """See `pipeline.SongStages`."""
        return self._answer("codec", lambda: self.song.decode_window(request))

    def separate(self, request: SeparationRequest) -> tuple[Floats, Floats | None]:
        """See `pipeline.VoiceStages`."""
        return self._answer("separation", lambda: self.voice.separate(request))

    def convert(self, request: ConversionRequest) -> Iterable[ConvertedChunk]:
        """See `pipeline.VoiceStages`."""
        return self._answer("conversion", lambda: list(self.voice.convert(request)))

    def embed(self, audio: Floats) -> Floats:
        """See `pipeline.VoiceStages`."""
        return self._answer("judging", lambda: self.voice.embed(audio))

    def embed_style(self, audio: Floats) -> Floats:
        """See `pipeline.VoiceStages`."""
        return self._answer("judging", lambda: self.voice.embed_style(audio))

    def track_f0(self, audio: Floats) -> Floats:
        """See `pipeline.VoiceStages`."""
        return self._answer("judging", lambda: self.voice.track_f0(audio))

    def _answer(self, stage: str, call: Callable[[], T]) -> T:
        answer = call()
        self.calls.setdefault(stage, []).append((call, answer))
        return answer

    def alone(self, stage: str) -> None:
        """Repeat a stage's calls."""
        for call, _ in self.calls[stage]:
            call()


class StageReplay(StageRecorder):
    """The same stages, which immediately return recorded results."""

    def __init__(self, recorder: StageRecorder) -> None:
        super().__init__(recorder.song, recorder.voice)
        self._left = {stage: deque(answer for _, answer in calls) for stage, calls in recorder.calls.items()}

    def _answer(self, stage: str, call: Callable[[], T]) -> T:
        answer: T = self._left[stage].popleft()
        return answer


class Stages:
    """All stages of a repository, in this process."""

    def __init__(self, repository: Repository, threads: int) -> None:
        torch.set_num_threads(threads)
        self.repository = repository
        self.song, self.voice = (
            InProcessStages(repository, threads=threads),
            InProcessVoiceStages(repository, threads=threads),
        )


# ----------------------------------------------------------------------------------------------------------------- jobs


@dataclass(frozen=True)
class Job:
    """A song or a cover of a given length."""

    kind: str
    seconds: float
    steps: int
    """Steps of both flows."""

    def messages(self, repository: Repository, song: SongStages, voice: VoiceStages) -> Iterator[Message]:
        """Start the job."""
        if self.kind == "cover":
            return make_cover(repository, voice, self._inputs() | _clip(self.seconds))
        inputs = self._inputs() | {
            "lyrics": _text(LYRICS),
            "tags": _text(TAGS),
            "duration_s": np.array([self.seconds], np.float32),
            "min_duration_s": np.array([self.seconds], np.float32),
            "codec_window": np.array([CODEC_WINDOW]),
            "codec_steps": np.array([self.steps]),
        }
        preset = repository.preset
        request = SongRequest.from_inputs(inputs, preset)
        return run_song(
            request, song, lambda: voice, preset, JobContext(repository.about(*request.networks)), detect_vocals=False
        )

    def _inputs(self) -> dict[str, Array]:
        return voice_inputs() | {"svc_steps": np.array([self.steps]), "no_vocals": _text("convert")}


def finished(messages: Iterable[Message]) -> dict[str, Any]:
    """Run a job to its end; return its report and the amount of audio."""
    n_samples, report = 0, dict[str, Any]()
    for message in messages:
        if isinstance(message, AudioChunk):
            n_samples += message.audio.shape[1]
        elif isinstance(message, Report):
            report = dict(message.raw)
    return report | {"received_s": n_samples / SAMPLE_RATE_HZ}


def vocals(seconds: float) -> Floats:
    """Make a synthetic melody [N] at 44.1 kHz."""
    return resample(melody(seconds).audio, SPEECH_RATE_HZ, STEM_RATE_HZ)


def voice_inputs() -> dict[str, Array]:
    """Inputs with a voice reference and the consent to its use."""
    return {
        "voice_audio": resample(melody(REFERENCE_S, seed=1).audio, SPEECH_RATE_HZ, STEM_RATE_HZ)[None],
        "voice_sample_rate": np.array([STEM_RATE_HZ]),
        "voice_consent": _text(CONSENT),
    }


def _clip(seconds: float) -> dict[str, Array]:
    mix = recording(seconds, STEM_RATE_HZ) + np.float32(0.5) * vocals(seconds)
    return {"audio": mix, "sample_rate": np.array([STEM_RATE_HZ])}


def _text(text: str) -> Array:
    return np.array([text.encode()], np.object_)


def build(root: Path, threads: int, job: Job) -> Callable[[], object]:
    """Return a job with loaded networks, for `peak_in_child`."""
    stages = Stages(Repository(root), threads)
    finished(replace(job, seconds=2.0, steps=1).messages(stages.repository, stages.song, stages.voice))
    stages.voice.converter = Converter(stages.repository.preset)
    return lambda: finished(job.messages(stages.repository, stages.song, stages.voice))


def measure_job(run: Run, stages: Stages, job: Job, *, n: int, memory: bool) -> None:
    """Measure a job and its stages; adds rows."""
    repository = stages.repository
    recorder = StageRecorder(stages.song, stages.voice)
    finished(job.messages(repository, recorder, recorder))

    def over(song: SongStages, voice: VoiceStages) -> dict[str, Any]:
        return finished(job.messages(repository, song, voice))

    def mix() -> dict[str, Any]:
        answers = StageReplay(recorder)
        return over(answers, answers)

    alone: dict[str, Callable[[], object]] = {stage: partial(recorder.alone, stage) for stage in recorder.calls}
    alone["mix"] = mix
    timings = alternate({"whole": lambda: over(stages.song, stages.voice), **alone}, n=n, warmup=0)
    total = Timing(tuple(map(sum, zip(*(timings[stage].seconds for stage in alone), strict=True))))
    row = run.add(job.kind, "whole", timings["whole"], baseline=total, budget=BUDGET)
    row |= {"rtf": timings["whole"].median / job.seconds, "audio_s": mix()["received_s"]}
    run.add(job.kind, "sum of its stages", total, rtf=total.median / job.seconds)
    for stage in alone:
        run.add(job.kind, stage, timings[stage], rtf=timings[stage].median / job.seconds)
    run.save()
    if memory:
        peak = peak_in_child(build, repository.root, run.threads, job)
        row |= {"loaded_mb": peak.loaded / 1e6, "run_mb": peak.growth / 1e6, "peak_mb": peak.peak / 1e6}
        run.save()


# ------------------------------------------------------------------------------------------------------ cache and live


class Conversions:
    """The converter and its voices."""

    def __init__(self, repository: Repository, threads: int, seconds: float, steps: int) -> None:
        self.networks = JobNetworks(LocalNetworks(repository, threads=threads))
        self.preset = repository.preset
        self.converter = Converter(self.preset)
        voice, settings = read_voice(voice_inputs()), ConvertSettings(steps=steps)
        self.request = ConversionRequest(vocals(seconds), voice, voice.sha256, CONSENT, settings)

    def exact(self, seed: int = 0) -> tuple[Floats, Mapping[str, Any]]:
        """Convert all vocals at once; return samples and report."""
        settings = replace(self.request.settings, seed=seed)
        return _joined(self.converter.convert(self.networks, replace(self.request, settings=settings)))

    def live(self) -> tuple[Floats, Mapping[str, Any]]:
        """Convert the vocals in the separator's chunks."""
        parts = np.split(self.request.vocals, range(PUSH_SAMPLES, len(self.request.vocals), PUSH_SAMPLES))
        pieces, state = list[ConvertedChunk](), None
        for index, part in enumerate(parts):
            request = replace(self.request, vocals=part, live=True, state=state, more=index + 1 < len(parts))
            pieces += self.converter.convert(self.networks, request)
            state = pieces[-1].state
        return _joined(pieces)


def _joined(pieces: Iterable[ConvertedChunk]) -> tuple[Floats, Mapping[str, Any]]:
    every = list(pieces)
    return np.concatenate([piece.vocals for piece in every]), every[-1].report or {}


def measure_cache(run: Run, repository: Repository, *, n: int) -> None:
    """Measure the shortest conversion with a new and with a cached voice; adds rows."""
    conversions = Conversions(repository, run.threads, 0.5, 1)

    def miss() -> None:
        conversions.converter = Converter(conversions.preset)
        conversions.exact()

    timings = alternate({"miss": miss, "hit": conversions.exact}, n=n, warmup=1)
    kept = conversions.converter.voices.report()
    run.add("half a second, voice", "miss", timings["miss"], voice_mb=kept["bytes"] / 1e6)
    run.add("half a second, voice", "hit", timings["hit"], baseline=timings["miss"])
    run.save()


def measure_live(run: Run, stages: Stages, *, seconds: float, steps: int, n: int) -> None:
    """Compare live with exact conversion; the yardstick is an exact one with another seed. Adds rows."""
    conversions = Conversions(stages.repository, run.threads, seconds, steps)
    (exact, of_exact), (other, _), (live, of_live) = conversions.exact(), conversions.exact(seed=1), conversions.live()
    timings = alternate({"exact": conversions.exact, "live": conversions.live}, n=n, warmup=0)
    run.add("conversion", "exact", timings["exact"], rtf=timings["exact"].median / seconds)
    row = run.add("conversion", "live", timings["live"], baseline=timings["exact"])
    shift = 100 * (of_live["auto_shift_semitones"] - of_exact["auto_shift_semitones"])
    row |= {"rtf": timings["live"].median / seconds, "shift_cents": shift, **apart(live, exact, stages.voice)}
    row = run.add("conversion", "exact, another seed")
    row |= apart(other, exact, stages.voice)


def apart(wave: Floats, reference: Floats, voice: VoiceStages) -> dict[str, float]:
    """Return mean mel distance in dB, median pitch distance in cents, and cosine of the voices."""
    n = min(len(wave), len(reference))
    pair = wave[:n], reference[:n]
    mels = [log_mel(samples) for samples in pair]
    contours = [voice.track_f0(resample(samples, STEM_RATE_HZ, SPEECH_RATE_HZ)) for samples in pair]
    vectors = [voice.embed(samples) for samples in pair]
    return {
        "mel_db": float(np.abs(mels[0] - mels[1]).mean() * 20 / np.log(10)),
        "f0_cents": agreement(*contours).median_cents,
        "both_voiced": float(np.mean((contours[0] > 0) & (contours[1] > 0))),
        "similarity": float(vectors[0] @ vectors[1]),
    }


# ---------------------------------------------------------------------------------------------------------------- main


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = _parse(arguments)
    repository = Repository(args.repository or Path("build/repository") / args.preset)
    about = repository.about(*NETWORKS) | {"steps": args.steps, "seconds": args.seconds, "reference_s": REFERENCE_S}
    preset, precision = repository.preset.name, str(repository.index["precision"])
    run = Run("voice", preset, precision, args.threads, results=args.results, about=about)
    stages = Stages(repository, args.threads)
    for kind in ("cover", "song"):
        if kind in args.only:
            seconds = args.seconds if kind == "cover" else args.song_seconds
            measure_job(run, stages, Job(kind, seconds, args.steps), n=args.n, memory=not args.quick)
    if "cache" in args.only:
        measure_cache(run, repository, n=2 * args.n + 1)
    if "live" in args.only:
        measure_live(run, stages, seconds=args.seconds, steps=args.steps, n=args.n)
    run.finish()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.song_with_voice", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="mid")
    parser.add_argument("--repository", type=Path, help="default build/repository/PRESET")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="short, one round, no memory measurement")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of cover and vocals in seconds")
    parser.add_argument("--song-seconds", type=float, default=15.0)
    parser.add_argument("--steps", type=int, default=4, help="steps of both flows; a request's defaults are 10 and 25")
    parser.add_argument("-n", type=int, default=3, help="rounds")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    args.only = [part for part in PARTS if part in (args.only or PARTS)]
    if args.quick:
        args.seconds, args.song_seconds, args.steps, args.n = 7.0, 2.0, 1, 1  # two requests of a live conversion
    return args


if __name__ == "__main__":
    main()
