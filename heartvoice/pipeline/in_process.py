"""The whole pipeline in this process, without Triton: for tests, tools and benchmarks. The samples are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.contracts.constants import SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.models.prompt import load_tokenizer
from heartvoice.pipeline.cover import CoverPipeline, CoverRequest
from heartvoice.pipeline.messages import Codes, Message
from heartvoice.pipeline.song import SongRequest
from heartvoice.pipeline.song_with_voice import run_song
from heartvoice.pipeline.voice_conversion import VoiceStages
from heartvoice.runtime.networks import JobNetworks, LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.stages.codec import CodecRequest, CodecStage
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.lm.factory import open_engine
from heartvoice.stages.lm.request import LmRequest, SongState
from heartvoice.stages.lm.scheduler import LmScheduler
from heartvoice.stages.separation import Carry, SeparateStage, SeparationPlan, SeparationRequest
from heartvoice.stages.speaker import SpeakerStage
from heartvoice.stages.svc.converter import ConversionRequest, ConvertedChunk, Converter

MAX_WAITING = 64
"""Songs that may wait for the language model."""


class InProcessStages:
    """The stages of a song over engines in this process; a `pipeline.SongStages`. Songs at once take turns."""

    def __init__(self, repository: Repository, *, engine: str = "auto", threads: int | None = None) -> None:
        """`engine` is the language model's, see `lm_engines.open_engine`."""
        self.networks = LocalNetworks(repository, threads=threads)
        self._preset = repository.preset
        self._tokenizer = load_tokenizer(repository.root / "heartmula" / "1" / "tokenizer.json")
        self._scheduler = LmScheduler(open_engine(repository, engine, threads=threads), max_waiting=MAX_WAITING)
        self.codec = CodecStage(self.networks, repository.preset.codec)

    def write_codes(self, request: LmRequest) -> Iterator[Codes]:
        """Frames one by one, each [8, 1]."""
        with self._scheduler.submit(SongState(request, self._tokenizer, self._preset)) as frames:
            for frame in frames:
                yield frame[:, None]

    def decode_window(self, request: CodecRequest) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One window: audio [2, 3840 W] and latents [2 W, L]."""
        return self.codec.decode_window(request)


def make_song(
    repository: Repository,
    stages: InProcessStages,
    inputs: Mapping[str, Array],
    voice_stages: Callable[[], VoiceStages] | None = None,
) -> Iterator[Message]:
    """Make one song from the tensors that the model `song` takes; `voice_stages` are for one with a voice or stems."""
    preset = repository.preset
    request = SongRequest.from_inputs(inputs, preset)
    return run_song(
        request, stages, voice_stages or (lambda: InProcessVoiceStages(repository)), preset, repository.about,
        detect_vocals=not repository.is_random("separator"),
    )  # fmt: skip


class InProcessVoiceStages:
    """The stages of another singer over engines in this process; a `revoice.VoiceStages`."""

    def __init__(
        self,
        repository: Repository,
        converter: Callable[[ConversionRequest], Iterable[ConvertedChunk]] | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        """`converter` is another one than the repository's."""
        preset, networks = repository.preset, LocalNetworks(repository, threads=threads)
        self._separator = SeparateStage(networks, preset.separator)
        self._speaker = SpeakerStage(networks, preset.speaker)
        self._f0 = F0Stage(networks, preset.f0)
        self.converter = Converter(preset)
        self.convert = converter or partial(self.converter.convert, JobNetworks(networks))

    def separate(self, request: SeparationRequest) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """One window: final stems [S, 2, M] and the carry."""
        pieces, carry = list[NDArray[np.float32]](), None
        for item in self._separator.separate(request):
            if isinstance(item, Carry):
                carry = item.carry
            else:
                pieces.append(item.stems)
        return np.concatenate(pieces, axis=2), carry

    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vector of who sings in [N] at 44.1 kHz."""
        return self._speaker.embed(resample(audio, STEM_RATE_HZ, SPEECH_RATE_HZ))

    def track_f0(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """F0 of [N] at 16 kHz."""
        return self._f0.track(audio)


def make_cover(repository: Repository, stages: VoiceStages, inputs: Mapping[str, Array]) -> Iterator[Message]:
    """Make one cover from the tensors that the model `cover` takes."""
    preset = repository.preset
    return CoverPipeline(
        CoverRequest.from_inputs(inputs),
        stages,
        SeparationPlan(preset.separator),
        repository.about,
        encoder=preset.speaker.engine,
        detect_vocals=not repository.is_random("separator"),
    ).run()
