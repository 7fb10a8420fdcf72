"""Measures a trained codec on held-out songs, against the renderer that made them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from heartvoice import keyed_random
from heartvoice.audio.dsp import resample
from heartvoice.contracts.constants import F0_RATE_HZ, SAMPLE_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.evaluation.lyrics import LyricJudge
from heartvoice.evaluation.measures import log_mel_db, mel_distance_db, pitch_kept, si_sdr_db
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.heartcodec.scalar import quantize
from heartvoice.stages.f0 import F0Stage
from train.demo import layout
from train.demo.crops import Renderer, Samples, mix, only
from train.demo.harmony import singer_hz
from train.demo.score import Codes, Score
from train.demo.score_encoder import ScoreEncoder, stereo_targets

BARS: dict[str, float] = {"oracle_si_sdr_db": 18.0, "flow_si_sdr_db": 16.0, "f0_within_50": 0.97}
"""Least means over the songs."""


@dataclass(frozen=True)
class FlowSettings:
    """How codes become latents."""

    steps: int = 4
    guidance: float = 1.0
    window: int = 93
    seed: int = 0


@dataclass(frozen=True)
class Judges:
    """Pitch and words; None leaves a measure out."""

    f0: F0Stage | None = None
    lyrics: LyricJudge | None = None


@dataclass(frozen=True)
class CodecFigures:
    """One song. `oracle` starts from the score encoder's latents, `flow` from codes."""

    song: int
    tags: str
    seconds: float
    oracle_si_sdr_db: float | None
    flow_si_sdr_db: float | None
    oracle_mel_db: float | None
    """Mean distance of mel spectra."""
    flow_mel_db: float | None
    latents_rmse: float
    """Of the flow against the score encoder."""
    vocal_si_sdr_db: float | None
    """The voice alone, through the flow."""
    f0_within_50: float | None
    """Share of the frames in which the rendered voice has the score's pitch, and the decoded voice has it too."""
    f0_cents: float | None
    """Median distance of the decoded voice from the score's pitch."""
    lyric_error: float | None
    """Of the decoded voice."""
    rendered_lyric_error: float | None
    heard: dict[str, str] = field(default_factory=dict)


def evaluate(
    codec: HeartCodec, encoder: ScoreEncoder, renderer: Renderer, songs: Iterable[tuple[int, Score]],
    settings: FlowSettings, judges: Judges,
) -> list[CodecFigures]:  # fmt: skip
    """Measure every song."""
    return [_measured(_Decoders(codec, encoder, settings), renderer, song, judges) for song in songs]


def summary(figures: Sequence[CodecFigures]) -> dict[str, float]:
    """Return the mean of each measure over the songs that have it."""
    rows = [asdict(each) for each in figures]
    names = [name for name, value in rows[0].items() if name not in ("song", "tags", "heard", "seconds")]
    found = {name: [row[name] for row in rows if row[name] is not None] for name in names}
    return {name: round(float(np.mean(values)), 4) for name, values in found.items() if values}


def missed(means: Mapping[str, float]) -> list[str]:
    """Return the names of the bars that are not reached or not measured."""
    return [name for name, bar in BARS.items() if name not in means or means[name] < bar]


class _Decoders:
    """Both ways from codes to samples."""

    def __init__(self, codec: HeartCodec, encoder: ScoreEncoder, settings: FlowSettings) -> None:
        self._codec, self._encoder, self._settings = codec, encoder, settings

    @torch.inference_mode()
    def oracle_latents(self, codes: Codes) -> torch.Tensor:
        return stereo_targets(self._encoder, torch.from_numpy(codes)[None])

    def oracle(self, codes: Codes) -> Samples:
        return self._codec.decode_latents(self.oracle_latents(codes))

    def flow(self, codes: Codes) -> Samples:
        settings = self._settings
        shape = (1, 2 * settings.window, self._codec.sizes.out_channels)
        return self._codec.detokenize(
            codes, lambda index: keyed_random.normal(settings.seed, "codec", index, shape),
            window=settings.window, steps=settings.steps, guidance=settings.guidance,
        )  # fmt: skip

    @torch.inference_mode()
    def latents_error(self, codes: Codes) -> float:
        """Root of the mean squared error of the flow's latents over the first window."""
        codes = codes[:, : self._settings.window]
        wanted = self.oracle_latents(codes)
        noise = torch.from_numpy(keyed_random.normal(self._settings.seed, "codec", 0, tuple(wanted.shape)))
        found = self._codec.flow_matching.inference_codes(
            torch.from_numpy(codes)[None], torch.zeros_like(noise), noise, latent_length=wanted.shape[1],
            steps=self._settings.steps, guidance=self._settings.guidance,
        )  # fmt: skip
        return float((quantize(found) - wanted).square().mean().sqrt())


def _measured(decoders: _Decoders, renderer: Renderer, song: tuple[int, Score], judges: Judges) -> CodecFigures:
    number, score = song
    codes = score.codes
    stems = renderer.stems(codes)
    rendered, vocal = mix(stems), np.ascontiguousarray(stems["voice"], np.float32)
    oracle, flow, decoded_vocal = decoders.oracle(codes), decoders.flow(codes), decoders.flow(only(codes, "voice"))
    within, cents = _pitch(judges.f0, score, vocal, decoded_vocal)
    decoded_error, rendered_error, heard = _words(judges.lyrics, score, vocal, decoded_vocal)
    return CodecFigures(
        song=number, tags=score.tags.text, seconds=round(score.seconds, 2),
        oracle_si_sdr_db=si_sdr_db(oracle, rendered), flow_si_sdr_db=si_sdr_db(flow, rendered),
        oracle_mel_db=_mel(oracle, rendered), flow_mel_db=_mel(flow, rendered),
        latents_rmse=decoders.latents_error(codes), vocal_si_sdr_db=si_sdr_db(decoded_vocal, vocal),
        f0_within_50=within, f0_cents=cents, lyric_error=decoded_error, rendered_lyric_error=rendered_error,
        heard=heard,
    )  # fmt: skip


def _mel(decoded: Samples, rendered: Samples) -> float | None:
    mels = [log_mel_db(resample(audio.mean(0), SAMPLE_RATE_HZ, STEM_RATE_HZ)) for audio in (decoded, rendered)]
    return mel_distance_db(*mels)


def _speech(audio: Samples) -> Samples:
    return resample(audio.mean(0), SAMPLE_RATE_HZ, SPEECH_RATE_HZ)


def score_pitch(codes: Codes, n_values: int) -> NDArray[np.float64]:
    """Return the score's pitch in Hz at 100 values a second, [n_values]; 0 where nobody sings."""
    frames = np.minimum((np.arange(n_values) * layout.FRAME_HZ / F0_RATE_HZ).astype(int), codes.shape[1] - 1)
    notes = [layout.read_note(int(code)) for code in codes[layout.NOTE]]
    hz = [0.0 if note is None else singer_hz(note.singer, note.pitch) for note in notes]
    return np.array([hz[frame] for frame in frames])


def _pitch(f0: F0Stage | None, score: Score, rendered: Samples, decoded: Samples) -> tuple[float | None, float | None]:
    if f0 is None:
        return None, None
    contours = [f0.track(_speech(audio)) for audio in (rendered, decoded)]
    return pitch_kept(score_pitch(score.codes, len(contours[0])), *contours)


def _words(
    judge: LyricJudge | None, score: Score, rendered: Samples, decoded: Samples
) -> tuple[float | None, float | None, dict[str, str]]:
    if judge is None:
        return None, None, {}
    errors = judge.judge(score.lyrics, {"decoded": _speech(decoded), "rendered": _speech(rendered)}).errors
    heard = {side: each.heard for side, each in errors.items()}
    return errors["decoded"].error, errors["rendered"].error, heard
