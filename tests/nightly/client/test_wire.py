"""Tensors of twelve seconds on the wire."""

from __future__ import annotations

import pytest

from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.contracts.models import SONG
from heartvoice.contracts.types import TensorSpec
from tests.unit.client.test_wire import check_survives


@pytest.mark.parametrize("spec", [*SONG.all_inputs, *SONG.outputs], ids=lambda s: s.name)
def test_every_tensor_of_the_contract_survives_the_wire(spec: TensorSpec) -> None:
    check_survives(spec, 12 * SAMPLE_RATE_HZ)
