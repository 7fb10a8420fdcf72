"""The `heartvoice export` command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from heartvoice.cli.main import app
from heartvoice.config.presets import PRESETS
from heartvoice.export import configs, repository
from heartvoice.export.check import committed_drift
from tests.support import releases


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)], env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_help_teaches() -> None:
    text = run("--help").output
    assert "heartvoice export --preset tiny --random-weights 0" in text
    for option in ("--preset", "--weights", "--random-weights", "--precision", "--repository", "--only"):
        assert option in text


@pytest.mark.parametrize("command", ["check", "configs", "lint", "typed", "plans"])
def test_help_of_every_command_shows_an_example(command: str) -> None:
    assert f" {command} " in run("--help").output
    assert f"heartvoice export {command}" in run(command, "--help").output.split("Options")[0].split("\n", 3)[3]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--check"], "check"),
        (["--repository", "r", "--lint"], "lint"),
        (["--write-configs"], "configs"),
        (["--target", "tensorrt"], "plans"),
        (["--target=typed"], "typed"),
        (["--timing-cache", "file"], "plans"),
        (["--workspace-gb", "8"], "plans"),
        (["--inputs", "folder"], "typed"),
        (["--no-report"], "typed"),
    ],
)
def test_former_options_are_refused_with_the_command_that_took_their_place(arguments: list[str], command: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert f"`heartvoice export {command}`" in result.output


def test_options_in_front_of_a_command_are_refused() -> None:
    result = run("--repository", "r", "check")
    assert result.exit_code == 2
    assert "--repository: expected behind the command: `heartvoice export check ...`" in result.output


def test_module_is_light() -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'numpy', 'tokenizers'}"
    code = f"import sys, heartvoice.cli.export; print(*sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_up_to_date_export_says_so(repository: Path) -> None:
    result = run("--preset", "tiny", "--random-weights", "0", "--separator", "htdemucs", "--repository", repository)
    assert result.exit_code == 0, result.output
    assert "0 graphs written, 12 up to date" in result.output
    assert "noise" in result.output


def test_export_reports_every_graph(tmp_path: Path) -> None:
    result = run("--random-weights", "0", "--repository", tmp_path / "r", "--only", "heartcodec_condition")
    assert result.exit_code == 0, result.output
    assert "heartcodec_condition: 0.1 MB in" in result.output
    assert "differs from PyTorch by" in result.output


def test_licences_are_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "oss-3b", releases.PRESET)
    releases.write_release(tmp_path / "weights")
    official = ("--preset", "oss-3b", "--weights", tmp_path / "weights")
    result = run(*official, "--repository", tmp_path / "r", "--only", "svc_regulator", "--only", "svc_style")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line for line in lines if line.startswith("weights of")] == [
        "weights of svc_regulator: GPL-3.0 (model card of Plachta/Seed-VC), which holds for graphs made from them, too",
        "weights of svc_style: Apache-2.0 (3D-Speaker)",
    ]
    assert lines.index("weights of svc_style: Apache-2.0 (3D-Speaker)") < next(
        index for index, line in enumerate(lines) if line.startswith("svc_regulator: ")
    )
    assert "noise" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--preset", "huge", "--random-weights", "0"],
            f"--preset: expected one of {', '.join(PRESETS)}, got 'huge'",
        ),
        (["--preset", "tiny"], "where do the weights come from?"),
        (["--random-weights", "0", "--weights", "."], "expected one of them, got both"),
        (["--random-weights", "-1"], "--random-weights"),
        (["--weights", "/no/such/folder"], "--weights"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_incomplete_weights_folder_is_named(tmp_path: Path) -> None:
    result = run("--preset", "oss-3b", "--weights", tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path}: expected one folder HeartMuLa-oss-*, found none" in result.output


def test_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(repository, "export_repository", interrupted)
    assert run("--random-weights", "0", "--repository", tmp_path / "r").exit_code == 130


def test_check_lists_drift_and_exits_with_1(repository: Path) -> None:
    assert run("check").exit_code == 0
    assert run("check", "--repository", repository).exit_code == 0
    (repository / "song" / "config.pbtxt").unlink()
    (repository / "heartcodec_flow" / "1" / "model.onnx").unlink()
    result = run("check", "--repository", repository)
    assert result.exit_code == 1
    assert "song/config.pbtxt: missing" in result.output
    assert "heartcodec_flow/1/model.onnx: missing" in result.output
    assert "2 differences" in result.output


def test_configs_changes_nothing_that_agrees() -> None:
    assert committed_drift() == []
    assert configs.write_committed() == []
    assert "all configs are up to date" in run("configs").output


def test_an_installation_has_no_committed_configs(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "model_repository"
    monkeypatch.setattr(configs, "COMMITTED", missing)
    monkeypatch.setattr(configs.write_committed, "__defaults__", (missing,))
    monkeypatch.setattr(committed_drift, "__defaults__", (missing,))
    for command in ("check", "configs"):
        result = run(command)
        assert result.exit_code == 1
        assert f"{missing}: missing; only a checkout of heartvoice has it" in result.output.replace("\n", "")
    assert run("check", "--repository", exported).exit_code == 0
