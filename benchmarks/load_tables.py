"""Writes a load test's result into docs/explanation/performance.md and benchmarks/DIARY.md.

    python -m benchmarks.load_tables [RESULT.json] [--write]

Takes the newest `load-*.json` in benchmarks/results if none is named; `--write` puts the tables between their marks in
both files, otherwise they are printed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heartvoice.loadtest.harness import RESULTS
from heartvoice.loadtest.machine import ROOT

Row = Mapping[str, Any]
PAGE, DIARY = "docs/explanation/performance.md", "benchmarks/DIARY.md"
END = "<!-- end -->"


def newest(folder: Path) -> Path:
    """Return the newest result of a complete load test.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(path for path in folder.glob("load-*.json") if not path.name.startswith("load-quick"))
    if not found:
        raise FileNotFoundError(f"{folder}: no load-*.json; run heartvoice bench")
    return found[-1]


def seconds(milliseconds: float | None) -> str:
    """Format seconds, for example `0.62`."""
    return "-" if milliseconds is None else f"{milliseconds / 1e3:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _of(result: Mapping[str, Any], question: str) -> list[Row]:
    return [row for row in result["rows"] if row.get("question") == question]


def _failed(row: Row, cells: int) -> list[str]:
    return [f"failed: {row['failed'].splitlines()[0]}", *[""] * (cells - 1)]


def stages(result: Mapping[str, Any]) -> str:
    """Table of every stage and job at every concurrency."""
    lines = []
    for row in _of(result, "stages"):
        name = [row["case"].removeprefix("stage: "), row["variant"].removeprefix("concurrency ")]
        if "failed" in row:
            lines.append([*name, *_failed(row, 6)])
            continue
        waits = ", ".join(f"{model} {wait:.0f}" for model, wait in row["inner_queues_ms"].items() if wait >= 10)
        percentiles = " / ".join(seconds(row[f"p{q}_ms"]) for q in (50, 90, 95, 99))
        hourly = f"{row['songs_per_hour']:.0f}" if "songs_per_hour" in row else ""
        own = row.get("queue_ms")
        lines.append([
            *name, str(row["n"]), percentiles, f"{row['rtf']:.3f}", hourly, "-" if own is None else f"{own:.0f}", waits
        ])  # fmt: skip
    head = (
        "request",
        "at once",
        "n",
        "p50 / p90 / p95 / p99, s",
        "RTF",
        "songs an hour",
        "own queue, ms",
        "inner queues over 10 ms",
    )
    return table(head, lines)


def streams(result: Mapping[str, Any]) -> str:
    """Table of first audio, gaps and playback."""
    lines = []
    for row in _of(result, "streams"):
        name = [row["case"].removeprefix("stream: "), row["variant"].removeprefix("concurrency ")]
        if "failed" in row:
            lines.append([*name, *_failed(row, 7)])
            continue
        lines.append([
            *name, str(row["n"]), " / ".join(seconds(row[f"ttfa_p{q}_ms"]) for q in (50, 95)),
            f"{seconds(row['p50_ms'])} / {seconds(row['p95_ms'])}",
            " / ".join(seconds(row.get(key)) for key in ("gap_p50_ms", "gap_p95_ms", "gap_max_ms")),
            f"{row['jobs_with_underruns']} of {row['done']}, {row['silence_s']:.2f} s", f"{row['buffer_s']:.2f} s",
            f"{row['songs_per_hour']:.0f}",
        ])  # fmt: skip
    head = (
        "job", "at once", "n", "first audio p50 / p95, s", "whole p50 / p95, s", "gap p50 / p95 / most, s",
        "jobs with underruns, mean silence", "buffer needed at most", "jobs an hour",
    )  # fmt: skip
    return table(head, lines)


def saturation(result: Mapping[str, Any]) -> str:
    """Table of outcomes by offered load."""
    lines = [
        [
            f"{row['offered_per_s']:.2f} ({row['share']:.0%})", str(row["n"]), f"{row['done_per_s']:.2f}",
            " / ".join(seconds(row.get(f"p{q}_ms")) for q in (50, 90, 95, 99)), seconds(row.get("queue_ms")),
            str(row["refused"]), str(row["late"]), str(row["broken"]), f"{row['power']:.2f}",
        ]
        for row in _of(result, "saturation")
        if "offered_per_s" in row
    ]  # fmt: skip
    head = (
        "songs a second offered", "n", "done a second", "p50 / p90 / p95 / p99, s", "mean wait, s", "refused", "late",
        "broken", "power",
    )  # fmt: skip
    return table(head, lines)


def length(result: Mapping[str, Any]) -> str:
    """Table of the cost of a second, by length."""
    lines = []
    for row in _of(result, "length"):
        if "failed" in row:
            lines.append([row["case"].removeprefix("length: "), row["variant"], *_failed(row, 3)])
            continue
        parts = ", ".join(
            f"{key.removesuffix('_ms_per_s')} {value:.0f}"
            for key, value in row.items()
            if key.endswith("_ms_per_s") and value >= 0.5
        )
        cost = f"{row['ms_per_s']:.0f} ms"
        lines.append([row["case"].removeprefix("length: "), row["variant"], str(row["n"]), cost, parts])
    return table(("job", "length", "n", "a second of it costs", "of which, in ms (stages overlap)"), lines)


def shared(result: Mapping[str, Any]) -> str:
    """Table of both transports."""
    rows = [row for row in _of(result, "shared") if "failed" not in row]
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        grpc_row, shared_row = (
            next((r for r in rows if r["case"] == case and r["variant"] == v), None) for v in ("gRPC", "shared memory")
        )
        if grpc_row is None or shared_row is None:
            continue
        ratio = shared_row.get("ratio", shared_row["p50_ms"] / grpc_row["p50_ms"])
        name = case.removeprefix("shared memory: ")
        lines.append(
            [
                name,
                f"{grpc_row['input_mb']:.1f}",
                str(grpc_row["n"]),
                seconds(grpc_row["p50_ms"]),
                seconds(shared_row["p50_ms"]),
                f"{ratio:.2f}",
            ]
        )
    return table(("request", "input, MB", "n", "gRPC p50, s", "shared memory p50, s", "ratio"), lines)


def memory(result: Mapping[str, Any]) -> str:
    """Table of the resident memory of each process."""
    lines = [[row["variant"], f"{row['first_mb']:.0f}", f"{row['most_mb']:.0f}"] for row in _of(result, "memory")]
    return table(("process", "before any load, MB", "at most, MB"), lines)


def brief(result: Mapping[str, Any]) -> str:
    """The page's table: each job, by how many run at once."""
    wanted = ("song", "song with a voice", "cover")
    rows = [r for r in _of(result, "stages") if r["case"].removeprefix("stage: ") in wanted and "failed" not in r]
    lines = [
        [
            f"{row['case'].removeprefix('stage: ')}, {row['concurrency']} at once",
            f"{seconds(row['p50_ms'])} / {seconds(row['p95_ms'])} s", f"{row['songs_per_hour']:.0f}",
            f"{row['rtf']:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    return table(("10 s of", "p50 / p95", "an hour", "RTF"), lines)


def headline(result: Mapping[str, Any], name: str) -> str:
    """Describe the load test of the tables."""
    state = "**contended: the order of magnitude alone**" if result["contended"] else "quiet"
    knee = result.get("saturation", {})
    text = f"Preset `{result['preset']}`, {result['machine']['cores']} cores, {state} (`{name}`)."
    if knee.get("knee_per_s"):
        text += f" Knee at {knee['knee_per_s']:.2f} songs a second offered"
        sustained = knee.get("sustained_per_s")
        text += f"; nothing refused up to {sustained:.2f}." if sustained else "."
    return text


def documents(result: Mapping[str, Any], name: str) -> dict[tuple[str, str], str]:
    """Return each table by its file and mark."""
    makers = {
        "stages": stages, "streams": streams, "saturation": saturation, "length": length, "shared": shared,
        "memory": memory,
    }  # fmt: skip
    link = headline(result, f"benchmarks/results/{name}")
    made = {(DIARY, f"load-{mark}"): maker(result) for mark, maker in makers.items()}
    return made | {(DIARY, "load-run"): link, (PAGE, "load"): f"{link}\n\n{brief(result)}"}


def replaced(text: str, mark: str, content: str) -> str:
    """Replace the text between a mark and the next end by `content`.

    Raises:
        ValueError: the mark is missing.
    """
    pattern = re.compile(rf"(<!-- table: {re.escape(mark)} -->\n).*?({re.escape(END)})", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no mark {mark!r}")
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text, count=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.load_tables", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("result", type=Path, nargs="?", help="default: the newest load-*.json")
    parser.add_argument("--write", action="store_true", help=f"write into {PAGE} and {DIARY}")
    options = parser.parse_args(arguments)
    path = options.result or newest(RESULTS)
    made = documents(json.loads(path.read_text(encoding="utf-8")), path.name)
    for (file, mark), content in made.items():
        if not options.write:
            print(f"\n{mark}\n\n{content}")
            continue
        target = ROOT / file
        target.write_text(replaced(target.read_text(encoding="utf-8"), mark, content), encoding="utf-8")


if __name__ == "__main__":
    main()
