"""A song with its stems and codes on disk: all or none, and still a sum."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from heartvoice.audio.encode import AudioFile, PartFile
from heartvoice.client import AudioChunk, Event, Report, Song, StemsChunk
from heartvoice.client.atomic_files import AtomicFiles
from heartvoice.client.song_files import SongFiles, SongWriter
from heartvoice.contracts.constants import MIX_STEM_NAMES
from heartvoice.errors import InvalidRequestError
from tests.fakes.server import REPORT
from tests.support.callers import listing

MADE = Report.from_raw(REPORT)
CODES = np.zeros((8, 2), np.int32)
LEVELS = [(0.2, 0.3), (2.0, -1.5), (0.5, 1.0)]
"""Of instrumental and vocals: neither loud, the stems loud, the sum loud."""


def mix(levels: tuple[float, float], n_samples: int = 9_000) -> Any:
    """float32 [2, 2, N]: noise with these peaks."""
    noise = np.random.default_rng(0).uniform(-1, 1, (2, n_samples)).astype(np.float32)
    noise /= np.abs(noise).max()
    return np.stack([noise * np.float32(level) for level in levels])


def write(writer: SongWriter, stems: Any) -> None:
    """Hand over a song and its stems, cut differently, with an event in between."""
    for start in range(0, stems.shape[2], 4_000):
        writer.take(AudioChunk(stems[:, :, start : start + 4_000].sum(axis=0), start))
        writer.take(Event("mix", 1, 2, 1.0))
    for start in range(0, stems.shape[2], 5_000):
        writer.take(StemsChunk(stems[:, :, start : start + 5_000], start))


def commit(folder: Path, stems: Any) -> SongFiles:
    """Write a song with everything into `folder`."""
    with SongWriter(folder / "song.wav", stems_folder=folder / "parts", codes_path=folder / "song.npy") as writer:
        before = listing(folder)
        write(writer, stems)
        assert listing(folder) == before
        return writer.commit(MADE, CODES)


def check_files(song: AudioFile, stems: dict[str, AudioFile], levels: tuple[float, float]) -> None:
    """Check that each file has its own gain, and that the stems without theirs add up to the song without its own."""
    own = max(1.0, abs(sum(levels)))
    of_stems = max(own, *np.abs(levels))
    assert song.gain_db == pytest.approx(-20 * np.log10(own))
    assert [stem.gain_db for stem in stems.values()] == [pytest.approx(-20 * np.log10(of_stems))] * 2
    audio, *parts = (soundfile.read(file.path)[0].T for file in (song, *stems.values()))
    for part, stem in zip(parts, mix(levels), strict=True):
        assert np.abs(part * of_stems - stem).max() < 1e-6
    undone = [10 ** (-file.gain_db / 20) for file in (song, *stems.values())]
    assert np.abs(parts[0] * undone[1] + parts[1] * undone[2] - audio * undone[0]).max() < 8 * 2.0**-23


@pytest.mark.parametrize("levels", LEVELS)
def test_song_and_stems_have_their_own_gains_and_add_up(tmp_path: Path, levels: tuple[float, float]) -> None:
    files = commit(tmp_path, mix(levels))
    assert files.audio.peak == pytest.approx(abs(sum(levels)))
    check_files(files.audio, files.stems, levels)
    assert listing(tmp_path) == ["parts", "song.npy", "song.wav"]
    assert listing(tmp_path / "parts") == ["instrumental.wav", "vocals.wav"]
    np.testing.assert_array_equal(np.load(tmp_path / "song.npy"), CODES)


@pytest.mark.parametrize("levels", LEVELS)
def test_a_finished_song_saves_itself_and_its_stems_just_so(tmp_path: Path, levels: tuple[float, float]) -> None:
    stems = mix(levels)
    song = Song(stems.sum(axis=0), MADE, {}, stems=dict(zip(MIX_STEM_NAMES, stems, strict=True)))
    stem_files = song.save_stems(tmp_path / "parts", "flac")
    written = song.save(tmp_path / "song.wav")
    check_files(written, stem_files, levels)
    for name, file in stem_files.items():
        assert (file.path.name, file.sample_rate_hz) == (f"{name}.flac", 48_000)
        assert file.comment.startswith("separated by heartvoice ")
        assert file.comment.endswith(f"; source {name}; random weights; from: {written.comment}")
        assert soundfile.SoundFile(file.path).comment == file.comment


@pytest.mark.parametrize("name", ["song.wav", "song.flac", "song.mp3", "song.ogg"])
@pytest.mark.parametrize("levels", LEVELS)
def test_the_song_is_the_same_file_with_and_without_stems(
    tmp_path: Path, levels: tuple[float, float], name: str
) -> None:
    stems, paths = mix(levels), [tmp_path / kind / name for kind in ("with", "without", "saved")]
    for path in paths:
        path.parent.mkdir()
    for path, folder in zip(paths, (tmp_path / "parts", None), strict=False):
        with SongWriter(path, stems_folder=folder) as writer:
            writer.take(AudioChunk(stems.sum(axis=0), 0))
            if folder is not None:
                writer.take(StemsChunk(stems, 0))
            writer.commit(MADE, None)
    Song(stems.sum(axis=0), MADE, {}, stems=dict(zip(MIX_STEM_NAMES, stems, strict=True))).save(paths[2])
    wanted, *others = (soundfile.read(path)[0] for path in paths)  # whole OGG files differ by their serial number
    for other in others:
        np.testing.assert_array_equal(wanted, other)


def test_a_song_without_stems_has_none_to_save(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="stems: expected a song that was asked for with stems=True"):
        Song(mix((1, 1))[0], MADE, {}).save_stems(tmp_path / "parts")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_whatever_file_fails_none_appears_and_old_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int, error: BaseException, existed: bool
) -> None:
    old = [tmp_path / name for name in ("song.wav", "parts/vocals.wav")] if existed else []
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"old")
    synced: list[int] = []

    def fail(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == nth:
            raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        commit(tmp_path, mix((0.5, 0.5)))
    assert len(synced) == nth
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file()] == sorted(old)
    assert all(path.read_bytes() == b"old" for path in old)
    assert (tmp_path / "parts").exists() == existed


def test_files_that_cannot_all_be_named_vanish_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = PartFile.place

    def fail_at_c(part: PartFile) -> None:
        if part.path.name == "c":
            raise PermissionError(1, "Operation not permitted", str(part.path))
        place(part)

    monkeypatch.setattr(PartFile, "place", fail_at_c)
    (tmp_path / "b").write_bytes(b"old")
    with AtomicFiles() as files:
        files.make_folder(tmp_path / "new")
        for name in ("new/a", "b", "c"):
            with files.open(tmp_path / name) as file:
                file.write(b"new")
        with pytest.raises(PermissionError):
            files.place()
    assert listing(tmp_path) == ["b"]
    assert (tmp_path / "b").read_bytes() == b"new"  # what it has replaced could not come back


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"output": "song.txt"}, "output: expected a name ending in .wav"),
        ({"output": "no/song.wav"}, "output: no such folder: "),
        ({"stems_folder": "file"}, "stems: expected a folder, got "),
        ({"stems_folder": "no/parts"}, "stems: no such folder: "),
        ({"stems_folder": "taken"}, "output: expected a file, got "),
        ({"stems_folder": ".", "output": "vocals.wav"}, "stems: expected another place than the song's own, got "),
        ({"codes_path": "taken"}, "output: expected a file, got "),
    ],
)
def test_places_where_files_cannot_go_are_refused_at_once(tmp_path: Path, arguments: dict[str, str], text: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken/vocals.wav").mkdir(parents=True)
    paths = {name: tmp_path / path for name, path in ({"output": "song.wav"} | arguments).items()}
    with pytest.raises(InvalidRequestError) as caught:
        SongWriter(paths["output"], stems_folder=paths.get("stems_folder"), codes_path=paths.get("codes_path"))
    assert str(caught.value).startswith(text)
