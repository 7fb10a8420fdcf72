"""The command: its help, its errors, and one case from end to end."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from heartvoice.cli.main import app
from heartvoice.judges import opening as judges
from tests.fakes.judges import judges as fake_judges
from tests.fakes.judges import write_case
from tests.support import weights_files
from tests.support.synthetic_voice import synthetic_voice
from tests.unit.cli.test_evaluate import SOUNDS, run


def test_its_help_imports_nothing_heavy() -> None:
    code = (
        "from heartvoice.cli.main import app\ntry: app(['evaluate', '--help'])\nexcept SystemExit: pass\n"
        "import sys; heavy = ('torch', 'onnx', 'onnxruntime', 'matplotlib', 'scipy', 'soxr')\n"
        "print(*[name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


def test_a_folder_becomes_tables_json_and_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "open_judges", lambda campplus, lyrics, weights: fake_judges(campplus="not given"))
    for name in ("first", "second"):
        write_case(tmp_path / name, **SOUNDS)
    for _ in range(2):  # its own results are no case
        done = run.invoke(app, ["evaluate", str(tmp_path), "--random-weights"], env={"COLUMNS": "160"})
        assert done.exit_code == 0, done.output
    results = tmp_path / "evaluation"
    found = json.loads((results / "evaluation.json").read_text())
    assert [case["name"] for case in found["cases"]] == ["first", "second"]
    assert all(case["random_weights"] for case in found["cases"])
    for name in ("first", "second"):
        assert {path.name for path in (results / name).iterdir()} == {"f0.png", "mels.png", "similarity.png"}
    for text in ("first", "similarity, Resemblyzer", "medians of 2 cases", "RANDOM WEIGHTS", str(results)):
        assert text in done.stdout


def test_json_goes_to_standard_output_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "open_judges", lambda campplus, lyrics, weights: fake_judges())
    folder = write_case(tmp_path / "case", **SOUNDS)
    done = run.invoke(app, ["evaluate", str(folder), "--json", "-o", str(tmp_path / "out")])
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert not (folder / "evaluation").exists()


def test_the_real_judges_open_and_judge(tmp_path: Path) -> None:
    weights_files.resemblyzer()  # or the test is skipped: there is no network
    low, high = (synthetic_voice(48_000, hz)[None] for hz in (140.0, 210.0))
    folder = write_case(tmp_path / "case", voice=low, source=low, result=high)
    done = run.invoke(app, ["evaluate", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    (case,) = json.loads(done.stdout)["cases"]
    assert set(case["similarity"]) == {"resemblyzer"}
    assert "--campplus" in case["skipped"]["campplus"]
    assert case["similarity"]["resemblyzer"]["before"] == pytest.approx(1.0, abs=1e-3)
    assert case["f0"]["shift_semitones"] == pytest.approx(12 * math.log2(210 / 140), abs=0.1)
    assert 1.0 <= case["dnsmos"]["after"]["overall"] <= 5.0
