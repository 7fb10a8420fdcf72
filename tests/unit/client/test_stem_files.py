"""Stems in a folder: all or none, and still a sum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from heartvoice.client.stem_files import StemsWriter, StemTag
from heartvoice.contracts.claims import Claim, Making
from heartvoice.contracts.provenance import Tags
from heartvoice.errors import InvalidRequestError
from tests.support.callers import listing


def noise(n_stems: int = 3, level: float = 0.3, n_samples: int = 44_100) -> Any:
    """float32 [S, 2, N]."""
    return np.random.default_rng(0).uniform(-level, level, (n_stems, 2, n_samples)).astype(np.float32)


def comments(n_stems: int = 3) -> dict[str, StemTag]:
    """A name and a tag for each."""
    claim = Claim(Making.SEPARATED, {})
    return {f"stem{index}": StemTag(Tags(f"tag {index}"), claim) for index in range(n_stems)}


def test_loud_stems_still_add_up_to_the_mix(tmp_path: Path) -> None:
    stems = noise(level=1.0)
    stems[1] *= 3
    with StemsWriter(tmp_path / "out") as writer:
        for start in range(0, 44_100, 10_000):
            writer.write(stems[:, :, start : start + 10_000])
        files = writer.commit(comments())
    total = sum(soundfile.read(file.path)[0].T for file in files.values())
    peak = max(file.peak for file in files.values())
    assert peak == np.abs(stems).max()
    assert np.abs(total * peak - stems.sum(axis=0)).max() < 1e-5
    assert [file.gain_db for file in files.values()] == [pytest.approx(-20 * np.log10(peak))] * 3
    assert [file.comment for file in files.values()] == ["tag 0", "tag 1", "tag 2"]


def test_quiet_stems_are_left_alone(tmp_path: Path) -> None:
    with StemsWriter(tmp_path, file_format="flac") as writer:
        writer.write(noise(2))
        files = writer.commit(comments(2))
    for file, stem in zip(files.values(), noise(2), strict=True):
        assert (file.gain_db, file.sample_rate_hz, file.n_samples) == (0, 44_100, 44_100)
        assert np.abs(soundfile.read(file.path)[0].T - stem).max() < 2**-22


def test_nothing_appears_before_commit_or_without_it(tmp_path: Path) -> None:
    with StemsWriter(tmp_path / "out") as writer:
        writer.write(noise())
        assert not listing(tmp_path)
    assert not listing(tmp_path)


def test_a_chunk_of_another_shape_is_refused(tmp_path: Path) -> None:
    with StemsWriter(tmp_path) as writer:
        writer.write(noise(3))
        with pytest.raises(InvalidRequestError, match="stems: expected 3, got 2"):
            writer.write(noise(2))
        with pytest.raises(InvalidRequestError, match=r"audio: expected \[2, sample\], got \[1, 44100\]"):
            writer.write(noise(3)[:, :1])


def test_a_place_that_became_something_else_keeps_all_stems_away(tmp_path: Path) -> None:
    with StemsWriter(tmp_path) as writer:
        writer.write(noise())
        (tmp_path / "stem2.wav").mkdir()
        with pytest.raises(InvalidRequestError, match="output: expected a file"):
            writer.commit(comments())
    assert listing(tmp_path) == ["stem2.wav"]


@pytest.mark.parametrize(
    ("name", "file_format", "text"),
    [
        ("file", "wav", "output: expected a folder, got "),
        ("no/out", "wav", "output: no such folder: "),
        ("out", "aac", "format: expected wav, flac, mp3, ogg, got 'aac'"),
    ],
)
def test_places_where_no_stems_can_go_are_refused(tmp_path: Path, name: str, file_format: str, text: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequestError) as caught:
        StemsWriter(tmp_path / name, file_format=file_format)
    assert str(caught.value).startswith(text)


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with StemsWriter(tmp_path / "link") as writer:
        writer.write(noise(1))
        writer.commit(comments(1))
    assert listing(tmp_path / "real") == ["stem0.wav"]
