"""The client stays thin."""

from __future__ import annotations

import pytest

import heartvoice.client


def test_the_package_gives_its_names_on_demand() -> None:
    for name in heartvoice.client.__all__:
        assert getattr(heartvoice.client, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        heartvoice.client.Nothing  # noqa: B018
