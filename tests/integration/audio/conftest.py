"""What tests/unit/audio has."""

from tests.unit.audio.conftest import nothing_is_printed  # noqa: F401
