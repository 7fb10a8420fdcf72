"""The speaker stage: its front ends against the published package's, and what it makes of real speech."""

from __future__ import annotations

from heartvoice.stages.speaker import (
    HOP,
    PIECE_FRAMES,
    SpeakerStage,
)
from tests.unit.stages.test_speaker import CAMPPLUS, FakeNetwork, long_voice


def test_campplus_hears_up_to_a_minute_at_once_and_equal_parts_of_more() -> None:
    network = FakeNetwork(CAMPPLUS)
    stage = SpeakerStage(network, CAMPPLUS)
    stage.embed(long_voice(PIECE_FRAMES * HOP // 16_000))
    stage.embed(long_voice(150))
    lengths = [shape[1] for shape in network.shapes]
    assert lengths == [PIECE_FRAMES - 2, 4998, 4998, 4998]
    assert max(lengths) <= PIECE_FRAMES
