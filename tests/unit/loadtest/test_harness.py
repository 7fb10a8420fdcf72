"""Percentiles, turns, calibration, contention and the shape of a result."""

from __future__ import annotations

import functools
import json
import operator
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from heartvoice.loadtest import harness, machine
from heartvoice.loadtest.harness import BestCalibration, Run, Timing, alternate, contention, difference, paired_ratio

FAST = {"bandwidth_gb_s": 20.0, "matmul_gflop_s": 300.0}


def timing(*milliseconds: float) -> Timing:
    return Timing(tuple(value / 1e3 for value in milliseconds))


def make_run(folder: Path, *rates: dict[str, float]) -> Run:
    """A run whose calibrations are these, one after another; the last one stays."""
    left = list(rates)

    def calibrate() -> dict[str, float]:
        return left.pop(0) if len(left) > 1 else left[0]

    return Run("sample", "tiny", "fp32", 1, results=folder, calibration=calibrate, key="a machine")


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("base=/home/ann/heartvoice-base", "base=heartvoice-base"), ("/home/ann/songs/", "songs/"), ("now=.", "now=."),
        ("--seconds", "--seconds"), ("build/repository/tiny", "build/repository/tiny"), ("1/2", "1/2"), ("/", "/"),
    ],
)  # fmt: skip
def test_results_do_not_tell_whose_folders_they_are(argument: str, kept: str) -> None:
    assert harness.without_folders(argument) == kept


def test_percentiles_are_interpolated() -> None:
    summary = timing(*range(1, 101)).summary()
    assert summary["n"] == 100
    assert summary["p50_ms"] == pytest.approx(50.5)
    assert summary["p95_ms"] == pytest.approx(95.05)
    assert summary["p99_ms"] == pytest.approx(99.01)
    assert summary["min_ms"] == pytest.approx(1)
    assert summary["mean_ms"] == pytest.approx(50.5)


def test_a_ratio_is_made_of_neighbours_in_time() -> None:
    drifting, twice = timing(1, 10, 100), timing(2, 20, 200)
    ratio = paired_ratio(twice, drifting)
    assert {round(value, 9) for value in ratio.values()} == {2.0}
    assert paired_ratio(timing(2, 30, 400), drifting)["ratio"] == pytest.approx(3)


def test_a_ratio_of_other_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is"):
        paired_ratio(timing(1, 2), timing(1, 2, 3))


def test_variants_take_turns_and_each_starts_a_round() -> None:
    calls: list[str] = []
    found = alternate({name: functools.partial(calls.append, name) for name in "ab"}, n=3, warmup=1)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(each.seconds) for name, each in found.items()} == {"a": 3, "b": 3}


def test_lead_calls_do_not_count() -> None:
    calls: list[str] = []
    found = alternate({name: functools.partial(calls.append, name) for name in "ab"}, n=1, warmup=0, lead=2)
    assert "".join(calls) == "aaabbb"
    assert len(found["a"].seconds) == 1


def test_the_time_limit_leaves_the_least_rounds() -> None:
    found = alternate({"a": lambda: None}, n=50, limit_s=0, least=4)
    assert len(found["a"].seconds) == 4


def test_difference_is_relative_and_in_decibels() -> None:
    reference = np.full(1000, 2.0)
    found = difference(reference * 1.01, reference)
    assert found["relative_error"] == pytest.approx(0.01)
    assert found["snr_db"] == pytest.approx(40)
    assert difference(reference, reference) == {"relative_error": 0, "snr_db": 999}


def test_a_result_names_no_folder_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTVOICE_GOLDEN", "/somebody/golden:/somebody/vectors")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = machine.environment()
    assert found["OMP_NUM_THREADS"] == "3"
    assert "HEARTVOICE_GOLDEN" not in found


def test_the_best_calibration_is_kept_for_each_machine(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    one, other = BestCalibration(path, "one"), BestCalibration(path, "other")
    one.update({"bandwidth": 10, "matmul": 5})
    other.update({"bandwidth": 99})
    assert one.update({"bandwidth": 8, "matmul": 6}) == {"bandwidth": 10, "matmul": 6}
    assert json.loads(path.read_text()) == {"one": {"bandwidth": 10, "matmul": 6}, "other": {"bandwidth": 99}}
    assert [file.name for file in tmp_path.iterdir()] == ["calibration.json"]


def test_twenty_per_cent_under_the_best_is_contended() -> None:
    best = {"bandwidth": 10.0, "matmul": 100.0}
    assert contention({"bandwidth": 8.01, "matmul": 81}, best) == []
    assert contention({"bandwidth": 7.99, "matmul": 81}, best) == ["bandwidth"]


@pytest.mark.parametrize(
    ("before", "after", "contended"), [(1.0, 1.0, False), (0.9, 0.85, False), (0.7, 1.0, True), (1.0, 0.7, True)]
)
def test_a_run_is_contended_if_either_calibration_is_low(
    tmp_path: Path, before: float, after: float, contended: bool
) -> None:
    BestCalibration(tmp_path / "calibration.json", "a machine").update(FAST)
    rates = [{name: rate * share for name, rate in FAST.items()} for share in (before, after)]
    run = make_run(tmp_path, *rates)
    assert run.finish()["contended"] is contended
    assert json.loads(run.path.read_text())["contended"] is contended


def test_a_result_says_where_it_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, FAST)
    slow, fast = timing(10, 12, 14), timing(5, 6, 7)
    run.add("step", "eager", slow, note="yardstick")
    run.add("step", "graph", fast, baseline=slow, odd=float("nan"), count=np.int64(3))
    run.add("step", "broken", failed="RuntimeError: no such engine")
    run.save()
    assert json.loads(run.path.read_text())["complete"] is False
    run.finish()

    lines = capsys.readouterr().out.splitlines()
    assert any("broken: FAILED: RuntimeError: no such engine" in line for line in lines)
    result = json.loads(lines[-1])
    assert run.path.read_text() == lines[-1] + "\n"
    assert run.path.name.startswith("sample-tiny-")
    for name in (
        "benchmark", "preset", "precision", "threads", "complete", "contended", "commit", "dirty", "command", "started",
        "finished", "machine", "versions", "environment", "calibration", "load", "rows",
    ):  # fmt: skip
        assert name in result
    assert {"cpu", "cores", "memory_gb", "gpu", "driver"} <= set(result["machine"])
    assert {"python", "heartvoice", "torch", "numpy"} <= set(result["versions"])
    graph = result["rows"][1]
    assert graph["ratio"] == 0.5
    assert (graph["n"], graph["p50_ms"], graph["odd"], graph["count"]) == (3, 6.0, "nan", 3)


def test_runs_that_start_in_one_second_keep_their_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make_run(tmp_path, FAST) for _ in range(3)]
    for number, run in enumerate(runs):
        monkeypatch.setattr(run, "_started", runs[0]._started)
        run.add("number", str(number))
        run.save()
        run.store()
    assert len({run.path for run in runs}) == 3
    assert [json.loads(run.path.read_text())["rows"][0]["variant"] for run in runs] == ["0", "1", "2"]


def test_the_table_needs_no_rich(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    run = make_run(tmp_path, FAST)
    run.add("step", "eager", timing(10, 12, 14))
    run.finish(json_line=False)
    out = capsys.readouterr().out
    assert "eager" in out
    assert out.splitlines()[-1] == str(run.path)


def test_calibration_measures_bandwidth_and_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_BUFFER_BYTES", 2**20)
    monkeypatch.setattr(harness, "_MATRIX", 32)
    rates = harness.calibrate()
    assert set(rates) == {"bandwidth_gb_s", "matmul_gflop_s"}
    assert min(rates.values()) > 0


def test_peak_memory_is_measured_in_a_process_of_its_own() -> None:
    n_bytes = 80_000_000
    build: Callable[..., Callable[[], object]] = functools.partial
    peak = machine.peak_in_child(build, operator.mul, b"x", n_bytes)
    assert 0.95 * n_bytes < peak.growth < 1.5 * n_bytes
    assert peak.loaded > 1_000_000


def test_others_share_of_the_processor_is_between_0_and_1() -> None:
    before = machine.CpuTimes.now()
    assert sum(range(200_000)) > 0
    assert 0 <= machine.CpuTimes.now().others(before) <= 1
