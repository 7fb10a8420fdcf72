"""The gate on a system that is as good as its oracle: it passes, and each seeded defect fails it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from heartvoice import keyed_random
from heartvoice.contracts.encoding import encode_settings
from heartvoice.contracts.messages import AudioChunk
from heartvoice.contracts.models import SONG
from heartvoice.evaluation.dnsmos import Dnsmos
from heartvoice.evaluation.gate.baseline import Baseline, Move, collect, compare
from heartvoice.evaluation.gate.measures import SongTaken, Values, measure_song
from heartvoice.evaluation.gate.run import run
from heartvoice.evaluation.gate.world import CodeFigures, MadeSong, Maker, Oracle
from heartvoice.evaluation.judges import Judges
from heartvoice.judges.opening import open_judges
from heartvoice.pipeline.in_process import InProcessStages, make_song
from heartvoice.runtime.repository import Repository
from tests.fakes.judges import Scores
from tests.support import gate_defects
from tests.support.gate_maker import StandIn, small_world
from train.demo.gate import DemoWorld

FOUND_BY = {
    "codebook swapped": {"song si_sdr", "song worst_second"},
    "window shifted": {"song seam", "song streamed", "song worst_second"},
    "pitch raised": {"song f0", "cover f0"},
    "hot language model": {"song codes_words", "song rules"},
    "wrong lyrics": {"song codes_words"},
    "mix clipped": {"song si_sdr", "song loudness", "song peak", "cover peak"},
    "stem dropped": {"song si_sdr", "cover stems"},
    "wrong voice": {"cover likeness"},
}
"""What must be worse, whatever else is."""


@dataclass(frozen=True)
class Bench:
    """A world, a good system, and its numbers."""

    world: DemoWorld
    maker: StandIn
    judges: Judges
    baseline: Baseline

    def worse(self, maker: Maker, expected: Collection[str] = ("song", "cover")) -> set[str]:
        """What the gate finds worse in songs, covers or both, with a seed that the numbers do not know."""
        moves = compare(self.baseline, self.measured(maker, 9, "".join(expected)))
        return {move.measure.key for move in moves if move.is_worse}

    def measured(self, maker: Maker, seed: int, parts: str = "song cover") -> dict[str, Values]:
        songs = self.world.songs() if "song" in parts else []
        covers = self.world.covers() if "cover" in parts else []
        return run(self.world, maker, self.judges, seed, songs, covers)


@pytest.fixture(scope="module")
def bench() -> Bench:
    world = small_world()
    maker, judges = StandIn(world), replace(open_judges(), dnsmos=Dnsmos(Scores()))  # the real one takes seconds
    bare = Bench(world, maker, judges, Baseline({}, (), {}))
    return replace(bare, baseline=collect({}, {seed: bare.measured(maker, seed) for seed in range(3)}))


def test_a_system_like_its_oracle_has_good_numbers_and_passes(bench: Bench) -> None:
    level = bench.baseline.values
    assert level["song si_sdr"]["song 1"][0] > 30
    assert level["song in_tune"]["song 1"][0] > 0.97
    assert level["song f0"]["song 1"][0] < 10
    assert level["song codes_words"]["song 1"] == (0.0, 0.0, 0.0)
    assert level["song streamed"]["song 1"] == (100.0, 100.0, 100.0)
    assert level["cover likeness"]["cover 1"][0] > 0.9
    assert bench.worse(bench.maker) == set()


@pytest.mark.parametrize("defect", FOUND_BY)
def test_a_seeded_defect_is_found(bench: Bench, defect: str) -> None:
    other_lyrics = bench.world.cover_list[0].reference.lyrics
    damaged = gate_defects.of_systems(other_lyrics)[defect](bench.maker)
    assert FOUND_BY[defect] <= bench.worse(damaged, FOUND_BY[defect])


# --------------------------------------------------------------------------------------------------------------- graphs


Decode = Callable[[Path], np.ndarray]
NOBODY = Judges({}, None, None, {})


@pytest.fixture(scope="module")
def decode() -> Decode:
    """Decodes the same codes by a repository's graphs."""
    settings = {"codec_window": 93, "codec_steps": 1, "codec_guidance": 1.0}
    codes = (keyed_random.uniform(0, "gate codes", 0, (8, 100)) * 256).astype(np.int32)

    def decoded(root: Path) -> np.ndarray:
        repository = Repository(root)
        inputs = {"codes": codes, **encode_settings(settings, SONG.settings)}
        messages = make_song(repository, InProcessStages(repository, threads=1), inputs)
        return np.concatenate([each.audio for each in messages if isinstance(each, AudioChunk)], axis=1)

    return decoded


@pytest.fixture(scope="module")
def graphs(exported: Path, decode: Decode) -> Callable[[np.ndarray], list[Move]]:
    """Compares audio with what the graphs make undamaged, which is the oracle here and passes."""
    true = decode(exported)
    codes = np.zeros((8, 100), np.int32)

    def values(audio: np.ndarray) -> dict[str, Values]:
        oracle = Oracle(true, true, np.zeros(0))
        taken = SongTaken(MadeSong(codes, audio, whole=audio), true, oracle, CodeFigures(0, 1, 1), "", 93)
        return {"song": measure_song(taken, NOBODY)}

    noisy = [true * (1 + keyed_random.normal(seed, "gate", 0, true.shape) * np.float32(0.01)) for seed in range(4)]
    baseline = collect({}, dict(enumerate(map(values, noisy[:3]))))
    assert not any(move.is_worse for move in compare(baseline, values(noisy[3])))
    return lambda audio: compare(baseline, values(audio))


@pytest.mark.parametrize("defect", gate_defects.OF_GRAPHS)
def test_a_defect_of_a_graph_is_found(
    exported: Path, tmp_path: Path, decode: Decode, graphs: Callable[[np.ndarray], list[Move]], defect: str
) -> None:
    root = Path(shutil.copytree(exported, tmp_path / "tiny"))
    gate_defects.OF_GRAPHS[defect](root)
    assert Repository(root).intact_graph("heartcodec_decoder"), "the server takes it"
    worse = {move.measure.key for move in graphs(decode(root)) if move.is_worse}
    assert {"song si_sdr", "song worst_second"} <= worse
