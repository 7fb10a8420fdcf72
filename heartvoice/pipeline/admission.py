"""Checks of jobs before they wait for their turn, or for a server: what files, sizes or the prompt alone decide."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.audio.recordings import read_recording
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import MAX_FRAMES, SPEECH_RATE_HZ
from heartvoice.contracts.field_checks import SPEECH_LIMITS_S, RecordingInputs, check_codes
from heartvoice.contracts.models import COVER, DEMUCS, SONG, SPEAKER_ENCODER
from heartvoice.models.prompt import Tokenizer, load_tokenizer
from heartvoice.models.vocabulary import LyricVocabulary
from heartvoice.pipeline.cover_request import CoverRequest
from heartvoice.pipeline.song_request import SongRequest
from heartvoice.runtime.repository import Repository
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.lm.song_state import SongState
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.separation.stage import plan_of
from heartvoice.stages.speaker import check_speech_samples

_MARKS = 32
"""More than the ids that a prompt has beside those of its texts: their begins and ends, `<tag>`, `</tag>`, a slot."""


class SongAdmission:
    """Refuses a song at once that would fail when its turn comes, minutes later. Safe in all threads."""

    def __init__(self, preset: Preset, tokenizer_path: Path) -> None:
        """Keep what the language model keeps; the tokenizer is loaded for the first song that needs it.

        Raises:
            CheckpointError: the vocabulary is closed, and the tokenizer's file is missing or damaged.
        """
        self._preset, self._path = preset, tokenizer_path
        self.vocabulary = LyricVocabulary.open(tokenizer_path, preset.ids)
        self._tokenizer: Tokenizer | None = None
        self._lock = threading.Lock()

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Check the codes or the prompt of inputs that `contracts.validation` accepts.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        if "codes" in inputs:
            check_codes(inputs["codes"], self._preset.codec.codebook_size, MAX_FRAMES)
            return
        request = LmRequest.from_inputs(inputs, self._preset)
        if self.vocabulary is not None:
            self.vocabulary.check(request.lyrics, request.unknown_words)
        if self._is_short(request):
            return
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = load_tokenizer(self._path)
        SongState(request, self._tokenizer, self._preset)

    def _is_short(self, request: LmRequest) -> bool:
        """True if the song fits even with a token for each byte of its texts, as tokenizers of bytes have at most."""
        n_bytes = len((request.lyrics + request.tags).lower().encode())
        return n_bytes + _MARKS + request.n_frames <= self._preset.max_positions


def check_job(model: str, inputs: Mapping[str, Array], repository: Repository) -> None:
    """Check a request as its model does before a network runs; its files are decoded.

    Args:
        model: `song`, `cover`, `demucs` or `speaker_encoder`.
        inputs: tensors that `contracts.validation` accepts.
        repository: whose preset limits the request.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    _READERS[model](inputs, repository)


def _check_song(inputs: Mapping[str, Array], repository: Repository) -> None:
    admission = SongAdmission(repository.preset, repository.tokenizer)
    admission.check(inputs)
    SongRequest.from_inputs(inputs, repository.preset, admission.vocabulary)


def _check_stems(inputs: Mapping[str, Array], repository: Repository) -> None:
    sizes = repository.preset.separator
    SeparationRequest.from_inputs(inputs, sizes).check(sizes, plan_of(sizes))


def _check_speech(inputs: Mapping[str, Array], repository: Repository) -> None:
    recording = read_recording(inputs, RecordingInputs(limits_s=SPEECH_LIMITS_S))
    audio = resample(recording.mono(), recording.sample_rate_hz, SPEECH_RATE_HZ)
    check_speech_samples(audio, repository.preset.speaker)


_READERS: dict[str, Callable[[Mapping[str, Array], Repository], object]] = {
    SONG.name: _check_song,
    COVER.name: lambda inputs, _: CoverRequest.from_inputs(inputs),
    DEMUCS.name: _check_stems,
    SPEAKER_ENCODER.name: _check_speech,
}
