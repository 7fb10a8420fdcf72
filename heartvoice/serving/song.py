"""The model `song`, and the stages of a song as calls to other models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.messages import Codes, Message
from heartvoice.contracts.models import SONG
from heartvoice.models.vocabulary import LyricVocabulary
from heartvoice.pipeline.admission import SongAdmission
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.song_request import SongRequest
from heartvoice.pipeline.song_with_voice import run_song
from heartvoice.pipeline.watermarking import Watermark
from heartvoice.runtime.repository import Repository
from heartvoice.serving.bls import BlsClient
from heartvoice.serving.cover import ServedVoiceStages
from heartvoice.serving.jobs import Job
from heartvoice.serving.responses import send_messages
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.serving.watermark import open_watermark
from heartvoice.stages.codec import CodecRequest
from heartvoice.stages.lm.request import LmRequest


class ServedStages:
    """The stages of a song as calls to other models; a `SongStages`."""

    def __init__(self, caller: BlsClient) -> None:
        self._caller = caller

    def write_codes(self, request: LmRequest) -> Iterator[Codes]:
        """Code frames from the model `heartmula`."""
        for response in self._caller.stream("heartmula", request.to_inputs()):
            if "CODES" in response:
                yield response["CODES"].astype(np.int32)

    def decode_window(self, request: CodecRequest) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One window from the model `heartcodec`."""
        result = self._caller.run("heartcodec", request.to_inputs())
        return result["AUDIO"].astype(np.float32), result["LATENTS"].astype(np.float32)


def run_song_job(
    job: Job, repository: Repository, vocabulary: LyricVocabulary | None, watermark: Watermark | None
) -> Iterator[Message]:
    """Check a job's inputs and make its song; yields the song's messages."""
    preset = repository.preset
    request = SongRequest.from_inputs(job.inputs, preset, vocabulary)
    with closing(BlsClient(job.check)) as caller:
        yield from run_song(
            request,
            ServedStages(caller),
            lambda: ServedVoiceStages(caller, preset),
            preset,
            JobContext(repository.about(*request.networks), job.check, watermark and watermark.of_caller(job.inputs)),
            detect_vocals=not repository.is_random("separator"),
            random_networks=repository.random_networks,
        )


class SongModel(StageModel):
    """Triton adapter of `song`. Owns no weights."""

    spec = SONG

    def build(self, context: Context) -> None:
        """Read the preset and the watermark's key, so that a broken repository fails the load."""
        self.repository, self.watermark = context.repository, open_watermark(context.repository)
        self.admission = SongAdmission(context.repository.preset, context.repository.tokenizer)

    def admit(self, job: Job) -> None:
        """Refuse a song that cannot be made."""
        super().admit(job)
        self.admission.check(job.inputs)

    def work(self, job: Job) -> None:
        """Stream one song."""
        send_messages(job, run_song_job(job, self.repository, self.admission.vocabulary, self.watermark))
