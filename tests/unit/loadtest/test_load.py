"""The load test's parts: which perf_analyzer, metrics, headers, the knee, tables and plots, the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import load_tables
from heartvoice.cli import bench as load_cli
from heartvoice.cli.main import app
from heartvoice.errors import InvalidRequestError, ModelUnavailableError
from heartvoice.export.wheel_files import MEMBERS
from heartvoice.loadtest.harness import Run
from heartvoice.loadtest.machine import ROOT
from heartvoice.loadtest.perf import Latencies, n_requests, published_name
from heartvoice.loadtest.saturation import summary
from heartvoice.loadtest.target import Target, parse_metrics, queue_ms, read_headers
from tests.support.load_results import result

PAGE = """# HELP nv_inference_count x
nv_inference_count{model="svc",version="1"} 4
nv_inference_queue_duration_us{model="svc",version="1"} 8000
heartvoice_jobs_started_total{model="svc"} 4
heartvoice_jobs_queue_seconds_total{model="svc"} 2
heartvoice_lm_queue_seconds_bucket{le="0.1",model="heartmula"} 3
heartvoice_lm_queue_seconds_count{model="heartmula"} 3
heartvoice_lm_queue_seconds_sum{model="heartmula"} 0.3
nv_cpu_utilization 0.5
"""


@pytest.mark.parametrize(
    ("machine", "glibc", "name"),
    [
        ("x86_64", (2, 36), "perf-analyzer-2.49"),
        ("x86_64", (2, 38), "perf-analyzer-x86_64"),
        ("aarch64", (2, 39), "perf-analyzer-aarch64"),
    ],
)
def test_the_perf_analyzer_is_one_that_runs_here(machine: str, glibc: tuple[int, int], name: str) -> None:
    assert published_name(machine, glibc) == name
    assert name in MEMBERS


def test_no_perf_analyzer_is_said() -> None:
    with pytest.raises(ModelUnavailableError, match=r"PyPI has none for aarch64 with glibc 2\.36; it needs 2\.38"):
        published_name("aarch64", (2, 36))


def test_its_rate_is_by_littles_law() -> None:
    row = {f"p{q} latency": str(q * 1000) for q in (50, 90, 95, 99)} | {"Avg latency": "500000"}
    found = Latencies.read(row)
    assert found.percentiles == {"p50_ms": 50.0, "p90_ms": 90.0, "p95_ms": 95.0, "p99_ms": 99.0}
    assert found.rate_hz(4) == 8.0


def test_points_take_about_as_long_as_asked() -> None:
    assert n_requests(0.1, 2, 6.0, 100) == 60
    assert n_requests(0.01, 2, 6.0, 100) == 100
    assert n_requests(9.0, 8, 6.0, 100) == 8, "each that goes at once sends one at least"


def test_waiting_is_added_up_over_the_queues() -> None:
    waits = queue_ms({}, parse_metrics(PAGE))
    assert waits == {"svc": 2.0 + 500.0, "heartmula": pytest.approx(100.0)}
    assert queue_ms(parse_metrics(PAGE), parse_metrics(PAGE)) == {}


def test_headers_come_from_lines_and_a_bad_one_is_not_shown() -> None:
    assert read_headers("Authorization: Bearer a:b\n\n x-key : 1", "f") == [
        ("authorization", "Bearer a:b"),
        ("x-key", "1"),
    ]
    with pytest.raises(InvalidRequestError) as caught:
        read_headers("good: 1\nsecret-without-colon", "FILE")
    assert str(caught.value) == "FILE: line 2: expected `name: value`"


def test_a_secret_goes_on_no_command_line_unless_asked() -> None:
    hidden = Target("127.0.0.1:1", None, None, [("authorization", "x")], exposed=False)
    with pytest.raises(InvalidRequestError, match="--expose-headers"):
        hidden.perf_headers(shared=False)
    shown = Target("127.0.0.1:1", None, None, [("authorization", "x")])
    assert shown.perf_headers(shared=False) == [("authorization", "x")]


def test_the_knee_is_where_power_is_greatest() -> None:
    def point(offered: float, power: float, lost: int = 0) -> dict[str, Any]:
        return {"offered_per_s": offered, "power": power, "n": 10, "done": 10 - lost}

    points = [point(1, 1.0), point(2, 2.0), point(3, 1.5), point(4, 0.5, lost=3), point(5, 0.4)]
    assert summary(points) == {"knee_per_s": 2, "sustained_per_s": 3}
    assert summary([point(1, 1.0, lost=1)]) == {"knee_per_s": 1, "sustained_per_s": None}
    assert summary([]) == {"knee_per_s": None, "sustained_per_s": None}


def test_every_table_has_its_place_in_the_documents() -> None:
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file in (load_tables.PAGE, load_tables.DIARY)}
    for (file, mark), content in load_tables.documents(result(), "load-tiny-x.json").items():
        assert content in load_tables.replaced(texts[file], mark, content)
        for line in content.splitlines():
            if line.startswith("|"):
                assert line.count("|") == content.split("\n| --- |")[0].splitlines()[-1].count("|"), line
    with pytest.raises(ValueError, match="no mark 'other'"):
        load_tables.replaced(texts[load_tables.PAGE], "other", "")


def test_a_contended_result_says_so() -> None:
    assert "contended" in load_tables.headline(result(contended=True), "x")
    assert "contended" not in load_tables.headline(result(), "x")
    assert "failed: no" in load_tables.stages(result())


@pytest.mark.parametrize("text", ["", "1,x", "0", "2,-1"])
def test_concurrency_is_checked(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="concurrency: expected numbers from 1 on"):
        load_cli.read_concurrency(text)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "psutil" else object())
    with pytest.raises(ModelUnavailableError, match=r"psutil not installed.*'heartvoice\[bench\]'"):
        load_cli.check_installed(plots=False)


def test_the_command_teaches() -> None:
    help_text = CliRunner().invoke(app, ["bench", "--help"]).output
    for word in ("saturation", "perf_analyzer", "Ctrl-C", "--expose-headers"):
        assert word in help_text


def test_an_unknown_load_is_named(tmp_path: Path) -> None:
    from heartvoice.config.presets import PRESETS

    with pytest.raises(InvalidRequestError, match=r"model: expected one of speaker_encoder, .*got 'sing'"):
        load_cli.wanted_loads(PRESETS["tiny"], ["sing"])


def test_shared_memory_that_is_not_allowed_is_a_row_of_its_own(tmp_path: Path) -> None:
    from heartvoice.config.presets import PRESETS
    from heartvoice.loadtest.shared import measure_shared
    from heartvoice.loadtest.work import loads

    rates = {"bandwidth_gb_s": 1.0}
    run = Run("load", "tiny", "fp32", 1, results=tmp_path, calibration=lambda: rates, key="here")
    graph = loads(PRESETS["tiny"])[1]
    steps = measure_shared(run, Target("songs.example:1", None, None), None, graph, seconds=1, rounds=1, n=1)
    assert len(list(steps)) == 1
    (row,) = run.rows
    assert "expected a server at 127.0.0.1:PORT" in row["failed"]
