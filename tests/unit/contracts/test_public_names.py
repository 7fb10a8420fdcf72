"""The names that docs promise under `heartvoice.contracts`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from heartvoice import contracts
from heartvoice.contracts import models, settings


@pytest.mark.parametrize("name", contracts.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(contracts, name) is not None


def test_documented_names_are_the_contracts_themselves() -> None:
    assert contracts.SONG is models.SONG
    assert contracts.COVER is models.COVER
    assert contracts.VOICE_SETTINGS is settings.VOICE_SETTINGS


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match=r"module 'heartvoice.contracts' has no attribute 'SONGS'"):
        _ = contracts.SONGS


def test_importing_the_package_imports_no_model() -> None:
    code = "import sys, heartvoice.contracts; assert 'heartvoice.contracts.models' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
