"""Quick runs of the benchmark that `tests/unit/benchmarks/test_song_with_voice.py` tests in parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import codec_batch, stream
from benchmarks import song_with_voice as benchmark


@pytest.mark.timeout(600)  # an export, and half a minute of audio
def test_quick_run_measures_every_part(tmp_path: Path, exported: Path) -> None:
    command = [
        "--preset",
        "tiny",
        "--repository",
        str(exported),
        "--quick",
        "--threads",
        "1",
        "--results",
        str(tmp_path),
    ]
    benchmark.main(command)
    (path,) = tmp_path.glob("voice-tiny-*.json")
    result = json.loads(path.read_text())
    assert result["complete"]
    rows = {(row["case"], row["variant"]): row for row in result["rows"]}
    stages = {"cover": {"separation", "conversion", "judging", "mix"}}
    stages["song"] = stages["cover"] | {"lm", "codec"}
    for job, names in stages.items():
        assert {variant for case, variant in rows if case == job} == names | {"whole", "sum of its stages"}
        total = sum(rows[job, name]["mean_ms"] for name in names)
        assert rows[job, "sum of its stages"]["mean_ms"] == pytest.approx(total, rel=1e-3)
        assert rows[job, "whole"]["ratio"] == pytest.approx(rows[job, "whole"]["mean_ms"] / total, rel=1e-3)
    assert rows["cover", "whole"]["audio_s"] == 7.0
    assert rows["half a second, voice", "hit"]["ratio"] > 0
    assert 0 < rows["conversion", "live"]["mel_db"] < rows["conversion", "exact, another seed"]["mel_db"]


@pytest.mark.timeout(600)
def test_first_audio_is_measured_against_the_whole_song(tmp_path: Path, exported: Path) -> None:
    command = ["--repository", str(exported), "--quick", "--voice", "--threads", "1", "--results", str(tmp_path)]
    stream.main(command)
    (path,) = tmp_path.glob("stream-tiny-*.json")
    result = json.loads(path.read_text())
    rows = {(row["case"], row["variant"]): row for row in result["rows"]}
    assert len(rows) == 2 * len(stream.BUDGETS)
    for name, budget in stream.BUDGETS.items():
        first = rows[name, "first audio"]
        assert first["budget"] == budget
        assert 0 < first["ratio"] <= 1


def test_the_codec_with_rows_of_several_songs(tmp_path: Path, exported: Path) -> None:
    codec_batch.main(["--repository", str(exported), "--quick", "--threads", "1", "--results", str(tmp_path)])
    (path,) = tmp_path.glob("codec-batch-tiny-*.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["variant"] for row in rows] == [f"{count} songs in one call" for count in codec_batch.SONGS]
    assert rows[0]["ratio"] == 1.0
    assert all(row["p50_ms"] > 0 for row in rows)
