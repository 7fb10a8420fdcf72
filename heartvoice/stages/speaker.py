"""The speaker encoder as a stage: it embeds a recording of a voice as a vector.

The preset's sizes choose the engine:

* Resemblyzer: trimmed pauses, one level, mel power of overlapping partials of 1.6 s, mean of their vectors.
* CAMPPlus: one level, log filter bank minus its mean over time, the whole utterance at once.
* ECAPA-TDNN: one level, another log filter bank minus its mean over time, the whole utterance at once.
* WavLM: one level, the samples themselves, in parts of at most 10 s.

The level is that of the voice: gain, offset and pauses do not move a vector. Resemblyzer's package only raises levels,
to -30 dBFS, and its vector of a voice at -20 dBFS has a cosine of about 0.9 to that of the same voice 20 dB softer.
With one level the halves of 21 recordings are told from different ones no worse (benchmarks/references.py).

Source: export baselines, section 2; seed_vc spec, section 8; speaker_encoders spec, sections 1 and 3.

Resemblyzer's package trims pauses with WebRTC's voice detector. A threshold between noise floor and voice does as well:
for 72 recordings of six synthetic voices with pauses of 0.3 to 3 s and noise down to 25 dB below the voice, the cosine
to the package's vector is at least 0.996 (mean 0.998). Without trimming it falls to 0.80.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import Samples, frames, kaldi_fbank, mel_filter_bank, stft
from heartvoice.audio.levels import SILENCE_DBFS, block_levels
from heartvoice.config.presets import AnySpeaker, CampplusConfig, EcapaConfig, SpeakerConfig, WavlmConfig
from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.contracts.graphs import SVC_STYLE
from heartvoice.contracts.models import SPEAKER_NETWORK
from heartvoice.contracts.tensors import MAX_BANK_FRAMES, SPEAKER_FRAME
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.runtime.networks import Networks, run_finite
from heartvoice.stages.ecapa_features import ecapa_features

MIN_SAMPLES = 1600
"""0.1 s. A shorter recording has too few frames for any engine; WavLM needs more."""
HOP = 160
"""Samples between two frames, of all engines."""

MEL_FFT = 400
PARTIAL_FRAMES = 160
PARTIAL_STEP = 77
"""Frames between the starts of partials: the package's default of 1.3 a second."""
MIN_COVERAGE = 0.75
"""The last partial is dropped if less of it than this lies in the recording, unless it is the only one."""
RESEMBLYZER_DBFS = -30.0
"""Level of the voice that Resemblyzer hears: the one to which its package raises softer ones."""
WHOLE_DBFS = -20.0
"""Level of the voice that the others hear: that of most recordings, because their filter banks have a floor."""
BATCH = 16
"""Partials of one call. Bounds memory, whatever the length of the recording."""

STYLE_SAMPLES = 25 * SPEECH_RATE_HZ
"""Longest utterance of one call of the converter's style encoder, CAMPPlus too."""
PIECE_FRAMES = MAX_BANK_FRAMES
"""Longest utterance of one call of CAMPPlus or ECAPA. A longer one is split into equal parts."""
WAVLM_SAMPLES = SPEAKER_FRAME.max
"""Longest utterance of one call of WavLM, 10 s: its attention grows with the square of it."""

_WINDOW = 480
"""Samples of one decision about a pause, 30 ms."""
_SMOOTH = 8
"""Windows over which decisions are averaged."""
_KEEP_AROUND = 3
"""Windows kept on either side of voice."""
_FLOOR_PERCENTILE, _VOICE_PERCENTILE = 10, 95
_ABOVE_FLOOR_DB, _MOST_BELOW_DB, _LEAST_BELOW_DB = 6.0, 40.0, 20.0
_MEL_BLOCK = 2000

Floats = NDArray[np.float32]


class SpeakerStage:
    """Embeds recordings with one network. Holds no state of any recording."""

    def __init__(self, networks: Networks, sizes: AnySpeaker, *, network: str = SPEAKER_NETWORK.name) -> None:
        """Take the networks.

        Args:
            networks: hold `network`.
            sizes: of the encoder.
            network: its name, `SPEAKER_NETWORK` or `SVC_STYLE`.
        """
        self._networks, self._sizes, self._network = networks, sizes, network

    def embed(self, audio: Samples) -> Floats:
        """Embed the voice in a recording.

        Args:
            audio: float32 [N], mono at 16 kHz.

        Returns:
            float32 [D] of length 1, so that the dot product of two vectors is their cosine.

        Raises:
            InvalidRequestError: the audio is silent, too short or not finite.
            RequestCancelledError: the job was cancelled.
        """
        vector = self.embed_raw(audio)
        norm = float(np.linalg.norm(vector))
        if not np.isfinite(norm) or norm == 0.0:
            raise EngineError(f"{self._network}: returned a vector of length {norm:g}")
        return vector / np.float32(norm)

    def embed_raw(self, audio: Samples) -> Floats:
        """The vector before normalisation; arguments as for `embed`. The converter uses that of CAMPPlus."""
        check_speech_samples(audio, self._sizes)
        voice = trim_pauses(audio)
        most = STYLE_SAMPLES if self._network == SVC_STYLE.name else PIECE_FRAMES * HOP
        rows = [self._run(batch) for batch in speaker_batches(audio, voice, self._sizes, most)]
        mean: Floats = np.concatenate(rows).mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean

    def _run(self, features: Floats) -> Floats:
        embedding = run_finite(self._networks, self._network, {"features": features})["embedding"]
        return embedding.astype(np.float32, copy=False)


def check_speech_samples(audio: Samples, sizes: AnySpeaker) -> None:
    """Check a recording that shall be embedded.

    Raises:
        InvalidRequestError: it is silent, too short or not finite.
    """
    least = sizes.least_samples if isinstance(sizes, WavlmConfig) else MIN_SAMPLES
    if audio.ndim != 1 or len(audio) < least:
        raise InvalidRequestError(
            f"audio: expected [N] with at least {least} samples at {SPEECH_RATE_HZ} Hz, got {list(audio.shape)}"
        )
    if not np.isfinite(audio).all():
        raise InvalidRequestError("audio: expected finite values, got NaN or Inf")
    loudest = float(block_levels(audio, _WINDOW).max())
    if loudest < SILENCE_DBFS:
        raise InvalidRequestError(
            f"audio: expected a voice above {SILENCE_DBFS:g} dBFS, got {loudest:.1f} dBFS: silence"
        )


def speaker_batches(
    audio: Samples, voice: Samples, sizes: AnySpeaker, most: int = PIECE_FRAMES * HOP
) -> Iterator[Floats]:
    """Compute the network's inputs for a recording, float32 [B, T, bands] of each call.

    Args:
        audio: float32 [N], mono at 16 kHz.
        voice: float32 [M], the audio without its pauses.
        sizes: they name the engine.
        most: samples of CAMPPlus' longest utterance.
    """
    match sizes:
        case SpeakerConfig():
            yield from partial_batches(to_level(voice, voice, RESEMBLYZER_DBFS), sizes)
        case CampplusConfig():
            whole = to_level(audio, voice, WHOLE_DBFS)
            yield from (features[None] for features in campplus_features(whole, sizes.n_bands, most))
        case EcapaConfig():
            for part in _parts(to_level(audio, voice, WHOLE_DBFS), PIECE_FRAMES * HOP - 1):
                yield ecapa_features(part, sizes.n_bands)[None]
        case WavlmConfig():
            for part in _parts(to_level(audio, voice, WHOLE_DBFS), WAVLM_SAMPLES):
                yield wavlm_features(part, sizes)[None]


def wavlm_features(audio: Samples, sizes: WavlmConfig) -> Floats:
    """Samples as WavLM hears them, float32 [N, 1]: with mean 0 and variance 1 if its configuration says so."""
    if sizes.do_normalize:
        mean, variance = audio.mean(dtype=np.float64), audio.var(dtype=np.float64)
        audio = ((audio - mean) / np.sqrt(variance + 1e-7)).astype(np.float32)
    return audio[:, None]


def _parts(audio: Samples, most: int) -> list[Samples]:
    """Split a recording into the fewest equal parts of at most `most` samples."""
    return np.array_split(audio, -(-len(audio) // most))


# -------------------------------------------------------------------------------------------------------------- levels


def to_level(audio: Samples, voice: Samples, level_dbfs: float) -> Samples:
    """Bring a recording to the level at which its voice has `level_dbfs`, without its offset.

    Args:
        audio: float32 [N].
        voice: float32 [M], the audio without its pauses; not silent.
        level_dbfs: RMS.
    """
    offset = voice.mean(dtype=np.float64)
    power = float(np.mean(np.square(voice - offset)))
    gain = 10 ** (level_dbfs / 20) / np.sqrt(power)
    made: Samples = ((audio - offset) * gain).astype(np.float32)
    return made


def trim_pauses(audio: Samples) -> Samples:
    """Cut pauses: windows near the noise floor and well below the voice, without their edges. See the module."""
    levels = block_levels(audio, _WINDOW)
    floor, voice = np.percentile(levels, [_FLOOR_PERCENTILE, _VOICE_PERCENTILE])
    threshold = np.clip(floor + _ABOVE_FLOOR_DB, voice - _MOST_BELOW_DB, voice - _LEAST_BELOW_DB)
    padded = np.pad((levels > threshold).astype(np.float64), ((_SMOOTH - 1) // 2, _SMOOTH // 2))
    voiced = np.convolve(padded, np.full(_SMOOTH, 1 / _SMOOTH), "valid") > 0.5
    kept = np.convolve(voiced, np.ones(2 * _KEEP_AROUND + 1), "full")[_KEEP_AROUND : _KEEP_AROUND + len(voiced)] > 0
    if not kept.any():  # a voice shorter than the average's window
        return audio
    trimmed: Samples = frames(audio, _WINDOW, _WINDOW)[kept].reshape(-1)
    return trimmed


# --------------------------------------------------------------------------------------------------------- Resemblyzer


def partial_starts(n_samples: int) -> list[int]:
    """First frames of the partial utterances of a recording. There is at least one."""
    n_frames = -(-(n_samples + 1) // HOP)
    starts = list(range(0, max(1, n_frames - PARTIAL_FRAMES + PARTIAL_STEP + 1), PARTIAL_STEP))
    covered = (n_samples - starts[-1] * HOP) / (PARTIAL_FRAMES * HOP)
    return starts[:-1] if covered < MIN_COVERAGE and len(starts) > 1 else starts


def partial_batches(audio: Samples, sizes: SpeakerConfig) -> Iterator[Floats]:
    """Mel power of overlapping partial utterances, float32 [at most BATCH, 160, bands] at a time.

    Zeros follow a recording that ends within its last partial.
    """
    starts = partial_starts(len(audio))
    needed = (starts[-1] + PARTIAL_FRAMES) * HOP
    mel = mel_power(np.pad(audio, (0, max(0, needed - len(audio)))), sizes.n_bands)
    for first in range(0, len(starts), BATCH):
        yield np.stack([mel[start : start + PARTIAL_FRAMES] for start in starts[first : first + BATCH]])


def mel_power(audio: Samples, n_bands: int) -> Floats:
    """Mel power [1 + N // 160, bands] of frames of 25 ms, the first and last centred on the recording's ends."""
    bank = _mel_bank(n_bands)
    padded = np.pad(audio, MEL_FFT // 2)
    n_frames = 1 + len(audio) // HOP
    mel = np.empty((n_frames, n_bands), np.float32)
    for start in range(0, n_frames, _MEL_BLOCK):
        end = min(start + _MEL_BLOCK, n_frames)
        spectrum = stft(padded[start * HOP : (end - 1) * HOP + MEL_FFT], MEL_FFT, HOP)
        mel[start:end] = (np.square(spectrum.real) + np.square(spectrum.imag)) @ bank
    return mel


@lru_cache(maxsize=4)
def _mel_bank(n_bands: int) -> NDArray[np.float64]:
    return mel_filter_bank(SPEECH_RATE_HZ, MEL_FFT, n_bands, 0.0, SPEECH_RATE_HZ / 2, scale="slaney").T


# ------------------------------------------------------------------------------------------------------------ CAMPPlus


def campplus_features(audio: Samples, n_bands: int, most: int = PIECE_FRAMES * HOP) -> Iterator[Floats]:
    """Log filter bank of a recording minus its mean over time: float32 [T, bands] for each part.

    A recording of up to `most` samples is one part. Only full frames count, so that up to 25 ms at the end are not
    used.
    """
    for part in _parts(audio, most):
        features = kaldi_fbank(part, SPEECH_RATE_HZ, n_bands)
        yield features - features.mean(axis=0, dtype=np.float64).astype(np.float32)
