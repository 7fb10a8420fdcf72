"""The pipelines over engines in this process, without Triton: for tests, tools and benchmarks.

The samples are those of the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.contracts.constants import SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.graphs import SVC_STYLE
from heartvoice.contracts.messages import Codes, Message
from heartvoice.contracts.network_names import COVER_NETWORKS
from heartvoice.models.prompt import load_tokenizer
from heartvoice.models.vocabulary import LyricVocabulary
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.cover import run_cover
from heartvoice.pipeline.cover_request import CoverRequest
from heartvoice.pipeline.song_request import SongRequest
from heartvoice.pipeline.song_with_voice import run_song
from heartvoice.pipeline.voice_conversion import VoiceStages
from heartvoice.pipeline.watermarking import Watermark
from heartvoice.runtime.networks import JobNetworks, LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.stages.codec import CodecRequest, CodecStage
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.lm.factory import open_engine
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.lm.scheduler import LmScheduler
from heartvoice.stages.lm.song_state import SongState
from heartvoice.stages.separation.request import Carry, SeparationRequest
from heartvoice.stages.separation.stage import SeparateStage
from heartvoice.stages.speaker import SpeakerStage
from heartvoice.stages.svc.converter import Converter
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk

MAX_WAITING = 64
"""Songs that may wait for the language model."""


class InProcessStages:
    """The stages of a song over engines in this process; a `SongStages`. Concurrent songs share the language model."""

    def __init__(self, repository: Repository, *, engine: str = "auto", threads: int | None = None) -> None:
        """Open the engines.

        Args:
            repository: exported.
            engine: of the language model, see `lm.factory.open_engine`.
            threads: of each engine.
        """
        self.networks = LocalNetworks(repository, threads=threads)
        self._preset = repository.preset
        self._tokenizer = load_tokenizer(repository.tokenizer)
        self.vocabulary = LyricVocabulary.open(repository.tokenizer, repository.preset.ids)
        self._scheduler = LmScheduler(open_engine(repository, engine, threads=threads), max_waiting=MAX_WAITING)
        self.codec = CodecStage(self.networks, repository.preset.codec)

    def write_codes(self, request: LmRequest) -> Iterator[Codes]:
        """Code frames one by one, each int32 [8, 1]."""
        state = SongState(request.within(self.vocabulary), self._tokenizer, self._preset)
        with self._scheduler.submit(state) as frames:
            for frame in frames:
                yield frame[:, None]

    def decode_window(self, request: CodecRequest) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decode one window of W frames: audio [2, 3840 W] and latents [2 W, L]."""
        return self.codec.decode_window(request)


def make_song(
    repository: Repository,
    stages: InProcessStages,
    inputs: Mapping[str, Array],
    voice_stages: Callable[[], VoiceStages] | None = None,
    *,
    watermark: Watermark | None = None,
) -> Iterator[Message]:
    """Make one song from the input tensors of the model `song`.

    Args:
        repository: exported.
        stages: over its engines.
        inputs: of the request.
        voice_stages: make the stages for a song with a voice or with stems; default `InProcessVoiceStages`.
        watermark: marks the song.
    """
    preset = repository.preset
    request = SongRequest.from_inputs(inputs, preset, stages.vocabulary)
    return run_song(
        request, stages, voice_stages or (lambda: InProcessVoiceStages(repository)), preset,
        JobContext(repository.about(*request.networks), watermark=watermark),
        detect_vocals=not repository.is_random("separator"), random_networks=repository.random_networks,
    )  # fmt: skip


class InProcessVoiceStages:
    """The stages of a conversion over engines in this process; a `VoiceStages`."""

    def __init__(
        self,
        repository: Repository,
        converter: Callable[[ConversionRequest], Iterable[ConvertedChunk]] | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        """Open the engines.

        Args:
            repository: exported.
            converter: replaces the repository's.
            threads: of each engine.
        """
        preset, networks = repository.preset, LocalNetworks(repository, threads=threads)
        self._separator = SeparateStage(networks, preset.separator)
        self._speaker = SpeakerStage(networks, preset.speaker)
        self._style = SpeakerStage(networks, preset.style, network=SVC_STYLE.name)
        self._f0 = F0Stage(networks, preset.f0)
        self.converter = Converter(preset)
        self.convert = converter or partial(self.converter.convert, JobNetworks(networks))

    def separate(self, request: SeparationRequest) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Separate one window: final stems [S, 2, M] and the carry."""
        chunks, carry = list[NDArray[np.float32]](), None
        for item in self._separator.separate(request):
            if isinstance(item, Carry):
                carry = item.carry
            else:
                chunks.append(item.stems)
        return np.concatenate(chunks, axis=2), carry

    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vector of the singer of [N] at 44.1 kHz."""
        return self._speaker.embed(resample(audio, STEM_RATE_HZ, SPEECH_RATE_HZ))

    def embed_style(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vector by the style encoder of [N] at 16 kHz."""
        return self._style.embed(audio)

    def track_f0(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """F0 of [N] at 16 kHz."""
        return self._f0.track(audio)


def make_cover(
    repository: Repository, stages: VoiceStages, inputs: Mapping[str, Array], *, watermark: Watermark | None = None
) -> Iterator[Message]:
    """Make one cover from the input tensors of the model `cover`; `watermark` marks it."""
    return run_cover(
        CoverRequest.from_inputs(inputs),
        stages,
        repository.preset,
        JobContext(repository.about(*COVER_NETWORKS), watermark=watermark),
        detect_vocals=not repository.is_random("separator"),
        random_networks=repository.random_networks,
    )
