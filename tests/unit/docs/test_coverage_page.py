"""The page of what the tests reach."""

from __future__ import annotations

from typing import Any

from docs.scripts.coverage import page


def file_of(lines: int, reached: int, branches: int, **functions: tuple[int, list[int]]) -> dict[str, Any]:
    summary = {"num_statements": lines, "covered_lines": reached, "num_branches": branches, "covered_branches": 1}
    made = {name: {"summary": {"num_statements": n}, "executed_lines": ran} for name, (n, ran) in functions.items()}
    return {"summary": summary, "functions": made}


def test_rooms_are_summed_and_functions_without_a_line_are_listed() -> None:
    files = {
        "heartvoice/audio/dsp.py": file_of(30, 30, 4, resample=(3, [5, 6, 7])),
        "heartvoice/audio/mixer.py": file_of(10, 0, 0, mix=(2, []), nothing=(0, [])),
        "client/aio.py": file_of(60, 45, 0, song=(1, [2])),
    }
    lines = page({"files": files}).splitlines()
    assert "| all | 3 | 100 | 75.0 % | 4 | 75.0 % |" in lines
    assert "| `heartvoice/audio` | 2 | 40 | 75.0 % | 4 | 50.0 % |" in lines
    assert "| `client` | 1 | 60 | 75.0 % | 0 | none |" in lines
    assert [line for line in lines if line.startswith("- ")] == ["- `heartvoice/audio/mixer.py`: `mix`"]
