"""The whole pipeline in this process, without Triton: for tests, tools and benchmarks. The samples are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from heartvoice.engines import Array
from heartvoice.models.prompt import load_tokenizer
from heartvoice.networks import LocalNetworks
from heartvoice.pipeline import Codes, Message, SongPipeline, SongRequest
from heartvoice.repository import Repository
from heartvoice.stages.codec import CodecRequest, CodecStage
from heartvoice.stages.lm import LmRequest, LmStage


class LocalStages:
    """The stages of a song over engines in this process; a `pipeline.SongStages`."""

    def __init__(self, repository: Repository, *, threads: int | None = None) -> None:
        self.networks = LocalNetworks(repository, threads=threads)
        tokenizer = load_tokenizer(repository.root / "heartmula" / "1" / "tokenizer.json")
        self.lm = LmStage(self.networks.engine("heartmula_step"), tokenizer, repository.preset)
        self.codec = CodecStage(self.networks, repository.preset.codec)

    def write_codes(self, request: LmRequest) -> Iterator[Codes]:
        """Frames one by one, each [8, 1]."""
        for frame in self.lm.frames(request):
            yield frame[:, None]

    def decode_window(self, request: CodecRequest) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One window: audio [2, 3840 W] and latents [2 W, L]."""
        return self.codec.decode_window(request)


def make_song(repository: Repository, stages: LocalStages, inputs: Mapping[str, Array]) -> Iterator[Message]:
    """Make one song from the tensors that the model `song` takes."""
    request = SongRequest.from_inputs(inputs, repository.preset)
    return SongPipeline(request, stages, repository.preset, repository.about).run()
