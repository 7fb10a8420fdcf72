"""The `ort` dialect: reference vectors, PyTorch and the portable graph, row by row."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.contracts.graphs import heartmula_step_ort
from heartvoice.errors import EngineError
from heartvoice.export.heartmula_graph import build_heartmula_step
from heartvoice.export.heartmula_ort import build_heartmula_ort
from heartvoice.export.parity import Parity
from heartvoice.export.parity_lm import compare_heartmula_ort
from heartvoice.keyed_random import normal, uniform
from heartvoice.models.load import Checkpoint, load_network, random_checkpoint
from heartvoice.runtime.engines import OnnxEngine
from tests.integration.export.test_heartmula_graph import SCALES, songs_side_by_side
from tests.support.golden_cases import Golden, GoldenFolder, case_params, folder_params
from tests.support.graphs import TINY, Arrays, empty_cache, engine_of, golden_lm, relative_error, step_inputs, store

KIND = "heartmula"
GREEDY = case_params(KIND, lambda name, args: "min_top1_top2_margin" in args and args.get("cfg_scale", 1.0) >= 1)
SOURCE = random_checkpoint(TINY.lm, 3)


@pytest.fixture(scope="module")
def golden_engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @lru_cache
    def engine(folder: GoldenFolder) -> OnnxEngine:
        source = Checkpoint.open(folder.path / "weights.safetensors")
        return engine_of(build_heartmula_ort(golden_lm(folder), source), tmp_path_factory.mktemp("golden"))

    return engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> OnnxEngine:
    return engine_of(build_heartmula_ort(TINY, SOURCE), tmp_path_factory.mktemp("ort"))


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> OnnxEngine:
    return engine_of(build_heartmula_step(TINY, SOURCE), tmp_path_factory.mktemp("standard"))


def present(outputs: Arrays) -> Arrays:
    """The cache for the next call."""
    return {name.replace("present", "past"): value for name, value in outputs.items() if "_present_" in name}


def frame_inputs(inputs: Arrays, codes: Any, position: Any, frame: int) -> Arrays:
    """The same songs, a frame later."""
    return inputs | {
        "text_ids": np.full((3, 1), -1),
        "codes": codes % TINY.lm.codebook_size,
        "style_index": np.full(3, -1),
        "n_new": np.ones(3, np.int64),
        "position": position,
        "uniform": uniform(1, "lm", frame, (3, 8)),
    }


@pytest.mark.parametrize("golden", GREEDY)
def test_greedy_song_is_the_references(golden: Golden, golden_engine: Any) -> None:
    preset, wanted = golden_lm(golden.folder), golden["frames"]
    case, scale = golden.folder.cases[f"prompt{golden.args['prompt']}"], float(golden.args["cfg_scale"])
    ids = golden.folder.io[f"prompt{golden.args['prompt']}.text_ids"]
    muq = golden.args.get("muq", "zero")
    style = golden.folder.io["muq_random"] if muq == "rand" else np.zeros(preset.lm.muq_dim, np.float32)
    inputs = step_inputs(
        preset,
        [scale],
        text_ids=np.pad(ids, (0, 3))[None],
        style=style[None],
        style_index=np.array([-1 if muq is None else case["muq_idx"]]),
        n_new=np.array([len(ids)]),
    )
    engine, rows = golden_engine(golden.folder), len(inputs["position"])
    cache = empty_cache(preset, rows, len(ids) + wanted.shape[1] + 5)
    frames: list[Any] = []
    while len(frames) < wanted.shape[1]:
        outputs = engine.run(inputs | cache)
        cache, position = present(outputs), np.full(rows, len(ids) + len(frames))
        frames.append(outputs["next_codes"][0])
        inputs = step_inputs(preset, [scale], codes=frames[-1][None], position=position)
    assert np.array_equal(np.stack(frames, axis=1), wanted)


def test_songs_side_by_side_are_those_of_the_portable_graph(engine: OnnxEngine, standard: OnnxEngine) -> None:
    lengths = (11, 4, 7)
    inputs = songs_side_by_side(lengths)
    shared, cache = empty_cache(TINY, 5, 40), empty_cache(TINY, 5, 40)
    position, n_new = np.zeros(5, np.int64), np.array(lengths)[inputs["row_song"]]
    for frame in range(16):
        got = engine.run(inputs | shared)
        want = standard.run(inputs | (cache if frame else empty_cache(TINY, 5, 0)))
        assert np.array_equal(got["next_codes"], want["next_codes"])
        assert relative_error(got["logits"], want["logits"]) < 1e-5
        shared = present(got)
        store(cache, want, position, n_new)
        for name, past in cache.items():
            for row, end in enumerate(position + n_new):
                assert relative_error(shared[name][row, :, :end], past[row, :, :end]) < 1e-5
        position, n_new = position + n_new, np.ones(5, np.int64)
        inputs = frame_inputs(inputs, want["next_codes"], position, frame + 1)


def test_cache_beyond_the_position_and_padding_are_not_read(engine: OnnxEngine) -> None:
    inputs = songs_side_by_side((5, 2, 4))
    wanted = engine.run(inputs | empty_cache(TINY, 5, 16))
    for song, length in enumerate((5, 2, 4)):
        inputs["text_ids"][song, length:] = 7
    garbage = {name: np.full_like(past, np.nan) for name, past in empty_cache(TINY, 5, 16).items()}
    got = engine.run(inputs | garbage)
    assert np.array_equal(got["logits"], wanted["logits"])
    position = np.array([5, 5, 2, 4, 4])
    inputs = frame_inputs(inputs, got["next_codes"], position, 1)
    assert np.array_equal(engine.run(inputs | present(got))["logits"], engine.run(inputs | present(wanted))["logits"])


@pytest.mark.parametrize("width", [0, 40, 80])
def test_a_song_is_bit_exact_whatever_is_beside_it(engine: OnnxEngine, width: int) -> None:
    """Whatever the cache's width; 0 is the prompt."""
    together = songs_side_by_side((6, 6, 6))
    cache = {name: normal(5, name, 0, past.shape) for name, past in empty_cache(TINY, 5, width).items()}
    if width:
        codes = (uniform(5, "codes", 0, (3, 8)) * TINY.lm.codebook_size).astype(np.int64)
        together = frame_inputs(together, codes, np.array([20, 20, 5, 31, 31]), 1)
    outputs = engine.run(together | cache)
    for song, scale in enumerate(SCALES):
        rows = together["row_song"] == song
        keep = [name for name in together if name not in {"position", "row_song", "cond_row", "uncond_row"}]
        single = step_inputs(TINY, [scale], **{name: together[name][song : song + 1] for name in keep})
        single["position"] = together["position"][rows]
        alone = {name: np.ascontiguousarray(past[rows, :, : width and width - 7]) for name, past in cache.items()}
        got = engine.run(single | alone)
        assert np.array_equal(got["logits"], outputs["logits"][song : song + 1])
        assert np.array_equal(got["next_codes"], outputs["next_codes"][song : song + 1])


def test_a_single_row_goes_on_from_any_position(engine: OnnxEngine) -> None:
    ids = np.arange(9)[None] * 3
    whole = engine.run(step_inputs(TINY, [1.0], text_ids=ids, n_new=np.array([9])) | empty_cache(TINY, 1, 12))
    head = engine.run(step_inputs(TINY, [1.0], text_ids=ids[:, :5], n_new=np.array([5])) | empty_cache(TINY, 1, 12))
    tail = step_inputs(TINY, [1.0], text_ids=ids[:, 5:], n_new=np.array([4]), position=np.array([5]))
    assert relative_error(engine.run(tail | present(head))["logits"], whole["logits"]) < 1e-5


def test_two_rows_refuse_to_go_on_with_several_positions(engine: OnnxEngine) -> None:
    inputs = step_inputs(TINY, [1.5], text_ids=np.ones((1, 4), np.int64), n_new=np.array([4]), position=np.full(2, 5))
    with pytest.raises(EngineError, match="batch_size must be 1"):
        engine.run(inputs | empty_cache(TINY, 2, 16))


def test_last_position_of_the_table_works(engine: OnnxEngine, standard: OnnxEngine) -> None:
    past = TINY.max_positions - 1
    inputs = step_inputs(TINY, [1.0], position=np.array([past]))
    full = {name: normal(4, name, 0, array.shape) for name, array in empty_cache(TINY, 1, past + 1).items()}
    got = engine.run(inputs | full)
    want = standard.run(inputs | {name: np.ascontiguousarray(array[:, :, :past]) for name, array in full.items()})
    assert relative_error(got["logits"], want["logits"]) < 1e-5
    assert relative_error(got["k_present_0"][:, :, past:], want["k_new_0"]) < 1e-5


def test_teacher_replaces_what_is_drawn_but_not_the_draw(engine: OnnxEngine, tmp_path: Path) -> None:
    taught = engine_of(build_heartmula_ort(TINY, SOURCE, taught=True), tmp_path)
    inputs = songs_side_by_side((4, 4, 4)) | empty_cache(TINY, 5, 8)
    free = engine.run(inputs)
    teacher = np.full((3, 8), -1)
    assert np.array_equal(taught.run(inputs | {"teacher": teacher})["logits"], free["logits"])
    teacher[:, 2] = (free["next_codes"][:, 2].astype(np.int64) + 1) % TINY.lm.codebook_size
    got = taught.run(inputs | {"teacher": teacher})
    assert np.array_equal(got["next_codes"][:, :3], free["next_codes"][:, :3])
    assert np.array_equal(got["logits"][:, :3], free["logits"][:, :3])
    assert not np.array_equal(got["logits"][:, 3], free["logits"][:, 3])


@pytest.mark.parametrize("folder", folder_params(KIND))
def test_graph_has_the_contracts_tensors(folder: GoldenFolder, golden_engine: Any) -> None:
    spec = heartmula_step_ort(golden_lm(folder).lm.backbone.num_layers)
    engine = golden_engine(folder)
    assert engine.input_names == [tensor.name for tensor in spec.inputs]
    assert engine.output_names == [tensor.name for tensor in spec.outputs]


def test_songs_are_those_of_pytorch(engine: OnnxEngine) -> None:
    parity = Parity("whole")
    compare_heartmula_ort(engine, load_network(TINY.lm, SOURCE), TINY, parity)
    parity.check("heartmula_step_ort", "fp32")
    assert max(parity.errors.values()) < 1e-5
    assert {"prompt logits", "frame logits", "frame k cache"} <= parity.errors.keys()
