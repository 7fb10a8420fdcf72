"""Folders into cases, and what is said of folders that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from heartvoice.errors import InvalidRequestError
from heartvoice.evaluation import cases
from heartvoice.evaluation.cases import RESULTS, find_cases
from tests.fakes.judges import tone, write_case
from tests.support import music

THREE = {"voice": tone(200), "source": tone(300), "result": tone(301)}


def test_a_folder_of_files_is_one_case(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "duet", vocals_after=tone(300), **THREE)
    (case,) = find_cases(folder)
    assert case.name == "duet"
    assert set(case.files) == {"voice", "source", "result", "vocals_after"}
    assert case.random_weights is None
    assert case.read("voice").audio.shape == (1, 32_000)


def test_a_folder_of_folders_is_several_cases_by_name(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_case(tmp_path / name, **THREE)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / RESULTS).write_text("{}")
    (tmp_path / ".hidden").mkdir()
    assert [case.name for case in find_cases(tmp_path)] == ["a", "b", "c"]


def test_any_format_will_do(tmp_path: Path) -> None:
    folder = write_case(tmp_path, source=tone(300), result=tone(301))
    (folder / "voice.OGG").write_bytes(music.encode(tone(200), 16_000, "OGG"))
    (case,) = find_cases(folder)
    assert case.read("voice").duration_s == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("missing", ["voice", "source", "result"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    folder = write_case(tmp_path, **{role: audio for role, audio in THREE.items() if role != missing})
    with pytest.raises(InvalidRequestError, match=rf"missing {missing}\.\*"):
        find_cases(folder)


def test_a_song_is_a_result_with_its_lyrics(tmp_path: Path) -> None:
    folder = write_case(tmp_path, result=tone(301))
    (folder / "lyrics.txt").write_text("[verse]\nHello", encoding="utf-8")
    (case,) = find_cases(folder)
    assert set(case.files) == {"result"}
    assert case.lyrics == "[verse]\nHello"


def test_a_song_without_its_recording_or_parts_of_a_source_without_it_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lyrics.txt").write_text("Hello")
    with pytest.raises(InvalidRequestError, match=r"missing result\.\*"):
        find_cases(tmp_path)
    write_case(tmp_path, result=tone(301), vocals_before=tone(300))
    with pytest.raises(InvalidRequestError, match=r"missing source\.\*"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"\xff\xfeh", "expected UTF-8"), (b"a" * 20_001, "at most 20000 bytes, got 20001"), (b"a\x00", "U\\+0000")],
)
def test_lyrics_that_are_no_text_are_refused_by_name(content: bytes, problem: str, tmp_path: Path) -> None:
    (write_case(tmp_path, result=tone(301)) / "lyrics.txt").write_bytes(content)
    with pytest.raises(InvalidRequestError, match=rf"lyrics\.txt: .*{problem}"):
        find_cases(tmp_path)


def test_an_unknown_file_is_named_with_what_is_known(tmp_path: Path) -> None:
    folder = write_case(tmp_path, vocal_before=tone(300), **THREE)
    with pytest.raises(InvalidRequestError, match=r"vocal_before\.wav: unknown, expected one of .*vocals_before"):
        find_cases(folder)


def test_a_file_that_is_there_twice_is_ambiguous(tmp_path: Path) -> None:
    folder = write_case(tmp_path, **THREE)
    (folder / "voice.flac").write_bytes(music.encode(tone(200), 16_000, "FLAC"))
    with pytest.raises(InvalidRequestError, match=r"voice\.wav: ambiguous, voice\.flac is there too"):
        find_cases(folder)


def test_a_suffix_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    folder = write_case(tmp_path, **THREE)
    (folder / "true_vocals.m4a").write_bytes(b"")
    with pytest.raises(InvalidRequestError, match=r"true_vocals\.m4a: expected a name ending in \.wav"):
        find_cases(folder)


def test_a_file_that_is_no_sound_is_named(tmp_path: Path) -> None:
    folder = write_case(tmp_path, **THREE)
    (folder / "voice.wav").write_bytes(b"GIF89a, not sound")
    (case,) = find_cases(folder)
    with pytest.raises(InvalidRequestError, match=r"voice\.wav: expected WAV .* got an image"):
        case.read("voice")


def test_files_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = find_cases(write_case(tmp_path, **THREE))
    size = case.files["voice"].stat().st_size
    monkeypatch.setattr(cases, "MAX_LOCAL_FILE_BYTES", size)
    assert case.read("voice").duration_s == 2.0
    monkeypatch.setattr(cases, "MAX_LOCAL_FILE_BYTES", size - 1)
    with pytest.raises(InvalidRequestError, match=rf"voice\.wav: expected at most {size - 1} bytes, got {size}"):
        case.read("voice")


@pytest.mark.parametrize("nothing", ["missing", "file", "empty"])
def test_a_folder_without_cases_is_refused(nothing: str, tmp_path: Path) -> None:
    folder = tmp_path / nothing
    if nothing == "file":
        folder.write_text("")
    if nothing == "empty":
        folder.mkdir()
    with pytest.raises(InvalidRequestError, match=f"{nothing}: expected a"):
        find_cases(folder)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("random", [False, True])
def test_the_report_says_whether_weights_are_random(random: bool, wrapped: bool, tmp_path: Path) -> None:
    report: dict[str, object] = {"random_weights": random, "seed": 0}
    folder = write_case(tmp_path, {"file": "x.wav", "report": report} | report if wrapped else report, **THREE)
    assert [case.random_weights for case in find_cases(folder)] == [random]


def test_random_weights_are_believed_whoever_says_so(tmp_path: Path) -> None:
    folder = write_case(tmp_path, {"random_weights": False}, **THREE)
    assert [case.random_weights for case in find_cases(folder, random_weights=True)] == [True]


@pytest.mark.parametrize("text", ["{", "[]", '{"random_weights": 1}', "{}"])
def test_a_report_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    folder = write_case(tmp_path, **THREE)
    (folder / "report.json").write_text(text)
    with pytest.raises(InvalidRequestError, match=r"report\.json: expected a job's report"):
        find_cases(folder)
