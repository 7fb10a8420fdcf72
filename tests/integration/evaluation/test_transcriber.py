"""Windows of a recording, what counts as words, and the real Whisper on speech and on what is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from heartvoice.audio.dsp import resample
from heartvoice.errors import CheckpointError
from heartvoice.evaluation.lyric_text import lyric_words, words
from heartvoice.evaluation.lyrics import LyricJudge, lyric_error
from heartvoice.evaluation.transcriber import MODEL, TOKENIZER, Transcriber, quietest, windows
from tests.fakes.whisper import SPECIAL, Said, transcriber
from tests.support import music
from tests.support.speech import say
from tests.support.weights_files import tiny_en

RATE_HZ = 16_000
LYRICS = "[chorus]\nSo leave a lamp on for me, leave the radio low,\nI am only two rivers and a bridge from home."
OTHERS = "[verse]\nI packed a coat, a paper map, the photograph you never liked, the one where you are laughing hard."
LOOP = "we will follow, " * 20


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 29.9, 30.0, 30.1, 61.0, 119.9, 600.0])
def test_windows_cover_a_recording_and_none_is_too_long(seconds: float) -> None:
    audio = np.random.default_rng(1).standard_normal(round(seconds * RATE_HZ)).astype(np.float32)
    made = windows(audio)
    ends = [0, *(end for _, end in made)]
    assert [start for start, _ in made] == ends[:-1]
    assert ends[-1] == len(audio)
    lengths = [(end - start) / RATE_HZ for start, end in made]
    assert all(0 < length <= 30.0 for length in lengths)
    assert len(made) == -(-len(audio) // (30 * RATE_HZ))
    assert min(lengths, default=30.0) >= min(seconds, 10.0), "no scrap is left at the end"


def test_a_window_ends_where_it_is_quiet() -> None:
    audio = np.random.default_rng(2).standard_normal(50 * RATE_HZ).astype(np.float32)
    audio[round(21.9 * RATE_HZ) : round(22.1 * RATE_HZ)] = 0.0
    (_, end), _ = windows(audio)
    assert end / RATE_HZ == pytest.approx(22.0, abs=0.02)


def test_the_quietest_place_of_a_short_stretch_is_inside_it() -> None:
    audio = np.random.default_rng(3).standard_normal(1000).astype(np.float32)
    assert 10 <= quietest(audio, 10, 20) < 20
    assert quietest(audio, 10, 10) == 10


@pytest.mark.parametrize(
    ("said", "has_words"),
    [
        (Said("hello there"), True),
        (Said("hello there", no_speech=0.5, log_probability=-0.9), True),
        (Said("you", no_speech=0.95, log_probability=-0.8), False),
        (Said("I'm going to do that.", log_probability=-1.9), False),
        (Said(""), False),
        (Said(LOOP), False),
    ],
    ids=["words", "hard to hear", "nobody speaks", "unlikely", "nothing", "a loop"],
)
def test_whisper_s_own_doubts_decide_whether_there_are_words(said: Said, has_words: bool) -> None:
    (heard,) = transcriber(said)[0].hear(silence(5.0), "en")
    assert heard.has_words is has_words
    assert heard.text == said.text.strip(), "timestamps are no text"


def test_a_loop_is_heard_again_in_halves() -> None:
    judge, _ = transcriber(Said(LOOP), Said("leave a lamp"), Said(LOOP), Said("for"), Said("me"))
    heard = judge.hear(silence(24.0), "en")
    assert [(each.start_s, each.end_s, each.text) for each in heard] == [
        (0.0, 6.0, "leave a lamp"), (6.0, 10.5, "for"), (10.5, 24.0, "me")
    ]  # fmt: skip


def test_a_loop_where_nobody_speaks_is_not_heard_again() -> None:
    (heard,) = transcriber(Said(LOOP, no_speech=0.8), Said("never said"))[0].hear(silence(24.0), "en")
    assert not heard.has_words


def test_a_text_that_breaks_off_goes_on_where_it_did() -> None:
    judge, _ = transcriber(Said("leave a", breaks_off_at_s=12.5), Said("lamp", breaks_off_at_s=2.0), Said("on"))
    heard = judge.hear(silence(20.0), "en")
    assert [(each.start_s, each.end_s, each.text) for each in heard] == [
        (0.0, 12.5, "leave a"), (12.5, 14.5, "lamp"), (14.5, 20.0, "on")
    ]  # fmt: skip


@pytest.mark.parametrize("at_s", [0.0, 0.9, 19.1, 20.0, 30.0])
def test_nothing_is_heard_again_at_a_window_s_ends(at_s: float) -> None:
    (heard,) = transcriber(Said("leave a lamp", breaks_off_at_s=at_s))[0].hear(silence(20.0), "en")
    assert heard.end_s == 20.0


def test_a_model_of_many_languages_is_told_which_one() -> None:
    judge, model = transcriber(Said("bonjour"), multilingual=True)
    assert judge.languages == {"en", "fr", "zh"}
    judge.hear(silence(1.0), "fr")
    assert model.prompts == [[SPECIAL[f"<|{name}|>"] for name in ("startoftranscript", "fr", "transcribe")]]


def test_nothing_is_heard_in_no_sound() -> None:
    assert transcriber(Said("never said"))[0].hear(silence(0.0), "en") == []


@pytest.mark.parametrize("broken", [TOKENIZER, MODEL])
def test_a_damaged_model_is_refused_by_name(broken: str, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in (MODEL, TOKENIZER, "config.json", "vocabulary.txt")}
    tokenizer = '{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}'
    for name, path in files.items():
        path.write_text("damaged" if name != TOKENIZER or broken == TOKENIZER else tokenizer)
    with pytest.raises(CheckpointError, match=r"model\.bin: not a readable Whisper model"):
        Transcriber.open(files)


# ---------------------------------------------------------------------------------------------------- the real weights


@pytest.fixture(scope="session")
def judge() -> LyricJudge:
    return tiny_en()


def test_spoken_lyrics_are_heard_and_other_lyrics_are_not(judge: LyricJudge) -> None:
    (heard,) = judge.transcriber.hear(say(LYRICS.partition("\n")[2], "en-us"), "en")
    assert heard.has_words
    found = words(heard.text, "en")
    assert lyric_error(lyric_words(LYRICS, "en"), found, heard.text).error <= 0.1
    assert lyric_error(lyric_words(OTHERS, "en"), found, heard.text).error >= 0.7


def noise() -> np.ndarray:
    return 0.1 * np.random.default_rng(4).standard_normal(10 * RATE_HZ).astype(np.float32)


def hum() -> np.ndarray:
    time = np.arange(10 * RATE_HZ) / RATE_HZ
    made: np.ndarray = sum(0.1 * np.sin(2 * np.pi * 50 * n * time) / n for n in range(1, 9)).astype(np.float32)
    return made


def band() -> np.ndarray:
    return resample(music.band(10.0).mean(axis=0), 44_100, RATE_HZ)


@pytest.mark.parametrize("sound", [noise, hum, band])
def test_no_words_are_heard_where_nobody_sings(sound: Callable[[], np.ndarray], judge: LyricJudge) -> None:
    made = judge.judge(LYRICS, {"after": sound()})
    assert made.errors["after"].heard == ""
    assert made.errors["after"].error == 1.0
