"""The voice bank's parts that need no download: phonemes, alignment, melodies, packages by hash."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.errors import ExportError
from tests.support.synthetic_voice import RATE_HZ, synthetic_voice
from tests.support.voice_bank import SONGS, phonemes, singing
from tests.support.voice_bank.lines import lines_of
from tests.support.voice_bank.songs import write_melody
from train.voices.kokoro import sound_count, syllable_places
from train.voices.packages import NpmPackage, unpacked


def test_the_phonemes_of_the_lines_are_those_that_espeak_gives() -> None:
    assert phonemes.main([]) == 0


def test_syllables_are_counted_by_vowels_and_placed_among_sounds() -> None:
    # snow on the window
    assert syllable_places("snˈO ɔnðə wˈɪndO.") == [2.5, 3.5, 6.5, 8.5, 11.5]
    assert sound_count("snˈO ɔnðə wˈɪndO.") == 12


def test_every_syllable_gets_a_loud_frame_of_its_own() -> None:
    peaks = np.array([40, 62, 110, 131])
    sonority = np.full(170, -40.0)
    for at, loud in zip(peaks, (0.0, -12.0, -3.0, -8.0), strict=True):
        frames = np.arange(at - 9, at + 10)
        sonority[frames] = loud - np.abs(frames - at)
    found = singing.find_vowels(sonority, [1.5, 3.5, 8.5, 10.5], 12)
    assert np.abs(found - peaks).max() <= 3  # the places among the sounds count a little


@pytest.mark.parametrize("name", SONGS)
def test_a_melody_stays_in_key_and_range_and_ends_in_the_chord(name: str) -> None:
    plan = SONGS[name]
    lengths = [1, 2, 1, 1, 3, 1, 4]
    notes = write_melody(plan, lengths, 8, np.random.default_rng(0))
    in_key = {plan.style.scale(degree) % 12 for degree in range(7)}
    assert len(notes) == len(lengths)
    assert {note % 12 for note in notes} <= in_key
    assert all(plan.low <= note <= plan.low + 14 for note in notes)
    bar_of_last = (8 + sum(lengths[:-1])) // 8
    assert notes[-1] % 12 in {tone % 12 for tone in plan.style.chord(bar_of_last)}
    assert notes == write_melody(plan, lengths, 8, np.random.default_rng(0))


def test_a_line_is_sung_on_the_beat_at_the_notes_that_are_asked() -> None:
    speech = synthetic_voice(RATE_HZ, level=0.1)  # three syllables
    line = singing.analyse(speech, RATE_HZ, [1.5, 4.5, 7.5], 9)
    sung = singing.sing(line, RATE_HZ, [1, 2, 4], [50, 53, 57], eighth_s=0.25, seed=0)
    starts_s = sung.lead_s + np.array([0.0, 0.25, 0.75])
    for start, length, note in zip(starts_s, (0.25, 0.5, 1.0), (50, 53, 57), strict=True):
        inside = sung.f0_hz[round((start + 0.06) / singing.FRAME_S) : round((start + length - 0.06) / singing.FRAME_S)]
        semitones = 69 + 12 * np.log2(inside[inside > 0] / 440)
        assert np.mean(inside > 0) > 0.7
        assert np.median(semitones) == pytest.approx(note, abs=0.3)
    heard_s = len(sung.audio) / RATE_HZ
    assert heard_s == pytest.approx(len(sung.f0_hz) * singing.FRAME_S, abs=0.01)
    assert heard_s > sung.lead_s + 7 * 0.25 - 0.01


# ------------------------------------------------------------------------------------------------------ npm's packages


@pytest.fixture
def archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as files:
        for name, text in (("package/voices/one.bin", b"voice"), ("package/dist/code.js", b"code")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            files.addfile(member, io.BytesIO(text))
    return content.getvalue()


@pytest.fixture
def npm(archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands for npm, and lists its calls."""
    calls: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        (options["cwd"] / "made-up-1.0.tgz").write_bytes(archive)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("HEARTVOICE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_the_wanted_files_of_an_npm_package_are_kept_once(archive: bytes, npm: list[list[str]]) -> None:
    package = NpmPackage("@made/up", "1.0", hashlib.sha256(archive).hexdigest(), ("voices/",), "MIT")
    folder = unpacked(package)
    assert [str(path.relative_to(folder)) for path in folder.rglob("*.*")] == ["voices/one.bin"]
    assert unpacked(package) == folder
    assert len(npm) == 1
    assert npm[0][-1] == "@made/up@1.0"
    assert [path.name for path in folder.parent.iterdir()] == ["made-up-1.0"]


def test_an_npm_package_with_another_hash_is_refused(npm: list[list[str]]) -> None:
    with pytest.raises(ExportError, match="expected sha256 0000, got"):
        unpacked(NpmPackage("made-up", "1.0", "0000", ("voices/",), "MIT"))


def test_without_npm_the_error_says_what_to_install(npm: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ExportError, match=r"made-up 1\.0: fetching it needs npm \(on Debian"):
        unpacked(NpmPackage("made-up", "1.0", "0000", ("voices/",), "MIT"))


def test_a_song_has_lines_of_words_that_can_be_sung() -> None:
    for name in SONGS:
        assert all(len(syllable_places(line.phonemes)) >= 8 for line in lines_of(name))
