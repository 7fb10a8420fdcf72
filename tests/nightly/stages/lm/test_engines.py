"""Every engine of the language model in many schedules."""

from __future__ import annotations

import pytest

from tests.integration.stages.lm.test_engines import check_schedules, play_many
from tests.support.lm_engine_kinds import ON_CPU


@pytest.mark.parametrize("kind", ON_CPU)
def test_many_songs_at_two_threads(kind: str) -> None:
    play_many(kind, n_rounds=4)


@pytest.mark.parametrize("kind", ON_CPU)
def test_codes_are_those_of_the_song_alone_in_any_schedule(kind: str) -> None:
    check_schedules(kind, 100 if kind == "standard" else 10)
