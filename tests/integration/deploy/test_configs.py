"""The configs of an export, by Triton's own schema."""

from __future__ import annotations

from pathlib import Path

from tests.unit.deploy.test_configs import assert_fit_for_a_container, is_default, parse


def test_exported_configs_are_fit_for_a_container(exported: Path) -> None:
    paths = [*exported.glob("*/config.pbtxt"), *exported.glob("*/configs/*.pbtxt")]
    assert "heartmula_step" in {path.parent.name for path in paths}
    for path in paths:
        config = parse(path)
        if is_default(path):
            assert_fit_for_a_container(config)
