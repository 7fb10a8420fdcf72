"""The command: its help, its errors, and one case from end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heartvoice.cli import evaluate as cli
from heartvoice.cli.main import app
from heartvoice.errors import CheckpointError, ExportError, ModelUnavailableError
from heartvoice.evaluation.judges import Judges
from heartvoice.export import wheel_files
from heartvoice.judges import opening as judges
from tests.fakes.judges import judges as fake_judges
from tests.fakes.judges import tone, write_case
from tests.fakes.whisper import Said, lyric_judge
from tests.support import weights_files
from tests.support.releases import write_wavlm
from tests.support.synthetic_voice import synthetic_voice

SOUNDS = {"voice": tone(200), "source": tone(1000), "result": tone(210)}
run = CliRunner()


def test_help_teaches_which_file_is_what() -> None:
    text = " ".join(run.invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"}).stdout.split())
    for name in (
        "voice.*",
        "source.*",
        "result.*",
        "vocals_before.*",
        "true_instrumental.*",
        "report.json",
        "--campplus",
    ):
        assert name in text


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelUnavailableError, match=r"matplotlib.* not installed.*heartvoice\[evaluate\]"):
        cli.evaluate(tmp_path)


def test_judges_are_opened_out_of_a_pulled_folder_and_missing_ones_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(name: str) -> Path:
        raise ExportError(f"{name}: no network")

    monkeypatch.setattr(wheel_files, "member", nothing)
    write_wavlm(tmp_path / "wavlm-base-plus-sv")
    opened = judges.open_judges(weights=tmp_path)
    assert set(opened.speakers) == {"wavlm"}
    assert opened.speakers["wavlm"].embed(synthetic_voice(16_000)).shape == (192,)
    assert f"weights pull --dir {tmp_path} --only ecapa" in opened.unavailable["ecapa"]
    assert "--campplus FILE" in opened.unavailable["campplus"]
    assert opened.unavailable["resemblyzer"] == "resemblyzer: no network"


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"mine\.bin: no such file"):
        judges.open_judges(tmp_path / "mine.bin")


# -------------------------------------------------------------------------------------------------------------- lyrics


def song(folder: Path, lyrics: str | None = "Leave a lamp on for me") -> Path:
    write_case(folder, result=tone(200))
    if lyrics is not None:
        (folder / "lyrics.txt").write_text(lyrics)
    return folder


def judged(monkeypatch: pytest.MonkeyPatch, *lines: Said) -> list[judges.LyricOptions | None]:
    """Let fakes judge; returns what is asked of the lyric judge."""
    asked: list[judges.LyricOptions | None] = []

    def opened(campplus: Path | None, lyrics: judges.LyricOptions | None, weights: Path | None) -> Judges:
        asked.append(lyrics)
        return replace(fake_judges(), lyrics=lyric_judge(*lines))

    monkeypatch.setattr(judges, "open_judges", opened)
    return asked


@pytest.mark.parametrize(("limit", "code"), [("0.25", 0), ("0.1", 1)])
def test_a_lyric_error_above_the_limit_fails_after_the_results_are_written(
    limit: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, Said("Leave the lamp on for me"))
    done = run.invoke(app, ["evaluate", str(song(tmp_path / "ballad")), "--max-lyric-error", limit])
    assert done.exit_code == code, done.output
    assert ("error: lyric error: expected at most 0.1, got more in ballad (0.17)" in done.output) is (code == 1)
    assert (tmp_path / "ballad/evaluation/evaluation.json").exists()


def test_lyrics_that_were_not_judged_fail_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, Said("la"))
    done = run.invoke(app, ["evaluate", str(song(tmp_path / "refrain", "la la la")), "--max-lyric-error", "0.25"])
    assert done.exit_code == 1
    assert "refrain (not judged)" in done.output


@pytest.mark.parametrize(
    ("options", "lyrics", "said"),
    [
        (["--no-lyrics", "--max-lyric-error", "0.25"], "Hello", "--no-lyrics, --max-lyric-error: expected one of them"),
        (["--no-lyrics", "--lyrics-language", "en"], "Hello", "--no-lyrics, --lyrics-language: expected one of them"),
        (["--max-lyric-error", "0.25"], None, "expected lyrics.txt in every case, missing in case"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_work(
    options: list[str], lyrics: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = judged(monkeypatch, Said("hello"))
    folder = song(tmp_path / "case", lyrics)
    if lyrics is None:
        write_case(folder, **SOUNDS)
    done = run.invoke(app, ["evaluate", str(folder), *options])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert not asked


def test_a_lyric_judge_that_cannot_be_had_is_left_out_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str) -> Path:
        raise ExportError(f"{name}: no network; {wheel_files.MEMBERS[name].instead}")

    monkeypatch.setattr(wheel_files, "member", offline)
    opened = judges.open_judges(None, judges.LyricOptions())
    assert opened.lyrics is None
    assert "no network; or judge no lyrics: --no-lyrics" in opened.unavailable["lyrics"]
    with pytest.raises(ModelUnavailableError, match="no network"):
        judges.open_judges(None, judges.LyricOptions(optional=False))


def test_a_lyric_judge_that_is_not_wanted_is_said_to_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_files, "member", _refuse)
    assert (
        judges.open_judges(None, judges.LyricOptions(wanted=False)).unavailable["lyrics"] == "left out by --no-lyrics"
    )
    assert "lyrics" not in judges.open_judges(None).unavailable


def _refuse(name: str) -> Path:
    assert not name.startswith("whisper"), "nothing is fetched for nothing"
    raise ExportError("no network")


def test_a_folder_without_a_model_is_refused_by_name(tmp_path: Path) -> None:
    done = run.invoke(app, ["evaluate", str(song(tmp_path / "case")), "--lyric-model", str(tmp_path)])
    assert done.exit_code == 1
    missing = "missing model.bin, config.json, tokenizer.json, vocabulary.txt"
    assert f"{tmp_path}: expected a Whisper in CTranslate2's format, {missing}" in " ".join(done.output.split())


def test_a_model_from_a_folder_judges_as_the_one_out_of_the_wheel(tmp_path: Path) -> None:
    weights_files.tiny_en()
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt"):
        (tmp_path / name).symlink_to(wheel_files.member(f"whisper-tiny.en {name}"))
    opened = judges.open_lyric_judge(tmp_path, "en")
    assert opened.transcriber.languages == {"en"}
    assert opened.origin.sha256 == wheel_files.MEMBERS["whisper-tiny.en model.bin"].sha256


def test_wrong_weights_of_a_judge_are_refused(tmp_path: Path) -> None:
    weights_files.resemblyzer()
    wrong = tmp_path / "campplus.bin"
    wrong.write_bytes(b"no weights")
    done = run.invoke(app, ["evaluate", str(write_case(tmp_path / "case", **SOUNDS)), "--campplus", str(wrong)])
    assert done.exit_code == 1
    assert str(wrong) in done.output


def test_a_folder_that_is_no_case_is_invalid_input(tmp_path: Path) -> None:
    done = run.invoke(app, ["evaluate", str(write_case(tmp_path / "case", voice=tone(200)))])
    assert done.exit_code == 2
    assert "missing source.*" in done.output


def test_results_do_not_go_among_the_recordings(tmp_path: Path) -> None:
    folder = write_case(tmp_path / "case", **SOUNDS)
    done = run.invoke(app, ["evaluate", str(folder), "-o", str(folder)])
    assert done.exit_code == 2
    assert "expected another folder" in done.output
    assert not (folder / "evaluation.json").exists()
