"""Plots a load test's result as PNG files, one per question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from heartvoice.audio.encode import replacing
from heartvoice.loadtest.length import STAGES

Row = Mapping[str, Any]
_DPI = 120
_COLUMNS = 4
_P50, _P95, _REFUSED, _FAINT = "#1f77b4", "#d62728", "#8a6d3b", "#bbbbbb"


def draw(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `stages.png`, `streams.png`, `saturation.png`, `length.png`, `memory.png`, as far as measured.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawers: dict[str, Callable[[Sequence[Row], Mapping[str, Any]], Figure]] = {
        "stages": _stages, "streams": _streams, "saturation": _saturation, "length": _length, "memory": _memory,
    }  # fmt: skip
    paths = []
    for question, drawer in drawers.items():
        rows = [row for row in result["rows"] if row.get("question") == question and "failed" not in row]
        if not rows:
            continue
        figure = drawer(rows, result)
        state = "contended: claim nothing from it" if result["contended"] else "quiet machine"
        figure.text(
            0.995, 0.004, f"{result['preset']}, {result['machine']['cores']} cores, {state}", ha="right", size=7
        )
        FigureCanvasAgg(figure)
        path = folder / f"{question}.png"
        with replacing(path) as part:
            figure.savefig(part, dpi=_DPI, format="png")
        paths.append(path)
    return paths


def _cases(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {case: [row for row in rows if row["case"] == case] for case in dict.fromkeys(row["case"] for row in rows)}


def _grid(n: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(n, _COLUMNS)
    lines = -(-n // columns)
    figure = Figure(figsize=(3.4 * columns, height * lines), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for spare in axes[n:]:
        spare.set_visible(False)
    return figure, axes[:n]


def _lines(axes: Axes, rows: Sequence[Row], x: str, names: Mapping[str, str], scale: float = 1e-3) -> None:
    """Plot named columns over `x`, in seconds."""
    for (name, color), style in zip(names.items(), ("o-", "s-", "^--", "v:"), strict=False):
        shown = [row for row in rows if name in row]
        label = name.removesuffix("_ms").replace("_", " ")
        axes.plot(
            [row[x] for row in shown], [row[name] * scale for row in shown], style, color=color, label=label, ms=4
        )
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _stages(rows: Sequence[Row], _: Mapping[str, Any]) -> Figure:
    cases = _cases(rows)
    figure, axes = _grid(len(cases), 2.7)
    figure.suptitle("Latency by requests at once; grey: seconds of audio made in a second")
    for place, (case, points) in zip(axes, cases.items(), strict=True):
        _lines(place, points, "concurrency", {"p50_ms": _P50, "p95_ms": _P95})
        place.set_title(f"{case.removeprefix('stage: ')}, n = {min(p['n'] for p in points)} or more", size=9)
        place.set_xticks([point["concurrency"] for point in points])
        place.set_ylabel("s", size=8)
        right = place.twinx()
        right.plot([p["concurrency"] for p in points], [p["audio_s_per_s"] for p in points], "x:", color="grey")
        right.set_ylim(bottom=0)
        right.tick_params(labelcolor="grey", labelsize=8)
    axes[0].legend(fontsize=7)
    return figure


def _streams(rows: Sequence[Row], _: Mapping[str, Any]) -> Figure:
    cases = _cases(rows)
    figure, axes = _grid(len(cases), 3.2)
    figure.suptitle("Streams by jobs at once: first audio, the whole, and the wait that a player needs to never stop")
    for place, (case, points) in zip(axes, cases.items(), strict=True):
        _lines(place, points, "concurrency", {"ttfa_p50_ms": _P50, "p50_ms": _P95})
        place.plot(
            [p["concurrency"] for p in points], [p["buffer_s"] for p in points], "^--", color=_REFUSED,
            label="buffer needed, most", ms=4,
        )  # fmt: skip
        for point in points:
            text = f"{point['jobs_with_underruns']}/{point['done']}"
            place.annotate(text, (point["concurrency"], point["buffer_s"]), size=7, xytext=(0, 4), **_offset())
        place.set_title(case.removeprefix("stream: "), size=9)
        place.set_xticks([point["concurrency"] for point in points])
        place.set_ylabel("s", size=8)
    axes[0].legend(fontsize=7, title="n/m: jobs with underruns", title_fontsize=7)
    return figure


def _offset() -> dict[str, Any]:
    return {"textcoords": "offset points", "ha": "center", "color": _REFUSED}


def _saturation(rows: Sequence[Row], result: Mapping[str, Any]) -> Figure:
    points = [row for row in rows if "offered_per_s" in row]
    figure, (rate, latency) = _grid(2, 3.8)
    figure.set_size_inches(10, 4.2)
    offered = [point["offered_per_s"] for point in points]
    rate.plot(offered, [point["done_per_s"] for point in points], "o-", color=_P50, label="done")
    rate.plot(offered, offered, ":", color=_FAINT, label="offered")
    width = 0.03 * max(offered, default=1.0)
    share = [point["refused"] / point["n"] * point["offered_per_s"] for point in points]
    lost = [(point["late"] + point["broken"]) / point["n"] * point["offered_per_s"] for point in points]
    rate.bar(offered, share, width, color=_REFUSED, alpha=0.6, label="refused, with numbers")
    rate.bar(offered, lost, width, bottom=share, color=_P95, label="accepted, then late or broken")
    rate.set_ylabel("songs per second")
    _lines(latency, points, "offered_per_s", {"p50_ms": _P50, "p90_ms": "#2ca02c", "p95_ms": _P95, "p99_ms": "grey"})
    latency.set_ylabel("seconds to the whole song")
    knee = result.get("saturation", {}).get("knee_per_s")
    for axes in (rate, latency):
        axes.set_xlabel("songs per second offered (Poisson)")
        axes.grid(alpha=0.3)
        if knee is not None:
            axes.axvline(knee, color="black", ls="--", lw=1, label="knee (greatest power)")
        axes.legend(fontsize=7)
    figure.suptitle("Saturation")
    return figure


def _length(rows: Sequence[Row], _: Mapping[str, Any]) -> Figure:
    cases = _cases(rows)
    figure, axes = _grid(len(cases), 3.6)
    figure.set_size_inches(5 * len(cases), 3.8)
    figure.suptitle("What a second of audio costs, by the length of the whole (stages overlap)")
    names = ["ms_per_s", *(f"{stage.removesuffix('_s')}_ms_per_s" for stage in STAGES)]
    for place, (case, points) in zip(axes, cases.items(), strict=True):
        for name in names:
            shown = [point for point in points if name in point]
            if shown:
                label = "whole" if name == "ms_per_s" else name.removesuffix("_ms_per_s")
                style = "ko-" if name == "ms_per_s" else ".--"
                place.plot([p["seconds"] for p in shown], [p[name] for p in shown], style, label=label)
        place.set_title(case.removeprefix("length: "), size=9)
        place.set_xlabel("seconds of audio")
        place.set_ylabel("ms for a second")
        place.set_ylim(bottom=0)
        place.grid(alpha=0.3)
        place.legend(fontsize=7)
    return figure


def _memory(rows: Sequence[Row], _: Mapping[str, Any]) -> Figure:
    shown = [row for row in rows if row["variant"] != "all"]
    figure = Figure(figsize=(7, 0.3 * len(shown) + 1.2), layout="constrained")
    axes = figure.subplots()
    names = [row["variant"] for row in shown]
    axes.barh(names, [row["most_mb"] for row in shown], color=_P50, label="at most")
    axes.barh(names, [row["first_mb"] for row in shown], color=_FAINT, label="before any load")
    axes.invert_yaxis()
    axes.set_xlabel("resident MB")
    axes.legend(fontsize=8)
    figure.suptitle("Memory of the server and of each model's process")
    return figure
