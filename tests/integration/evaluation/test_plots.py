"""Plots: that they are there, and show what was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from heartvoice.evaluation.cases import find_cases
from heartvoice.evaluation.harness import Evaluation, Evidence, evaluate_case
from heartvoice.evaluation.plots import draw
from tests.fakes.judges import judges, tone, write_case


def case(folder: Path) -> tuple[Evaluation, Evidence]:
    (found,) = find_cases(write_case(folder, voice=tone(200), source=tone(1000), result=tone(210)))
    return evaluate_case(found, judges())


def test_three_plots_are_written_and_replaced(tmp_path: Path) -> None:
    made, evidence = case(tmp_path / "case")
    for _ in range(2):
        paths = draw(made, evidence, tmp_path / "out" / "case")
        assert sorted(path.name for path in (tmp_path / "out" / "case").iterdir()) == sorted(
            path.name for path in paths
        )
        assert [path.name for path in paths] == ["f0.png", "mels.png", "similarity.png"]
        assert all(path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for path in paths)


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    made, evidence = case(tmp_path / "case")
    made.similarity = {}
    silent = replace(evidence.after, contour=None)
    assert [path.name for path in draw(made, replace(evidence, after=silent), tmp_path)] == ["mels.png"]
