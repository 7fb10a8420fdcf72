"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from heartvoice.cli.evaluate import progress_bar
from heartvoice.cli.progress import LiveProgress, PlainProgress, describe, progress_view
from heartvoice.client.messages import Event


def test_frames_and_speed_are_described() -> None:
    assert describe(Event("lm", 100, 375, 4.0)) == "100/375 frames, 2.0x real time"
    assert describe(Event("lm", 0, 375, 0.0)) == "0/375 frames"


def test_a_pipe_gets_a_line_at_the_start_at_the_end_and_now_and_then() -> None:
    out, now = io.StringIO(), [0.0]
    with PlainProgress(Console(file=out), clock=lambda: now[0]) as view:
        for done in range(0, 100, 10):
            now[0] += 3
            view.show(Event("lm", done, 90, 1.0 + done))
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["0/90", "40/90", "80/90", "90/90"]
    assert out.getvalue().startswith("writing: 0/90 frames\n")


def test_steps_are_lines_in_a_pipe_now_and_then() -> None:
    out, now = io.StringIO(), [0.0]
    with progress_bar(6, Console(file=out), clock=lambda: now[0]) as progress:
        task = progress.task_ids[0]
        progress.update(task, description="opening the judges")
        for step in range(6):
            now[0] += 6
            progress.update(task, advance=1, description=f"[song {step}]")
    assert out.getvalue().split("\n")[:3] == ["0/6 opening the judges", "2/6 [song 1]", "4/6 [song 3]"]


def test_a_terminal_gets_bars_and_is_left_tidy() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    view = progress_view(console)
    assert isinstance(view, LiveProgress)
    with view:
        view.show(Event("lm", 100, 375, 4.0))
        view.show(Event("codec", 93, 375, 4.0))
        view.show(Event("new_stage", 1, 375, 4.0))
    text = out.getvalue()
    assert "writing" in text
    assert "93/375 frames, 1.9x real time" in text
    assert "new_stage" in text
    assert text.endswith("\x1b[2K") or "\x1b[?25h" in text  # the cursor is back


def test_bars_are_in_the_order_of_the_work_whichever_begins_first() -> None:
    out = io.StringIO()
    with LiveProgress(Console(file=out, force_terminal=True, width=100)) as view:
        for stage in ("mix", "codec", "new_stage", "convert", "lm"):
            view.show(Event(stage, 100, 375, 4.0))
        for done in (200, 375):
            view.show(Event("convert", done, 375, 8.0))
    last = out.getvalue().rpartition("writing")[2]
    titles = ("decoding", "converting", "mixing", "new_stage")
    assert [last.find(title) for title in titles] == sorted(last.find(title) for title in titles)
    assert last.find("decoding") > 0
    assert "375/375 frames, 3.8x real time" in last
    assert "separating" not in out.getvalue(), "a stage that has not begun has no bar"


def test_a_pipe_names_all_stages_of_a_song_in_a_voice() -> None:
    out = io.StringIO()
    with PlainProgress(Console(file=out)) as view:
        for stage in ("lm", "codec", "separate", "convert", "mix"):
            view.show(Event(stage, 0, 375, 0.0))
    titles = [line.partition(":")[0] for line in out.getvalue().splitlines()]
    assert titles == ["writing", "decoding", "separating", "converting", "mixing"]


def test_a_file_gets_plain_lines() -> None:
    assert isinstance(progress_view(Console(file=io.StringIO())), PlainProgress)
