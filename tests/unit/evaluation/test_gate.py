"""The gate's signals and numbers: exact on made-up input, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import t

from heartvoice.contracts.constants import FRAME_HOP, SAMPLE_RATE_HZ
from heartvoice.errors import EngineError, HeartvoiceError, InvalidRequestError
from heartvoice.evaluation.gate import baseline as numbers
from heartvoice.evaluation.gate.baseline import Baseline, Move, collect, compare, load
from heartvoice.evaluation.gate.measures import MEASURES, SongTaken, Values, gathered, likeness, measure_song
from heartvoice.evaluation.gate.report import SHOWN_STEPS, draw, dumps, item_steps, show
from heartvoice.evaluation.gate.signals import seam_db, seams, worst_second_db
from heartvoice.evaluation.gate.world import CodeFigures, CoverSounds, MadeSong, Oracle
from tests.fakes.judges import judges, tone
from tests.fakes.whisper import Said, lyric_judge

BY_KEY = {measure.key: measure for measure in MEASURES}
IDENTITY = {"list": "a", "weights": {"lm": {"x": "1"}, "codec": {"y": "2"}}}


def stereo(hz: float, seconds: float, level: float = 0.1) -> np.ndarray:
    return np.repeat(tone(hz, seconds, level, SAMPLE_RATE_HZ), 2, axis=0)


# -------------------------------------------------------------------------------------------------------------- signals


def test_seams_are_where_the_pipeline_changes_windows() -> None:
    assert seams(93, 93) == ()
    late = FRAME_HOP  # two latent frames of look-ahead
    assert seams(94, 93) == (93 * FRAME_HOP - late,)
    assert seams(200, 93) == (93 * FRAME_HOP - late, 173 * FRAME_HOP - late)


def test_the_worst_second_is_that_with_the_largest_error() -> None:
    truth = stereo(200, 4.0)
    made = truth.copy()
    made[:, 2 * SAMPLE_RATE_HZ : 3 * SAMPLE_RATE_HZ] += stereo(1000, 1.0, 0.01)
    assert worst_second_db(made, truth) == pytest.approx(20.0, abs=0.01)
    made[:, SAMPLE_RATE_HZ : 2 * SAMPLE_RATE_HZ] = 0
    assert worst_second_db(made, truth) == -100.0
    truth[:, SAMPLE_RATE_HZ : 2 * SAMPLE_RATE_HZ] *= 0.001
    assert worst_second_db(made, truth) == pytest.approx(20.0, abs=0.01), "what nobody hears does not count"
    assert worst_second_db(truth, np.zeros_like(truth)) is None


def test_an_error_at_a_seam_is_compared_with_the_error_elsewhere() -> None:
    truth, at = stereo(200, 4.0, 0.5), 2 * SAMPLE_RATE_HZ
    made = truth + stereo(3000, 4.0, 0.001)
    assert seam_db(made, truth, (at,)) == pytest.approx(0.0, abs=0.1)
    assert seam_db(0.5 * made, truth, (at,)) == pytest.approx(0.0, abs=0.1)
    around = slice(at - FRAME_HOP // 2, at + FRAME_HOP // 2)
    made[:, around] += 9 * (made - truth)[:, around]
    assert seam_db(made, truth, (SAMPLE_RATE_HZ, at)) == pytest.approx(20.0, abs=0.1)
    assert seam_db(truth, truth, (at,)) == pytest.approx(0.0, abs=1e-6)
    assert seam_db(made, truth, ()) is None
    assert seam_db(made, np.zeros_like(made), (at,)) is None


# ------------------------------------------------------------------------------------------------------------- measures


def taken(audio: np.ndarray, truth: np.ndarray, voice: np.ndarray) -> SongTaken:
    pitch = np.full(200, 200.0)
    made = MadeSong(np.zeros((8, 25), np.int32), audio, voice, audio.copy())
    return SongTaken(made, voice, Oracle(truth, voice, pitch), CodeFigures(0.25, 0.5, 0.75), "carry me home", 93)


def test_a_song_is_measured_against_the_sound_of_its_codes() -> None:
    voice, rest = stereo(200, 2.0), stereo(1000, 2.0, 0.05)
    truth = voice + rest
    judge = judges()
    judge = type(judge)(judge.speakers, judge.f0, judge.dnsmos, {}, lyric_judge(Said("carry me"), language="en"))
    found = measure_song(taken(truth + 0.1 * stereo(3000, 2.0), truth, voice), judge)
    assert set(found) == {key for key in BY_KEY if key.startswith("song")}
    power = 10 * np.log10((0.1**2 + 0.05**2) / 0.01**2)
    assert found["song si_sdr"] == pytest.approx(power, abs=0.01)
    assert found["song seam"] is None
    assert found["song in_tune"] == 1.0
    assert found["song f0"] == pytest.approx(0.0, abs=0.5)
    assert found["song words"] == found["song voice_words"] == pytest.approx(1 / 3)
    assert (found["song codes_words"], found["song tags"], found["song rules"]) == (0.25, 0.5, 0.75)
    assert found["song vocals"] == found["song streamed"] == 100.0
    assert found["song mel"] is not None
    assert found["song mel"] > 0.1
    louder = measure_song(taken(2 * truth, truth, voice), judges())
    assert [louder["song loudness"], louder["song peak"]] == pytest.approx([20 * np.log10(2)] * 2, abs=0.01)
    assert louder["song words"] is None, "nobody judged them"


def test_sound_of_another_length_than_its_codes_is_a_failure() -> None:
    truth = stereo(200, 2.0)
    with pytest.raises(EngineError, match="audio: expected 96000 samples for its codes, got 95999"):
        measure_song(taken(truth[:, 1:], truth, truth), judges())


def test_likeness_is_the_share_of_what_there_is_to_gain() -> None:
    old, new = stereo(1000, 2.0), stereo(200, 2.0)
    sounds = CoverSounds(old, np.zeros_like(old), new[0], new, same_pitches=True)
    by_rate = {hz: tone(hz, 2.0)[0] for hz in (200, 600, 1000)}
    assert likeness(judges(), sounds, by_rate[1000], by_rate[200]) == pytest.approx(1.0, abs=0.02)
    assert likeness(judges(), sounds, by_rate[1000], by_rate[1000]) == pytest.approx(0.0, abs=1e-6)
    assert likeness(judges(), sounds, by_rate[200], by_rate[200]) is None, "nothing to gain"
    assert likeness(judges(), sounds, by_rate[1000], np.zeros(32_000, np.float32)) is None


# ------------------------------------------------------------------------------------------------------------- baseline


def one(si_sdr: float, words: float, worst: float = 10.0) -> Values:
    return {"song si_sdr": si_sdr, "song words": words, "song worst_second": worst, "song seam": None}


def made(*deltas: float) -> Baseline:
    """Two songs and as many seeds as deltas."""
    return collect(IDENTITY, {seed: {"a": one(18 + d, 0.1), "b": one(16 + d, 0.3)} for seed, d in enumerate(deltas)})


def moved(move: list[Move], key: str) -> Move:
    return next(each for each in move if each.measure.key == key)


def test_a_tolerance_is_what_another_seed_exceeds_once_in_a_thousand() -> None:
    level = made(-1.0, 0.0, 1.0).level(BY_KEY["song si_sdr"], ("a", "b"))
    assert level is not None
    assert level.mean == pytest.approx(17.0)
    assert level.tolerance == pytest.approx(t.ppf(0.999, 2) * np.sqrt(4 / 3))
    still = made(0.0, 0.0, 0.0).level(BY_KEY["song si_sdr"], ("a",))
    assert still is not None
    assert (still.mean, still.tolerance) == (18.0, BY_KEY["song si_sdr"].least)
    draws = 100 * np.random.default_rng(0).normal(size=(400, 6))
    outside = [each[5] - each[:5].mean() > numbers.tolerance(BY_KEY["song vocals"], each[:5]) for each in draws]
    assert sum(outside) <= 3


@pytest.mark.parametrize(
    ("values", "worse"),
    [
        ({"a": one(18, 0.1), "b": one(16, 0.3)}, set()),
        ({"a": one(17.9, 0.1), "b": one(15.9, 0.31)}, set()),
        ({"a": one(17.7, 0.1), "b": one(15.7, 0.3)}, {"song si_sdr"}),
        ({"a": one(28, 0.2), "b": one(26, 0.3)}, {"song words"}),
        ({"a": one(18, 0.1), "b": one(16, 0.3, worst=8.0)}, {"song worst_second"}),
        ({"b": one(16, 0.3)}, set()),
        ({"a": one(16, 0.1)}, {"song si_sdr"}),
        ({"a": {**one(18, 0.1), "song words": None}, "b": one(16, 0.3)}, {"song words"}),
    ],
)
def test_only_what_is_worse_by_more_than_its_tolerance_fails(values: dict[str, Values], worse: set[str]) -> None:
    moves = compare(made(0.0, 0.0, 0.0), values)
    assert {move.measure.key for move in moves if move.is_worse} == worse


def test_numbers_are_gathered_over_the_items_of_the_run() -> None:
    values = {"b": one(15.0, 0.3)}
    move = moved(compare(made(0.0, 0.0, 0.0), values), "song si_sdr")
    assert (move.was.mean, move.now, move.items) == (16.0, 15.0, {"b": (16.0, 15.0)})
    assert move.steps == pytest.approx(-5.0)
    assert gathered(BY_KEY["song worst_second"], [3.0, 1.0, 2.0]) == 1.0
    assert gathered(BY_KEY["song seam"], [3.0, 1.0, 2.0]) == 3.0
    assert gathered(BY_KEY["song words"], [0.1, 0.3]) == pytest.approx(0.2)


def test_a_run_that_the_numbers_do_not_cover_is_refused() -> None:
    baseline = made(0.0, 0.0, 0.0)
    with pytest.raises(HeartvoiceError, match="it lacks c; make it anew with --write"):
        compare(baseline, {"c": one(18, 0.1)})
    with pytest.raises(HeartvoiceError, match="it lacks song seam"):
        compare(baseline, {"a": {**one(18, 0.1), "song seam": 1.0}})
    with pytest.raises(InvalidRequestError, match="expected one at least"):
        compare(baseline, {})
    with pytest.raises(InvalidRequestError, match="seeds: expected at least 3, got 2"):
        made(0.0, 0.0)


def test_a_file_has_the_numbers_and_their_meaning(tmp_path: Path) -> None:
    baseline = made(-1 / 3, 0.0, 1 / 3)
    file = tmp_path / "gate.json"
    file.write_text(numbers.dumps(baseline))
    assert load(file, IDENTITY) == baseline
    stored = json.loads(file.read_text())["measures"]["song si_sdr"]
    assert (stored["better"], stored["unit"], stored["mean"]) == ("higher", "dB", 17.0)
    assert stored["values"]["a"] == [17.6667, 18.0, 18.3333]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "no such file"),
        ("{", "damaged"),
        ('{"format": 9}', "expected numbers of format 1"),
        (("list", "b"), "made with another list: expected 'a', got 'b'; make it anew"),
        (("weights", {"lm": {"x": "1"}, "codec": {"y": "3"}}), "made with another weights: codec; make it anew"),
        (("seeds", None), "damaged"),
        (("measures", {}), None),
    ],
)
def test_numbers_of_something_else_are_refused(tmp_path: Path, change: object, said: str | None) -> None:
    file = tmp_path / "gate.json"
    if isinstance(change, str):
        file.write_text(change)
    elif isinstance(change, tuple):
        file.write_text(json.dumps({**json.loads(numbers.dumps(made(0.0, 0.0, 0.0))), change[0]: change[1]}))
    if said is None:
        with pytest.raises(HeartvoiceError, match="it lacks a, song si_sdr"):
            compare(load(file, IDENTITY), {"a": one(18, 0.1)})
        return
    with pytest.raises(HeartvoiceError, match=said):
        load(file, IDENTITY)


def test_a_mean_that_was_edited_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gate.json"
    file.write_text(numbers.dumps(made(0.0, 0.0, 0.0)).replace('"tolerance": 0.2', '"tolerance": 5.0'))
    with pytest.raises(HeartvoiceError, match="are not those of its values"):
        load(file, IDENTITY)


# --------------------------------------------------------------------------------------------------------------- report


def test_table_json_and_picture_say_what_moved(tmp_path: Path) -> None:
    values = {"a": {**one(10.0, 0.0), "song worst_second": None}, "b": one(16, 0.3)}
    moves = compare(made(0.0, 0.0, 0.0), values)
    console = Console(width=160, record=True)
    with console.capture() as shown:
        show(moves, console)
    text = shown.get()
    lines = {name: next(line for line in text.splitlines() if name in line) for name in ("song: SI-SDR  ", "separated")}
    assert [word in lines["song: SI-SDR  "] for word in ("17.00", "13.00", "-4.00", "worse")] == [True] * 4
    assert "better" in lines["separated"]
    assert "lost: song: SI-SDR of the worst second has no value any more for a" in text
    report = json.loads(dumps(moves, values, IDENTITY, 0))
    assert report["passed"] is False
    assert report["measures"]["song worst_second"] | {"before": 0, "tolerance": 0} == {
        "before": 0, "tolerance": 0, "now": None, "better": "higher", "verdict": "lost", "lost": ["a"],
    }  # fmt: skip
    assert item_steps(moved(moves, "song si_sdr")) == [-SHOWN_STEPS, 0.0]
    assert item_steps(moved(moves, "song words")) == [SHOWN_STEPS, 0.0]
    draw(moves, tmp_path / "gate.png")
    assert (tmp_path / "gate.png").read_bytes().startswith(b"\x89PNG")
