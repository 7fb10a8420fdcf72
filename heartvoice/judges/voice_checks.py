"""Opens the checks of an enrolment over published networks, which are fetched on first use."""

from __future__ import annotations

from pathlib import Path

from heartvoice.checkpoints import official
from heartvoice.checkpoints.file_hash import sha256
from heartvoice.errors import ExportError, ModelUnavailableError
from heartvoice.evaluation.judges import CAMPPLUS, RESEMBLYZER, SWIFT_F0
from heartvoice.evaluation.lyrics import LyricJudge
from heartvoice.evaluation.voice_checks import VoiceChecks
from heartvoice.export import wheel_files
from heartvoice.judges.opening import open_lyric_judge, open_speakers, open_swift_f0, open_tiny_en
from heartvoice.runtime.engines import OnnxEngine
from heartvoice.watermark import read_key

_VAD, _WHISPER = "silero-vad", "whisper"


def open_voice_checks(
    locale: str,
    *,
    weights: Path | None = None,
    lyric_model: Path | None = None,
    watermark_key: Path | None = None,
    allow_marked: bool = False,
) -> VoiceChecks:
    """Open the checks; what two judges or Whisper are missing for is left to the operator.

    Args:
        locale: of the consent.
        weights: folder of `weights pull`, for CAMPPlus.
        lyric_model: folder of a Whisper in CTranslate2's format; None is tiny.en, which hears English alone.
        watermark_key: whose mark is looked for; None looks for none.
        allow_marked: leave recordings with the mark to the operator, in place of refusing them.

    Raises:
        InvalidRequestError: the watermark's key cannot be read.
        CheckpointError: a file is damaged or has other content.
        ModelUnavailableError: what every enrolment needs cannot be had.
    """
    mark_key = None if watermark_key is None else read_key(watermark_key)
    missing: dict[str, str] = {}
    judge = _whisper(locale, lyric_model, missing)
    speakers = open_speakers(weights, missing)
    f0 = open_swift_f0(missing)
    if f0 is None or RESEMBLYZER not in speakers:
        raise ModelUnavailableError("; ".join(missing[name] for name in (RESEMBLYZER, SWIFT_F0) if name in missing))
    try:
        speech = OnnxEngine(wheel_files.member(_VAD), threads=1)
    except ExportError as error:
        raise ModelUnavailableError(str(error)) from error
    origins = {name: wheel_files.MEMBERS[name].sha256 for name in (_VAD, RESEMBLYZER)}
    if CAMPPLUS in speakers:
        origins[CAMPPLUS] = sha256((weights or Path("weights")) / official.CAMPPLUS)
    if judge is not None:
        origins[_WHISPER] = judge.origin.sha256
    transcriber = None if judge is None else judge.transcriber
    return VoiceChecks(speech, f0, speakers, transcriber, origins, missing, mark_key, allow_marked)


def _whisper(locale: str, lyric_model: Path | None, missing: dict[str, str]) -> LyricJudge | None:
    if lyric_model is not None:
        return open_lyric_judge(lyric_model)
    if locale != "en":
        missing[_WHISPER] = (
            f"tiny.en does not hear {locale!r}: heartvoice weights pull --only faster-whisper-small, then "
            "--lyric-model weights/faster-whisper-small"
        )
        return None
    try:
        return open_tiny_en()
    except ExportError as error:
        missing[_WHISPER] = str(error)
        return None
