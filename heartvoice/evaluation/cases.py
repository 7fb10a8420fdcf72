"""Finds evaluation cases in a folder of recordings; a file's name gives its role.

A case is a cover, with voice, source and result; or a song, a result with its lyrics.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from heartvoice.audio.decode import decode
from heartvoice.audio.recordings import Recording
from heartvoice.contracts.constants import MAX_LOCAL_FILE_BYTES, MAX_RECORDING_S, MAX_TEXT_BYTES
from heartvoice.contracts.field_checks import check_text
from heartvoice.errors import InvalidRequestError

REPORT, LYRICS = "report.json", "lyrics.txt"
RESULTS = "evaluation.json"
OUTPUT = "evaluation"
"""Default folder of the results; a folder that contains `RESULTS` is no case."""
REQUIRED = {
    "voice": "the reference: the voice that shall sing",
    "source": "the singing before: a recording, or vocals alone",
    "result": "the singing after",
}
OPTIONAL = {
    "vocals_before": "vocals of the source: judged in its place",
    "vocals_after": "vocals of the result: judged in its place",
    "instrumental": "what is left of the source without its vocals",
    "true_vocals": "the vocals that the source was mixed from",
    "true_instrumental": "the rest that it was mixed from",
}
SUFFIXES = (".wav", ".aif", ".aiff", ".flac", ".ogg", ".oga", ".opus", ".mp3")
_KNOWN = ", ".join((*(f"{role}.*" for role in (*REQUIRED, *OPTIONAL)), LYRICS, REPORT))
_OF_SOURCE = ("vocals_before", "instrumental", "true_vocals", "true_instrumental")


@dataclass(frozen=True)
class Case:
    """Files of one cover or song to be evaluated."""

    name: str
    files: dict[str, Path]
    """Files by role; all required roles are present, but of a case with lyrics only `result`."""
    random_weights: bool | None
    """True if the system that made the cover has random weights; None if unknown."""
    lyrics: str | None = None

    def read(self, role: str) -> Recording:
        """Decode one file, up to `MAX_RECORDING_S`.

        Raises:
            InvalidRequestError: the file is no sound, or too long; the message names it.
        """
        return read_sound(self.files[role])


def read_sound(path: Path) -> Recording:
    """Decode a file, up to `MAX_RECORDING_S`.

    Raises:
        InvalidRequestError: the file is no sound, or too long; the message names it.
    """
    sound = decode(path.read_bytes(), field=str(path), max_s=MAX_RECORDING_S, max_bytes=MAX_LOCAL_FILE_BYTES)
    return Recording(sound.audio, sound.sample_rate_hz, sound.warnings)


def find_cases(folder: Path, *, random_weights: bool | None = None) -> list[Case]:
    """Find the case in a folder, or the cases in its sub-folders, sorted by name.

    Args:
        folder: contains the files of one case, or one folder per case.
        random_weights: applies if a case's report does not state random weights.

    Raises:
        InvalidRequestError: a file is missing, unknown or duplicated; the message names it.
    """
    if not folder.is_dir():
        raise InvalidRequestError(f"{folder}: expected a folder, got {'a file' if folder.exists() else 'nothing'}")
    if visible_files(folder):
        return [_case(folder, random_weights)]
    folders = [
        path
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".") and path.name != OUTPUT and not (path / RESULTS).exists()
    ]
    if not folders:
        raise InvalidRequestError(
            f"{folder}: expected a case or folders of cases, got an empty folder; files: {_KNOWN}"
        )
    return [_case(path, random_weights) for path in folders]


def visible_files(folder: Path) -> list[Path]:
    """Return a folder's files but hidden ones, sorted by name."""
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]


def _case(folder: Path, random_weights: bool | None) -> Case:
    files: dict[str, Path] = {}
    said, lyrics = random_weights, None
    for path in visible_files(folder):
        if path.name == LYRICS:
            lyrics = _read_lyrics(path)
            continue
        if path.name == REPORT:
            said = _says_random(path) or bool(random_weights)
            continue
        role = path.stem
        if role not in REQUIRED and role not in OPTIONAL:
            raise InvalidRequestError(f"{path}: unknown, expected one of {_KNOWN}")
        if path.suffix.lower() not in SUFFIXES:
            raise InvalidRequestError(f"{path}: expected a name ending in {', '.join(SUFFIXES)}")
        if role in files:
            raise InvalidRequestError(f"{path}: ambiguous, {files[role].name} is there too; keep one of them")
        files[role] = path
    _check_roles(folder, files, with_lyrics=lyrics is not None)
    return Case(folder.resolve().name, files, said, lyrics)


def _check_roles(folder: Path, files: dict[str, Path], *, with_lyrics: bool) -> None:
    """Refuse a case that lacks what it needs: a song its result, a cover all three, parts of a source the source."""
    needed = ["result"] if with_lyrics else list(REQUIRED)
    if with_lyrics and any(role in files for role in _OF_SOURCE):
        needed.append("source")
    missing = [f"{role}.* ({REQUIRED[role]})" for role in needed if role not in files]
    if missing:
        of_its_own = "" if with_lyrics else f"; a song with its {LYRICS} needs result.* alone"
        raise InvalidRequestError(f"{folder}: missing {', '.join(missing)}{of_its_own}")


def _read_lyrics(path: Path) -> str:
    """Read lyrics within the limits of a request."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise InvalidRequestError(f"{path}: expected at most {MAX_TEXT_BYTES} bytes, got {path.stat().st_size}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{path}: expected UTF-8 text: {error}") from error
    check_text(str(path), text)
    return text


def _says_random(path: Path) -> bool:
    """Read `random_weights` from a job's report, or from the --json output of a command."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        raise InvalidRequestError(f"{path}: expected a job's report, got no JSON: {error}") from error
    random = report.get("random_weights") if isinstance(report, dict) else None
    if not isinstance(random, bool):
        raise InvalidRequestError(f"{path}: expected a job's report with random_weights true or false, got {random!r}")
    return random
