"""Cases through judges without weights: what is measured, what is left out, what is said."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from heartvoice.errors import InvalidRequestError
from heartvoice.evaluation.cases import find_cases
from heartvoice.evaluation.dnsmos import Dnsmos
from heartvoice.evaluation.harness import N_STEPS, Evaluation, evaluate_case
from heartvoice.evaluation.judges import Judges
from heartvoice.evaluation.results import as_json, dumps, medians, show
from tests.fakes.judges import Scores, judges, tone, write_case
from tests.fakes.whisper import Said, lyric_judge

LOW, HIGH = tone(200.0), tone(1000.0)
BAND = tone(60.0, level=0.3)


def evaluated(
    folder: Path, by: Judges | None = None, *, random_weights: bool | None = None, report: Any = None, **sounds: Any
) -> Evaluation:
    """One case whose singer at 1000 Hz became one at 200 Hz, as the reference, unless `sounds` say otherwise."""
    everything = {"voice": LOW, "source": HIGH, "result": LOW, **sounds}
    (case,) = find_cases(write_case(folder, report, **everything), random_weights=random_weights)
    return evaluate_case(case, by or judges())[0]


def words(*evaluations: Evaluation) -> str:
    text = io.StringIO()
    show(evaluations, Console(file=text, width=200))
    return text.getvalue()


def test_similarity_is_that_of_each_side_to_the_reference(tmp_path: Path) -> None:
    cosine = evaluated(tmp_path).similarity["resemblyzer"]
    assert cosine.after == pytest.approx(1.0, abs=1e-3)
    assert cosine.before is not None
    assert cosine.before < 0.5
    assert cosine.verdict == "same"
    assert cosine.meaning is not None


def test_pitch_is_compared_with_the_source(tmp_path: Path) -> None:
    f0 = evaluated(tmp_path).f0
    assert f0 is not None
    assert f0.shift_semitones == pytest.approx(-12 * np.log2(5), abs=0.05)
    assert f0.median_cents == pytest.approx(0.0, abs=1e-6)


def test_vocals_are_judged_in_place_of_what_they_were_taken_from(tmp_path: Path) -> None:
    alone = evaluated(tmp_path / "a", source=HIGH + BAND, result=LOW + BAND, vocals_before=HIGH, vocals_after=LOW)
    plain = evaluated(tmp_path / "b")
    assert alone.similarity == plain.similarity
    assert alone.f0 == plain.f0
    assert alone.mel_distance_db == plain.mel_distance_db
    assert alone.level != plain.level, "level is that of the recording"
    assert not any("judged from" in note for note in alone.notes)
    assert any("judged from source.wav itself" in note for note in plain.notes)


def test_one_stem_against_a_recording_is_pointed_out(tmp_path: Path) -> None:
    assert any("compared with a whole recording" in note for note in evaluated(tmp_path, vocals_after=LOW).notes)


def test_separation_is_measured_against_the_truth_and_the_mixture(tmp_path: Path) -> None:
    made = evaluated(
        tmp_path, source=HIGH + BAND, vocals_before=HIGH + 0.1 * BAND, true_vocals=HIGH, instrumental=BAND,
        true_instrumental=BAND,
    )  # fmt: skip
    mixture_db = 20 * np.log10(0.1 / 0.3)  # the tones' levels
    assert made.separation["vocals"].mixture_db == pytest.approx(mixture_db, abs=0.01)
    assert made.separation["vocals"].stem_db == pytest.approx(mixture_db + 20, abs=0.01)
    assert made.separation["instrumental"].stem_db == pytest.approx(100.0)
    assert not any(what.startswith("si_sdr") for what in made.skipped)


def test_what_lacks_its_files_is_left_out_with_a_reason(tmp_path: Path) -> None:
    made = evaluated(tmp_path, judges(campplus="give it with --campplus"), true_vocals=HIGH)
    assert made.separation == {}
    assert made.skipped["si_sdr vocals"] == "no vocals_before.*"
    assert made.skipped["si_sdr instrumental"] == "no instrumental.*, true_instrumental.*"
    assert made.skipped["campplus"] == "give it with --campplus"
    assert "not measured: campplus: give it with --campplus" in words(made)


def test_two_judges_decide_and_a_missing_one_is_said(tmp_path: Path) -> None:
    alone = evaluated(tmp_path / "a", judges(campplus="no file"))
    assert alone.same_voice is not None
    assert alone.same_voice.judges == {"resemblyzer": "same"}
    assert "by one judge alone (Resemblyzer same); missing: CAMPPlus: no file" in words(alone)
    fake = judges().speakers["resemblyzer"]
    two = evaluated(tmp_path / "b", replace(judges(), speakers={"resemblyzer": fake, "campplus": fake, "ecapa": fake}))
    assert two.same_voice is not None
    assert two.same_voice.verdict == "same"
    assert set(two.same_voice.judges) == {"resemblyzer", "campplus"}
    assert "the reference's voice in the result: same (Resemblyzer same, CAMPPlus same)" in words(two)
    assert "similarity, ECAPA-TDNN" in words(two)
    assert json.loads(dumps([two]))["cases"][0]["same_voice"]["verdict"] == "same"


def test_a_silent_result_is_no_voice(tmp_path: Path) -> None:
    made = evaluated(tmp_path, result=np.zeros_like(LOW))
    cosine = made.similarity["resemblyzer"]
    assert cosine.before is not None
    assert cosine.after is None
    assert cosine.meaning is None
    assert "silence" in made.skipped["resemblyzer after"]
    assert made.same_voice is not None
    assert made.same_voice.judges == {}
    assert "silence" in made.same_voice.missing["resemblyzer"]
    assert made.f0 is None
    assert "voiced both before and after" in made.skipped["f0"]
    assert made.level["result"].loudness_lufs is None
    json.loads(dumps([made]))
    words(made)


@pytest.mark.parametrize("gain_db", [-30.0, -6.0, 12.0])
def test_gain_leaves_every_rating_equal(tmp_path: Path, gain_db: float) -> None:
    def heard(folder: str, gain: float) -> tuple[Evaluation, np.ndarray]:
        scores = Scores()
        made = evaluated(tmp_path / folder, replace(judges(), dnsmos=Dnsmos(scores)), result=gain * LOW)
        return made, np.stack(scores.windows)

    (plain, windows), (louder, louder_windows) = heard("a", 1.0), heard("b", 10 ** (gain_db / 20))
    assert np.allclose(louder_windows, windows, atol=1e-5), "the network rates the same samples"
    assert louder.dnsmos == plain.dnsmos
    assert louder.mel_distance_db == pytest.approx(plain.mel_distance_db, abs=1e-3)
    after, plain_after = louder.similarity["resemblyzer"].after, plain.similarity["resemblyzer"].after
    assert after == pytest.approx(plain_after, abs=1e-3)


def test_without_judges_the_rest_is_measured(tmp_path: Path) -> None:
    reasons = dict.fromkeys(("resemblyzer", "swift-f0", "dnsmos"), "no network")
    made = evaluated(tmp_path, replace(judges(**reasons), speakers={}, f0=None, dnsmos=None))
    assert not made.similarity
    assert not made.dnsmos
    assert made.f0 is None
    assert set(reasons) <= set(made.skipped)
    assert made.mel_distance_db is not None
    assert made.mel_distance_db > 1.0


def test_recordings_of_other_lengths_are_pointed_out(tmp_path: Path) -> None:
    made = evaluated(tmp_path, result=tone(200.0, 3.0))
    assert any("lasts 2.00 s, the result 3.00 s" in note for note in made.notes)


def test_truths_of_other_lengths_are_pointed_out(tmp_path: Path) -> None:
    made = evaluated(tmp_path, vocals_before=HIGH, true_vocals=tone(1000.0, 3.0))
    assert any("true_vocals.wav 3.00 s" in note for note in made.notes)


def test_a_file_that_is_no_sound_fails_by_name(tmp_path: Path) -> None:
    folder = write_case(tmp_path, voice=LOW, source=HIGH, result=LOW)
    (folder / "result.wav").write_bytes(b"nothing")
    (case,) = find_cases(folder)
    with pytest.raises(InvalidRequestError, match=r"result\.wav: expected WAV"):
        evaluate_case(case, judges())


def test_every_step_is_told(tmp_path: Path) -> None:
    (case,) = find_cases(write_case(tmp_path, voice=LOW, source=HIGH, result=LOW))
    told: list[str] = []
    evaluate_case(case, judges(), told.append)
    assert len(told) == len(set(told)) == N_STEPS


# -------------------------------------------------------------------------------------------------------------- lyrics

LAMP = "[chorus]\nLeave a lamp on for me"


def sung(
    folder: Path, lyrics: str | None, *lines: Said, random_weights: bool | None = None, **sounds: Any
) -> Evaluation:
    write_case(folder, **sounds)
    if lyrics is not None:
        (folder / "lyrics.txt").write_text(lyrics)
    (case,) = find_cases(folder, random_weights=random_weights)
    return evaluate_case(case, replace(judges(), lyrics=lyric_judge(*lines)))[0]


def test_a_song_is_measured_without_a_source(tmp_path: Path) -> None:
    made = sung(tmp_path, LAMP, Said("Leave the lamp on for me."), result=LOW)
    assert made.lyrics is not None
    assert made.lyrics.errors["after"].error == pytest.approx(1 / 6)
    assert set(made.level) == set(made.seconds) == {"result"}
    assert set(made.dnsmos) == {"after"}
    assert made.f0 is None
    assert not made.similarity
    assert not made.skipped
    text = words(made)
    assert "lyric error" in text
    assert "16.7%" in text
    assert "of 6 words" in text
    assert "Whisper fake, after: 1 substituted, 0 deleted, 0 inserted; heard: Leave the lamp on for me." in text
    (case,) = json.loads(dumps([made]))["cases"]
    assert case["lyrics"]["errors"]["after"]["heard"] == "Leave the lamp on for me."
    assert case["lyrics"]["judge"]["sha256"] == "0" * 64


def test_a_song_in_a_voice_is_compared_with_it(tmp_path: Path) -> None:
    made = sung(tmp_path, LAMP, Said("leave a lamp on for me"), result=LOW, voice=LOW)
    cosine = made.similarity["resemblyzer"]
    assert cosine.before is None
    assert cosine.after == pytest.approx(1.0, abs=1e-3)


def test_a_cover_keeps_its_words_or_loses_them(tmp_path: Path) -> None:
    lines = (Said("leave a lamp on for me"), Said("You", no_speech=0.9))
    made = sung(tmp_path, LAMP, *lines, voice=LOW, source=HIGH, result=LOW)
    assert made.lyrics is not None
    assert [made.lyrics.errors[side].error for side in ("before", "after")] == [0.0, 1.0]
    assert "Whisper fake, after: no words" in words(made)


def test_lyrics_in_a_language_that_the_judge_does_not_know_get_no_number(tmp_path: Path) -> None:
    made = sung(tmp_path, "Mein Herz schlägt für dich in der Nacht", Said("my"), result=LOW)
    assert made.lyrics is None
    assert "not judged: Whisper fake does not know 'de'" in made.skipped["lyrics"]
    assert "lyric error" not in words(made)


def test_without_lyrics_nobody_listens_to_words(tmp_path: Path) -> None:
    made = sung(tmp_path, None, Said("never said"), voice=LOW, source=HIGH, result=LOW)
    assert made.lyrics is None
    assert not any("lyrics" in what for what in made.skipped)


def test_with_random_weights_the_words_of_the_result_say_nothing(tmp_path: Path) -> None:
    made = sung(tmp_path, LAMP, Said("hello"), random_weights=True, result=LOW)
    assert made.inconclusive == ("similarity.after", "same_voice", "dnsmos.after", "lyrics.after")
    line = next(line for line in words(made).splitlines() if "lyric error" in line)
    assert "†" in line


# ------------------------------------------------------------------------------------------------------ random weights


def test_with_random_weights_it_says_from_which_numbers_nothing_follows(tmp_path: Path) -> None:
    made = evaluated(tmp_path, report={"random_weights": True})
    assert "similarity.after" in made.inconclusive
    assert "similarity.before" not in made.inconclusive, "nothing random made the source"
    (case,) = as_json([made])["cases"]
    assert case["inconclusive"] == list(made.inconclusive)
    text = words(made)
    assert "RANDOM WEIGHTS made the result: similarity.after" in text
    assert "† says nothing: random weights" in text
    similar = next(line for line in text.splitlines() if "similarity, Resemblyzer" in line)
    assert similar.count("†") == 2, "after and change, not before"
    loud = next(line for line in text.splitlines() if "loudness" in line)
    assert "†" not in loud


def test_vocals_that_random_weights_separated_say_nothing_either(tmp_path: Path) -> None:
    made = evaluated(tmp_path, random_weights=True, vocals_before=HIGH)
    assert "similarity.before" in made.inconclusive


def test_with_known_weights_nothing_is_marked(tmp_path: Path) -> None:
    made = evaluated(tmp_path, report={"random_weights": False})
    assert made.inconclusive == ()
    assert "†" not in words(made)
    assert not any("random" in note for note in made.notes)


def test_unknown_weights_are_asked_for(tmp_path: Path) -> None:
    assert any("--random-weights" in note for note in evaluated(tmp_path).notes)


# ------------------------------------------------------------------------------------------------------- several cases


def test_medians_are_over_the_cases_that_say_something(tmp_path: Path) -> None:
    pitches = (200.0, 210.0, 400.0)
    made = [evaluated(tmp_path / f"{hz:g}", result=tone(hz)) for hz in pitches]
    made.append(evaluated(tmp_path / "random", random_weights=True, result=tone(5000.0)))
    found = {row.measure: (row, n) for row, n in medians(made)}
    shift, n = found["F0: shift"]
    assert n == 3
    assert shift.change == pytest.approx(12 * np.log2(210 / 1000), abs=0.05)
    assert found["loudness"][1] == 4
    stored = json.loads(dumps(made))["medians"]["F0: shift"]
    assert stored["cases"] == 3
    assert stored["change"] == pytest.approx(shift.change, abs=1e-3)
    assert "medians of 4 cases" in words(*made)


def test_one_case_has_no_medians(tmp_path: Path) -> None:
    made = evaluated(tmp_path)
    assert as_json([made])["medians"] == {}
    assert "medians of" not in words(made)
