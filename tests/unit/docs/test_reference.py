"""Generated pages and images are those that the code makes now."""

from __future__ import annotations

from typing import Any

import pytest

from docs.scripts import images, protos, reference


def test_pages_on_models_settings_and_weights_are_current() -> None:
    assert reference.outdated() == [], "run: python -m docs.scripts.reference --write"


@pytest.mark.parametrize("name", images.DRAWINGS)
def test_images_are_current(name: str) -> None:
    committed = (images.IMAGES / name).read_text(encoding="utf-8")
    assert committed == images.DRAWINGS[name](), "run: python -m docs.scripts.images --write"


def test_a_contended_run_is_never_plotted() -> None:
    result: dict[str, Any] = {"contended": True, "rows": [{"case": "a", "variant": "b", "ratio": 0.5}]}
    with pytest.raises(ValueError, match="contended"):
        images.row(result, "a", "b")
    assert images.row(result | {"contended": False}, "a", "b")["ratio"] == 0.5


def test_a_missing_mark_is_an_error() -> None:
    with pytest.raises(ValueError, match="no mark 'models'"):
        reference.replaced("nothing", "models", "text")


def test_proto_files_are_the_clients_own_protocol() -> None:
    assert protos.outdated() == [], "run: python -m docs.scripts.protos --write"
