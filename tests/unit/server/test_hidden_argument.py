"""An argument that a program gets and the process list does not show."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from heartvoice.server import hidden_argument
from heartvoice.server.processes import die_with_parent

SAY = (
    "import json, os, subprocess, sys;"
    "child = subprocess.run(['env'], capture_output=True, text=True).stdout;"
    "print(json.dumps([sys.argv[1:], dict(os.environ), child]), flush=True);"
    "sys.stdin.read()"
)
STAND_IN, SECRET = "--key=", "--key=0123456789abcdef"


def started(env: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-S", "-c", SAY, "--first", STAND_IN, "--last"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return hidden_argument.start(command, {STAND_IN: SECRET}, env=env, before_exec=die_with_parent, **pipes)


def said(process: subprocess.Popen[bytes]) -> tuple[list[str], dict[str, str], str]:
    assert process.stdout is not None
    arguments, environment, child = json.loads(process.stdout.readline())
    return arguments, environment, child


@pytest.mark.parametrize("env", [{"PATH": os.environ["PATH"], "HOME": "/"}, {"PATH": os.environ["PATH"]}])
def test_the_program_has_it_and_the_process_list_does_not(env: dict[str, str]) -> None:
    process = started(env)
    line = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
    arguments, environment, child = said(process)
    process.communicate()
    assert arguments == ["--first", SECRET, "--last"]
    assert STAND_IN in line
    assert not any("0123456789abcdef" in part for part in line)
    assert environment["PATH"] == env["PATH"]
    assert "0123456789abcdef" not in json.dumps(environment) + child, "children would inherit it"
    assert process.returncode == 0


def test_two_of_them_have_their_places_each() -> None:
    command = [sys.executable, "-S", "-c", SAY, "--b=", STAND_IN]
    hidden = {STAND_IN: SECRET, "--b=": "--b=fedcba"}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = hidden_argument.start(
        command, hidden, env={"PATH": os.environ["PATH"]}, before_exec=lambda: None, **pipes
    )
    line = Path(f"/proc/{process.pid}/cmdline").read_text()
    arguments, environment, child = said(process)
    process.communicate()
    assert arguments == ["--b=fedcba", SECRET]
    for secret in ("fedcba", "0123456789abcdef"):
        assert secret not in line + json.dumps(environment) + child


def test_the_process_list_never_shows_it() -> None:
    # The program's first deed is to look at its own command line.
    look = (
        "import sys; print(open('/proc/self/cmdline').read().count('=0123' + '45'), sys.argv[1].count('=0123' + '45'))"
    )
    command = [sys.executable, "-S", "-c", look, STAND_IN]
    process = hidden_argument.start(
        command, {STAND_IN: SECRET}, env=dict(os.environ), before_exec=lambda: None, stdout=subprocess.PIPE
    )
    assert process.communicate()[0].split() == [b"0", b"1"]


@pytest.mark.parametrize("broken", ["_swap", "_stack", "traced"])
def test_where_the_kernel_refuses_the_program_starts_all_the_same_and_a_warning_follows(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if broken == "traced":
        monkeypatch.setattr(hidden_argument, "_TRACE_ME", 12345)  # no such request: the kernel says no
    else:
        monkeypatch.setattr(hidden_argument, broken, refuse)
    process = started({"PATH": os.environ["PATH"]})
    assert said(process)[0] == ["--first", SECRET, "--last"]
    with caplog.at_level(logging.WARNING):
        hidden_argument.warn_if_shown(process.pid, "0123456789abcdef")
    process.communicate()
    assert "every user of this host can read the server's admin key" in caplog.text
    assert "0123456789abcdef" not in caplog.text


def test_a_program_that_is_not_there_is_an_oserror() -> None:
    with pytest.raises(FileNotFoundError, match="/no/such/program"):
        hidden_argument.start(["/no/such/program", "-k"], {"-k": "-k1"}, env=dict(os.environ), before_exec=lambda: None)


def test_a_child_that_dies_before_its_program_begins_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    release, tries = hidden_argument._release, []

    def once_dead(process: subprocess.Popen[bytes], hidden: Mapping[str, str]) -> None:
        tries.append(process)
        if len(tries) == 1:
            os.kill(process.pid, signal.SIGKILL)
        release(process, hidden)

    monkeypatch.setattr(hidden_argument, "_release", once_dead)
    process = started({"PATH": os.environ["PATH"]})
    assert b"0123456789abcdef" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert said(process)[0] == ["--first", SECRET, "--last"]
    process.communicate()
    assert len(tries) > 1
