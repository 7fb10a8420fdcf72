"""Draws the images of README.md and docs/: the pipeline, and the headline of benchmarks/results.

python -m docs.scripts.images --write
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docs.scripts.svg import INK, MUTED, Drawing

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
RESULTS = ROOT / "benchmarks" / "results"
BLUE, GREEN, ORANGE, GREY = "#dbeafe", "#dcfce7", "#ffedd5", "#f1f5f9"
BARS = (
    ("LM step, fp32", "engine-lm-mid-20261122T200725Z.json", "LM step", "ort, fp32", 0.65),
    ("LM step, 8-bit weights", "engine-lm-mid-20261122T200725Z.json", "LM step", "ort, int8", 0.32),
    ("Codec flow, onnxruntime fp32", "engine-flow-mid-20261122T134017Z.json", "flow step", "onnxruntime fp32", 1.05),
    ("Codec flow, OpenVINO fp32", "engine-flow-mid-20261122T134017Z.json", "flow step", "openvino fp32", 0.8),
)
"""Label, result file, case, variant, budget: every run here was quiet."""


def pipeline() -> str:
    """The way from text and recordings to a song."""
    drawing = Drawing(860, 330, "How heartvoice makes a song and a cover")

    def stage(x: float, y: float, name: str, what: str, fill: str, width: float = 140) -> None:
        drawing.box(x, y, width, 56, fill, "#cbd5e1")
        drawing.write(x + width / 2, y + 24, name, bold=True)
        drawing.write(x + width / 2, y + 43, what, size=12, colour=MUTED)

    stage(20, 40, "lyrics, tags", "your text", GREY)
    stage(20, 137, "recording", "for a cover", GREY)
    stage(20, 234, "voice reference", "3 to 60 s, consent", GREY)
    stage(200, 40, "HeartMuLa", "3B music LM", BLUE)
    stage(380, 40, "HeartCodec", "flow and decoder", BLUE)
    stage(380, 137, "Demucs", "source separation", GREEN)
    stage(380, 234, "SVC (seed-vc)", "voice conversion", ORANGE)
    stage(680, 137, "mix", "loudness, true peak", GREEN, 160)
    stage(680, 40, "song", "48 kHz stereo, streamed", GREY, 160)
    drawing.arrow((160, 68), (198, 68))
    drawing.arrow((340, 68), (378, 68))
    drawing.arrow((520, 68), (678, 68))
    drawing.arrow((450, 96), (450, 135))
    drawing.arrow((160, 165), (378, 165))
    drawing.arrow((520, 165), (678, 165))
    drawing.arrow((450, 193), (450, 232))
    drawing.arrow((160, 262), (378, 262))
    drawing.arrow((520, 262), (760, 262), (760, 195))
    drawing.arrow((760, 137), (760, 98))
    drawing.write(600, 60, "no voice given", size=12, colour=MUTED)
    drawing.write(356, 60, "codes", size=11, colour=MUTED)
    drawing.write(600, 157, "instrumental", size=12, colour=MUTED)
    drawing.write(460, 217, "vocals", size=12, colour=MUTED, anchor="start")
    drawing.write(640, 254, "new vocals", size=12, colour=MUTED)
    drawing.write(
        430, 316, "One Triton server; every stage is also a model of its own. One thin gRPC client.", size=12,
        colour=MUTED,
    )  # fmt: skip
    return drawing.text()


def row(result: dict[str, Any], case: str, variant: str) -> dict[str, Any]:
    """The result's row of a case and variant.

    Raises:
        ValueError: there is none, or the run was contended and may claim nothing.
    """
    if result["contended"]:
        raise ValueError("a contended run may not be plotted")
    for each in result["rows"]:
        if each.get("case") == case and each.get("variant") == variant:
            return dict(each)
    raise ValueError(f"no row {case!r}, {variant!r}")


def performance() -> str:
    """Ratios to PyTorch eager of the quiet runs, with their budgets."""
    height = 110 + 44 * len(BARS)
    drawing = Drawing(860, height, "Time of each stage over PyTorch eager, with its budget")
    left, scale = 270.0, 460.0
    drawing.write(24, 34, "Time over PyTorch eager of the same module (below 1 is faster)", bold=True, anchor="start")
    drawing.write(
        24, 54, "preset mid, random weights, two shared CPU cores, medians of pairs; dashes mark the budget", size=12,
        anchor="start", colour=MUTED,
    )  # fmt: skip
    for index, (label, file, case, variant, budget) in enumerate(BARS):
        found = row(json.loads((RESULTS / file).read_text(encoding="utf-8")), case, variant)
        ratio, y = float(found["ratio"]), 78 + 44 * index
        drawing.write(left - 12, y + 19, label, size=13, anchor="end")
        drawing.box(left, y, scale * ratio, 28, "#86c5a4" if ratio <= budget else "#f2b28b")
        drawing.write(left + scale * ratio - 10, y + 19, f"{ratio:.2f}", size=13, anchor="end", colour=INK)
        drawing.line(left + scale * budget, y - 4, left + scale * budget, y + 32, INK, "4 3")
    drawing.line(left + scale, 70, left + scale, height - 30)
    drawing.write(left + scale, height - 12, "1 = eager", size=12, colour=MUTED)
    return drawing.text()


DRAWINGS = {"pipeline.svg": pipeline, "performance.svg": performance}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="docs.scripts.images", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="into docs/images; otherwise only say what differs")
    options = parser.parse_args(arguments)
    for name, draw in DRAWINGS.items():
        path, text = IMAGES / name, draw()
        same = path.exists() and path.read_text(encoding="utf-8") == text
        if options.write and not same:
            path.write_text(text, encoding="utf-8")
        print(f"{name}: {'current' if same else 'written' if options.write else 'differs'}")


if __name__ == "__main__":
    main()
