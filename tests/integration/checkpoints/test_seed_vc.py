"""The official files: names at full size, what is passed over, and what is refused."""

from __future__ import annotations

import json

from heartvoice.config.svc import RegulatorConfig
from heartvoice.models.seed_vc.build import part_manifest
from tests.unit.checkpoints.test_seed_vc import ASSETS


def test_full_size_regulator_reads_the_official_names() -> None:
    official_names = json.loads((ASSETS / "seed_vc_dit_state_dict.json").read_text())["net"]["length_regulator"]
    names = part_manifest(RegulatorConfig())
    assert {name: tuple(official_names[name]) for name in names} == names
    assert set(official_names) - set(names) == {"embedding.weight", "mask_token"}
