"""The gate against a real server: what is asked, what comes, and the numbers of a whole song."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from heartvoice.cli.gate_maker import ServedMaker
from heartvoice.client import Client
from heartvoice.contracts.constants import FRAME_HOP, SAMPLE_RATE_HZ
from heartvoice.evaluation.gate.measures import MEASURES
from heartvoice.evaluation.gate.run import run
from heartvoice.evaluation.gate.world import CoverOrder, Setting, SongOrder
from heartvoice.evaluation.measures import si_sdr_db
from tests.fakes.judges import judges
from tests.support.gate_maker import SONG, small_world
from tests.support.synthetic_voice import synthetic_voice
from train.demo.gate import DemoWorld

QUICK = {"codec_window": 93, "codec_steps": 1, "codec_guidance": 1.0, "cfg_scale": 1.0, "duration_s": 2.0, "seed": 3}
SAME_DB = 60.0
"""A file of 16 bits is as near as this to its stream."""


class QuickWorld(DemoWorld):
    """Asks for as little as possible."""

    @property
    def settings(self) -> Mapping[str, Setting]:
        return {name: value for name, value in QUICK.items() if name not in ("seed", "duration_s")}


def test_a_song_comes_with_codes_vocals_and_in_one_answer_and_its_codes_make_it_again(client: Client) -> None:
    maker = ServedMaker(client)
    made = maker.sing(SongOrder("pop", "la la la", QUICK, stems=True, whole=True))
    assert made.audio.shape == (2, made.codes.shape[1] * FRAME_HOP)
    assert made.vocals is not None
    assert made.whole is not None
    assert made.vocals.shape == made.whole.shape == made.audio.shape
    same = si_sdr_db(made.audio, made.whole)
    assert same is not None
    assert same > SAME_DB
    again = maker.sing(SongOrder("", "", QUICK, codes=made.codes))
    assert np.array_equal(again.codes, made.codes)
    assert np.array_equal(again.audio, made.audio)
    assert again.vocals is None
    assert again.whole is None


def test_a_cover_comes_with_stems_and_in_one_answer(client: Client) -> None:
    recording = np.tile(synthetic_voice(2 * SAMPLE_RATE_HZ), (2, 1))
    reference = synthetic_voice(4 * SAMPLE_RATE_HZ)
    settings = {"svc_steps": 1, "svc_guidance": 0.0, "seed": 3, "pitch_shift": 12.0}
    made = ServedMaker(client).cover(CoverOrder(recording, reference, settings))
    assert made.audio.shape == recording.shape
    np.testing.assert_allclose(made.vocals + made.instrumental, made.audio, atol=1e-5)
    same = si_sdr_db(made.audio, made.whole)
    assert same is not None
    assert same > SAME_DB
    assert made.shift_semitones == pytest.approx(round(made.shift_semitones / 12) * 12)
    assert made.shift_semitones != 0


def test_a_served_song_has_all_numbers(client: Client) -> None:
    world = QuickWorld(small_world().scores, ())
    songs = [replace(song, max_seconds=2.0) for song in world.songs()]
    values = run(world, ServedMaker(client), judges(), 3, songs, [])[SONG]
    assert set(values) == {measure.key for measure in MEASURES if measure.key.startswith("song")}
    assert values["song streamed"] is not None
    assert values["song streamed"] > SAME_DB
    assert values["song si_sdr"] is not None
    assert values["song si_sdr"] < 0, "random weights make noise"
