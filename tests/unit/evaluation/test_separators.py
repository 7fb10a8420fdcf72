"""Songs with known stems, what separators make of them, and what the comparison says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
from rich.console import Console

from heartvoice.config.presets import SEPARATORS
from heartvoice.contracts.messages import StemsChunk
from heartvoice.errors import InvalidRequestError
from heartvoice.evaluation import separator_results, separators
from heartvoice.evaluation.separator_songs import Score, Truth, bleeding, find_songs, read_song
from heartvoice.evaluation.separators import SeparatorResult, SongResult, find_repositories, measure, name_of
from heartvoice.keyed_random import normal
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.separation.stage import SeparateStage

RATE = 44_100
Samples = np.ndarray[Any, np.dtype[np.float32]]


def noise(seed: int, seconds: float = 4.0) -> Samples:
    return 0.1 * normal(seed, "part", 0, (2, round(seconds * RATE)))


def truth(seconds: float = 4.0) -> Truth:
    """Vocals that are silent in the second half."""
    vocals, instrumental = noise(1, seconds), noise(2, seconds)
    vocals[:, vocals.shape[1] // 2 :] = 0
    return Truth(vocals + instrumental, {"vocals": vocals, "instrumental": instrumental})


def written(folder: Path, *, rate: int = RATE, **parts: Samples) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples in parts.items():
        soundfile.write(folder / f"{name}.wav", samples.T, rate, subtype="FLOAT")
    return folder


class Leaking:
    """Vocals with a tenth of the instrumental, in two chunks."""

    def __init__(self, known: Truth) -> None:
        self.known = known

    def separate(self, request: SeparationRequest) -> Iterator[StemsChunk]:
        np.testing.assert_array_equal(request.audio, self.known.mix)
        vocals = self.known.stems["vocals"] + np.float32(0.1) * self.known.stems["instrumental"]
        for first, last in ((0, RATE), (RATE, None)):
            yield StemsChunk(vocals[None, :, first:last], first)


def test_songs_are_found_with_their_stems(tmp_path: Path) -> None:
    known = truth(1.0)
    for name in ("b", "a"):
        written(tmp_path / name, mix=known.mix, vocals=known.stems["vocals"])
    written(tmp_path / "evaluation", mix=known.mix)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "repository.json").touch()
    songs = find_songs(tmp_path)
    assert [song.name for song in songs] == ["a", "b"]
    assert find_songs(tmp_path / "a") == songs[:1]
    read = read_song(songs[0])
    np.testing.assert_array_equal(read.mix, known.mix)
    np.testing.assert_allclose(read.stems["instrumental"], known.stems["instrumental"], rtol=0, atol=1e-6)


def test_stems_are_brought_to_the_mix_s_rate_and_length(tmp_path: Path) -> None:
    written(tmp_path, mix=noise(0, 1.0), vocals=noise(1, 0.95), drums=noise(2, 1.05))
    stems = read_song(find_songs(tmp_path)[0]).stems
    assert {stem.shape for stem in stems.values()} == {(2, RATE)}
    assert not stems["vocals"][:, -1000:].any()
    written(tmp_path, rate=22_050, mix=noise(0, 0.5), vocals=noise(1, 0.5), drums=noise(2, 0.5))
    assert read_song(find_songs(tmp_path)[0]).mix.shape == (2, RATE)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["vocals.wav"], r"missing mix\.\*"),
        (["mix.wav", "Vocals.wav"], r"Vocals\.wav: unknown, expected one of mix\.\*, vocals\.\*, instrumental\.\*"),
        (["mix.wav", "mix.flac"], r"mix\.wav: ambiguous, mix\.flac is there too"),
        (["mix.txt"], r"mix\.txt: expected a name ending in \.wav"),
        ([], "expected a song or folders of songs, got none"),
    ],
)
def test_a_folder_that_is_no_song_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InvalidRequestError, match=message):
        find_songs(tmp_path)


def test_a_stem_of_another_length_is_refused(tmp_path: Path) -> None:
    written(tmp_path, mix=noise(0, 1.0), vocals=noise(1, 0.8))
    with pytest.raises(InvalidRequestError, match=r"vocals\.wav: expected the mix's length, 1\.00 s, got 0\.80 s"):
        read_song(find_songs(tmp_path)[0])


def test_what_bleeds_is_as_loud_as_it_is() -> None:
    known = truth()
    result = measure(cast(SeparateStage, Leaking(known)), ("vocals",), "song", known)
    assert result.seconds == 4.0
    assert result.rtf > 0
    assert result.peak_mb > 10
    bleed = result.bleed["vocals"]
    assert 1.7 < bleed.seconds <= 2.0
    assert bleed.stem_lufs is not None
    assert bleed.mix_lufs is not None
    assert bleed.stem_lufs - bleed.mix_lufs == pytest.approx(-20.0, abs=0.1)
    assert "instrumental" not in result.bleed
    stem, mix = result.scores["vocals"].stem_db, result.scores["vocals"].mix_db
    assert stem == pytest.approx(17.0, abs=0.3)
    assert mix == pytest.approx(-3.0, abs=0.3)
    assert result.scores["instrumental"].stem_db == 100.0  # nine tenths of the truth, and nothing else


def test_short_silence_has_no_bleeding() -> None:
    known = truth(1.0)
    assert bleeding(known.stems, known) == {}


def result(separator: str, *, random: bool = False, vocals: float | None = 9.0, **more: Any) -> SeparatorResult:
    songs = [SongResult(f"song {index}", 10.0, 0.5, 100.0, {"vocals": Score(vocals, -2.0)}, {}) for index in range(2)]
    return SeparatorResult("tiny", separator, ("vocals",), "official", random, songs, **more)


def test_the_table_says_what_is_random_and_what_failed() -> None:
    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    failed = result("mel_band_roformer", error="song 2: its process ended")
    separator_results.show([result("spleeter"), result("htdemucs", random=True, vocals=-30.0), failed], console)
    text = console.export_text()
    assert "spleeter (tiny)" in text
    assert "-30.0†" in text
    assert "9.0†" not in text
    assert "† says nothing: random weights" in text
    assert "mel_band_roformer (tiny): failed: song 2: its process ended" in text
    assert "-2.0" in text.split("no separation")[1]
    assert "bleed" not in text


def test_json_has_means_and_no_nan() -> None:
    found = json.loads(separator_results.dumps([result("spleeter", vocals=None), result("htdemucs")], threads=1))
    assert found["threads"] == 1
    silent, other = found["separators"]
    assert silent["mean_si_sdr_db"] == {}
    assert other["mean_si_sdr_db"] == {"vocals": 9.0}
    assert other["rtf"] == 0.5
    assert other["songs"][1]["scores"]["vocals"] == {"stem_db": 9.0, "mix_db": -2.0}


def test_a_folder_without_exports_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"expected an exported repository.*heartvoice export --preset tiny"):
        find_repositories([tmp_path])


def test_separators_have_the_names_of_the_export() -> None:
    assert {name: name_of(sizes) for name, sizes in SEPARATORS.items()} == {name: name for name in SEPARATORS}


def test_equal_separators_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, name: str, sha256: str) -> None:
            self.root, self.preset = Path(name), self
            self.separator = SEPARATORS["spleeter"]
            self.index = {"graphs": {"spleeter": {"sha256": sha256}}}

    found = separators.distinct(cast(Any, [Fake("tiny", "1"), Fake("mid", "1"), Fake("other", "2")]))
    assert [names for _, names in found] == ["tiny, mid", "other"]
