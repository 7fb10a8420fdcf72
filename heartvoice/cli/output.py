"""Writes a streamed song or cover to files and prints its summary."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from heartvoice.audio.encode import AudioFile
from heartvoice.cli.option_names import by_option
from heartvoice.cli.progress import progress_view
from heartvoice.cli.terminal import escape_controls
from heartvoice.client.messages import Event, Report
from heartvoice.client.recordings import Recording
from heartvoice.client.signed_files import check_signed
from heartvoice.client.song_files import SongFiles, SongWriter
from heartvoice.contracts.claims import NO_SOURCE, sidecar_path
from heartvoice.contracts.network_names import SMALL_WORLD, describe

if TYPE_CHECKING:
    from heartvoice.client.messages import Message


@dataclass(frozen=True)
class Delivered:
    """A finished song or cover on disk."""

    report: Report
    timings: dict[str, Any]
    files: SongFiles
    unsigned: str = ""
    """Why nothing signs the files; "" if something does."""


def write_song(
    stream: Generator[Message, None, None], files: SongWriter, *, recording: Recording | None = None, unsigned: str = ""
) -> Delivered:
    """Stream a song into its files with a progress display; a failure leaves no file.

    Args:
        stream: the messages; always closed, which cancels an unfinished job.
        files: the output files; committed at the end.
        recording: of a cover.
        unsigned: why nothing signs the files.
    """
    from heartvoice.client.collect import SongCollector

    # The bars are the innermost context, so that they are removed before an error is printed.
    with closing(stream), progress_view(Console(stderr=True)) as view:
        collector = SongCollector()
        for message in stream:
            collector.add(message, keep_audio=False)
            files.take(message)
            if isinstance(message, Event):
                view.show(message)
        report, timings = collector.finish()
        source = NO_SOURCE if recording is None else recording.source
        return Delivered(report, timings, files.commit(report, collector.codes, source), unsigned)


def print_summary(made: Delivered, *, as_json: bool, told: Collection[str] = ()) -> None:
    """Print the summary on standard output; with JSON, print JSON there and the summary on stderr.

    Warnings that the caller was `told` before the job are not in the summary.

    Raises:
        SigningError: at last, if a file was written without the signature that it was to have.
    """
    if as_json:
        print(json.dumps(result(made)))
    print_lines(summary(made, told), Console(stderr=as_json))
    check_signed(made.files.all)


def print_lines(lines: Iterable[str], console: Console) -> None:
    """Print the lines with terminal control characters escaped."""
    for line in lines:
        console.print(escape_controls(line), markup=False, highlight=False, soft_wrap=True)


def file_facts(file: AudioFile) -> dict[str, Any]:
    """Return the facts of a written file for JSON."""
    return {
        "file": str(file.path),
        "format": file.format,
        "duration_s": file.n_samples / file.sample_rate_hz,
        "sample_rate_hz": file.sample_rate_hz,
        "peak": file.peak,
        "gain_db": file.gain_db,
        "comment": file.comment,
        "signed": file.signed,
    }


def stem_facts(stem: AudioFile, song: AudioFile) -> dict[str, Any]:
    """Return the facts of a song's stem for JSON; with `gain_to_song_db` undone, the stems add up to the song."""
    return {**file_facts(stem), "gain_to_song_db": stem.gain_db - song.gain_db}


def result(made: Delivered) -> dict[str, Any]:
    """Return the result for --json; None for parts that were not requested."""
    report, files = made.report, made.files
    return {
        **file_facts(files.audio),
        "codes_file": str(files.codes_path) if files.codes_path else None,
        "stems": {name: stem_facts(stem, files.audio) for name, stem in files.stems.items()} or None,
        "seed": report.seed,
        "preset": report.preset,
        "random_weights": report.random_weights,
        "converted": report.converted,
        "warnings": list(report.warnings),
        "unsigned_because": why_unsigned(files.all, made.unsigned),
        "timings": made.timings,
        "report": dict(report.raw),
    }


def summary(made: Delivered, told: Collection[str] = ()) -> list[str]:
    """Return the lines of the summary, the most important last, without the warnings that were `told` before."""
    report, timings, files = made.report, made.timings, made.files
    file = files.audio
    duration_s = file.n_samples / file.sample_rate_hz
    lines = [
        f"{file.path}: {duration_s:.1f} s, seed {report.seed}, preset {report.preset}",
        speed_line(duration_s, timings),
        *_voice_lines(report),
    ]
    if file.gain_db:
        lines.append(f"turned down by {-file.gain_db:.1f} dB, since its peak was {file.peak:.2f}")
    if files.codes_path:
        lines.append(f"codes: {files.codes_path}")
    lines += [f"{name}: {stem.path}" for name, stem in files.stems.items()]
    lines += _stem_gain_lines(files)
    lines += signature_lines(file, made.unsigned)
    lines += [f"warning: {by_option(warning)}" for warning in report.warnings if warning not in told]
    if report.converted is False:
        what = "recording as it was" if report.recorded else "song as it was written"
        lines.append(f"NOT CONVERTED: no vocals were found, so this is the {what}; see --no-vocals")
    lines += sorted({origin for origin in report.networks.values() if origin.endswith(SMALL_WORLD)})
    if report.random_weights:
        lines += random_weights_lines(report.networks, "this is noise, not music")
    return lines


def why_unsigned(files: Iterable[AudioFile], unsigned: str) -> str | None:
    """Return why files are not signed: nothing signs them, or the signature failed; None if they are."""
    return unsigned or next((file.not_signed for file in files if file.not_signed), None)


def signature_lines(file: AudioFile, unsigned: str) -> list[str]:
    """Return a line that says whether a file is signed, and if not, why; a failure is an error of its own."""
    if file.not_signed:
        return []
    if file.signed:
        beside = f", with its manifest beside it: {sidecar_path(file.path)}" if file.format == "ogg" else ""
        return [f"signed{beside}; `heartvoice verify` checks it"]
    return [f"not signed: {unsigned}"]


def random_weights_lines(networks: Mapping[str, str], meaning: str) -> list[str]:
    """Return lines on a server with random weights, part by part where some of them are real.

    Args:
        networks: the origin of the weights by network, of a report.
        meaning: of the result.
    """
    lines, real = [], describe(networks, random=False)
    if real:
        lines = [f"real weights: {real}", f"random weights: {describe(networks, random=True)}"]
    return [*lines, f"the server's weights are RANDOM: {meaning}; see `heartvoice export --help`"]


def _stem_gain_lines(files: SongFiles) -> list[str]:
    """Return a line with the stems' gain against the song, if they have one."""
    gains = {stem.gain_db for stem in files.stems.values()}  # one for all
    if not gains or min(gains) == files.audio.gain_db:
        return []
    against = files.audio.gain_db - min(gains)
    peak = max(stem.peak for stem in files.stems.values())
    return [
        f"stems turned down by {against:.1f} dB against the song, since their loudest peak was {peak:.2f}; "
        f"raised by that, they add up to it"
    ]


def speed_line(duration_s: float, timings: dict[str, Any]) -> str:
    """Return a line with the elapsed time."""
    total_s = timings["total_s"]
    speed = duration_s / total_s
    return f"first audio after {timings['ttfa_s']:.1f} s, all after {total_s:.1f} s, {speed:.1f}x real time"


def threshold_range(encoder: str) -> str:
    """Return a remark on the cosines at which a judge's errors are equal; empty if nothing was measured of it."""
    from heartvoice.stages.calibration import CALIBRATIONS

    if encoder not in CALIBRATIONS:
        return ""
    found = [made.threshold for made in CALIBRATIONS[encoder].equal_errors]
    return f"; one voice from {min(found):.2f} sung, {max(found):.2f} recorded"


def _voice_lines(report: Report) -> list[str]:
    """Return the report's known facts about the voice."""
    lines = []
    similarity, f0 = report.similarity, report.f0
    before, after = _number(similarity.get("before")), _number(similarity.get("after"))
    if before is not None and after is not None:
        encoder = similarity.get("encoder") or "unknown encoder"
        judge = f"{encoder}{threshold_range(encoder)}"
        lines.append(f"similarity to the voice: {before:.2f} before, {after:.2f} after ({judge})")
    lines += _pitch_lines(report.pitch)
    medians = [
        (where, _number(f0.get(name)))
        for where, name in (
            ("in the old vocals", "source_median_hz"), ("in the new vocals", "result_median_hz"),
            ("in the reference", "voice_median_hz"),
        )
    ]  # fmt: skip
    known = [f"{hz:.0f} Hz {where}" for where, hz in medians if hz is not None]
    if known:
        change = _number(f0.get("change_semitones"))
        apart = "" if change is None else f"; new against old: {change:+.1f} semitones"
        lines.append(f"measured median F0: {', '.join(known)}{apart}")
    return lines


def _pitch_lines(pitch: Mapping[str, Any]) -> list[str]:
    """Return a line with what the converter did to the pitch."""
    shift = _number(pitch.get("shift_semitones"))
    if shift is None:
        return []
    moved = pitch.get("shifts_semitones")
    shifts = [_number(value) for value in moved] if isinstance(moved, list) else [shift]
    by = ", then ".join(f"{value:+.1f}" for value in shifts if value is not None)
    key = "in the band's key" if pitch.get("keeps_key") else "OUT OF the band's key"
    return [f"pitch: the converter shifted by {by} semitones (--auto-pitch {pitch.get('auto_pitch')}), {key}"]


def _number(value: object) -> float | None:
    """Return a finite JSON number, else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]
