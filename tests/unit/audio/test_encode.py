"""Files: right content, right tag, all or nothing."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import soundfile

from heartvoice import __version__
from heartvoice.audio import encode
from heartvoice.audio.encode import AudioWriter, read_tags, source_tags, write_audio
from heartvoice.client.messages import Report, Song
from heartvoice.contracts.constants import AUDIO_FORMATS, SAMPLE_RATE_HZ
from heartvoice.contracts.provenance import Tags, provenance
from heartvoice.errors import InvalidRequestError
from tests.support.callers import listing

COMMENT = provenance(7, random_weights=True)


def tone(seconds: float = 2.5, level: float = 0.5) -> Any:
    """float32 [2, N]: two sines whose peak is `level`."""
    n = int(seconds * SAMPLE_RATE_HZ)
    t = np.arange(n) / SAMPLE_RATE_HZ
    return (level * np.stack([np.sin(2 * np.pi * 440 * t), np.sin(2 * np.pi * 330 * t)])).astype(np.float32)


def read(path: Path) -> tuple[Any, str, str]:
    """Audio [2, N], comment and subtype of a file."""
    with soundfile.SoundFile(path) as file:
        assert file.samplerate == SAMPLE_RATE_HZ
        return file.read(dtype="float32").T, file.comment, file.subtype


@pytest.mark.parametrize("name", AUDIO_FORMATS)
def test_every_format_keeps_audio_and_comment(tmp_path: Path, name: str) -> None:
    audio = tone()
    written = write_audio(tmp_path / f"song.{name}", audio, COMMENT)
    back, comment, subtype = read(written.path)
    assert comment == COMMENT == f"AI-generated; heartvoice {__version__}; seed 7; random weights"
    assert back.shape == audio.shape
    tolerance = 2**-23 if name in ("wav", "flac") else 0.02
    assert np.abs(back - audio).max() <= tolerance
    assert subtype == {"mp3": "MPEG_LAYER_III", "ogg": "VORBIS"}.get(name, "PCM_24")
    assert (written.format, written.n_samples, written.gain_db) == (name, audio.shape[1], 0)
    assert listing(tmp_path) == [f"song.{name}"]


@pytest.mark.parametrize("name", AUDIO_FORMATS)
@pytest.mark.parametrize("tags", [Tags("c" * 600, "Ein Lied", "J. Doe"), Tags("", "Für 愛 \U0001f3b5", ""), Tags()])
def test_every_format_keeps_title_and_artist_in_any_script(tmp_path: Path, name: str, tags: Tags) -> None:
    path = tmp_path / f"song.{name}"
    with AudioWriter(path) as writer:
        writer.write(tone(0.2))
        writer.commit(tags)
    assert read_tags(path.read_bytes()) == tags
    assert soundfile.info(path).frames == pytest.approx(9600, abs=0 if name != "mp3" else 1200)


def test_what_is_kept_of_a_strangers_tags_is_short_and_harmless(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    with AudioWriter(path) as writer:
        writer.write(tone(0.1))
        writer.commit(Tags("recorded in 1971", "\x1b[2Ja\u202eb\nc", "x" * 5000))
    assert source_tags(path.read_bytes()) == Tags("", "[2Jab c", "x" * 200)


def test_chunks_make_the_same_file_as_one_piece(tmp_path: Path) -> None:
    audio = tone()
    with AudioWriter(tmp_path / "chunks.flac") as writer:
        for start in range(0, audio.shape[1], 7777):
            writer.write(audio[:, start : start + 7777])
        writer.commit(Tags(COMMENT))
    write_audio(tmp_path / "whole.flac", audio, COMMENT)
    assert (tmp_path / "chunks.flac").read_bytes() == (tmp_path / "whole.flac").read_bytes()


@pytest.mark.parametrize("name", AUDIO_FORMATS)
def test_a_loud_song_is_turned_down_as_a_whole_and_says_so(tmp_path: Path, name: str) -> None:
    audio = tone(level=2.0)
    written = write_audio(tmp_path / f"song.{name}", audio, COMMENT)
    back, _, _ = read(written.path)
    assert written.peak == pytest.approx(2, abs=1e-4)
    assert written.gain_db == pytest.approx(-6.02, abs=0.01)
    assert np.abs(back - audio / written.peak).max() <= (2**-22 if name in ("wav", "flac") else 0.05)


def test_full_scale_is_left_alone(tmp_path: Path) -> None:
    audio = np.tile(np.array([1, -1, 0.5], np.float32), (2, 100))
    written = write_audio(tmp_path / "song.wav", audio, COMMENT)
    assert written.gain_db == 0
    np.testing.assert_allclose(read(written.path)[0], audio, atol=2**-22)


def test_integers_and_other_layouts_are_written_as_floats(tmp_path: Path) -> None:
    audio = np.asfortranarray(tone().astype(np.float64))
    write_audio(tmp_path / "song.wav", audio, COMMENT)
    assert np.abs(read(tmp_path / "song.wav")[0] - audio).max() <= 2**-22


@pytest.mark.parametrize("audio", [np.zeros(5), np.zeros((1, 5)), np.zeros((5, 2))])
def test_audio_that_is_not_stereo_is_refused(tmp_path: Path, audio: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"audio: expected \[2, sample\]"):
        write_audio(tmp_path / "song.wav", audio, COMMENT)
    assert not listing(tmp_path)


def test_audio_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(InvalidRequestError, match="audio: expected finite samples"):
            write_audio(tmp_path / "song.wav", np.full((2, 5), value), COMMENT)
    assert not listing(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("song.aac", "output: expected a name ending in .wav, .flac, .mp3, .ogg, got"),
        ("song", "output: expected a name ending in"),
        ("nowhere/song.wav", "output: no such folder: "),
        ("folder.wav", "output: expected a file, got"),
    ],
)
def test_places_where_no_song_can_go_are_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(InvalidRequestError) as caught:
        AudioWriter(tmp_path / name)
    assert str(caught.value).startswith(text)


def test_nothing_appears_before_commit_or_without_it(tmp_path: Path) -> None:
    with AudioWriter(tmp_path / "song.wav") as writer:
        writer.write(tone())
        assert not listing(tmp_path)
    assert not listing(tmp_path)


def test_an_existing_file_is_replaced_at_once_and_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real.wav").write_bytes(b"old")
    (tmp_path / "link.wav").symlink_to("real.wav")
    with AudioWriter(tmp_path / "link.wav") as writer:
        writer.write(tone())
        assert (tmp_path / "real.wav").read_bytes() == b"old"
        writer.commit(Tags(COMMENT))
    assert (tmp_path / "link.wav").is_symlink()
    assert read(tmp_path / "real.wav")[1] == COMMENT


def test_the_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    path = write_audio(tmp_path / "song.wav", tone(), COMMENT).path
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond this: what a full disk or a quota does, without root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_leaves_nothing_and_names_the_file(tmp_path: Path) -> None:
    with file_size_limit(100_000), AudioWriter(tmp_path / "song.wav") as writer:
        writer.write(tone(0.1))
        with pytest.raises(OSError, match="File too large") as caught:
            writer.write(tone(0.3))
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "song.wav")
    assert not listing(tmp_path)


@pytest.mark.parametrize("name", AUDIO_FORMATS)
def test_a_disk_that_fills_up_while_encoding_keeps_the_old_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"song.{name}"
    path.write_bytes(b"old")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 2 * SAMPLE_RATE_HZ))
    with AudioWriter(path) as writer:
        writer.write(noise)
        with file_size_limit(20_000), pytest.raises(OSError, match="File too large") as caught:
            writer.commit(Tags(COMMENT))
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert listing(tmp_path) == [path.name]


@pytest.mark.parametrize("name", AUDIO_FORMATS)
def test_no_space_at_all_is_an_os_error(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def full(path: Path) -> Iterator[IO[bytes]]:
        with Path("/dev/full").open("wb") as file:
            yield file

    monkeypatch.setattr(encode, "replacing", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_audio(tmp_path / f"song.{name}", tone(10), COMMENT)
    assert caught.value.errno == errno.ENOSPC


def test_the_comment_names_the_voice_if_there_is_one() -> None:
    raw = {"seed": 3, "preset": "tiny", "random_weights": False, "voice_sha256": "0123456789abcdef"}
    assert Report.from_raw(raw).comment == f"AI-generated; heartvoice {__version__}; seed 3"


def test_a_song_saves_itself(tmp_path: Path) -> None:
    report = Report.from_raw({"seed": 3, "preset": "tiny", "random_weights": False})
    song = Song(tone(), report, {})
    written = song.save(tmp_path / "song.ogg")
    assert written.comment == f"AI-generated; heartvoice {__version__}; seed 3"
    assert song.duration_s == 2.5


def test_a_file_that_points_before_its_beginning_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """An exception in libsndfile's callbacks would be printed, whatever is made of it."""
    comm = b"COMM\0\0\0\x12\0\x01\0\0\x06@\0\x10@\x0c\xfa\0\0\0\0\0\0T\0"
    damaged = b"FORM\0\0\x0c\xaeAIFF" + comm + b"SSND\0\0\x0c\x88" + b"\0" * 160
    assert source_tags(damaged) == Tags()
    assert capfd.readouterr().err == ""
