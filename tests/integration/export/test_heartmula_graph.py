"""HeartMuLa's graph: reference vectors, then `HeartMuLa.step` for songs side by side."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartvoice.config.presets import Preset
from heartvoice.contracts.graphs import heartmula_step
from heartvoice.export.heartmula_graph import build_heartmula_step
from heartvoice.keyed_random import normal, uniform
from heartvoice.models.heartmula import HeartMuLa, StepInputs, StepOutputs
from heartvoice.models.load import Checkpoint, load_network, random_checkpoint
from heartvoice.runtime.engines import OnnxEngine
from tests.support.golden_cases import Golden, GoldenFolder, case_params, folder_params
from tests.support.graphs import (
    TINY,
    Arrays,
    empty_cache,
    engine_of,
    golden_lm,
    relative_error,
    step_inputs,
    store,
)

KIND = "heartmula"
GREEDY = case_params(KIND, lambda name, args: "min_top1_top2_margin" in args and args.get("cfg_scale", 1.0) >= 1)


@pytest.fixture(scope="module")
def golden_engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @lru_cache
    def engine(folder: GoldenFolder) -> OnnxEngine:
        source = Checkpoint.open(folder.path / "weights.safetensors")
        graph = build_heartmula_step(golden_lm(folder), source)
        return engine_of(graph, tmp_path_factory.mktemp("golden"))

    return engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> OnnxEngine:
    return engine_of(build_heartmula_step(TINY, random_checkpoint(TINY.lm, 3)), tmp_path_factory.mktemp("step"))


@pytest.fixture(scope="module")
def network() -> HeartMuLa:
    module = load_network(TINY.lm, random_checkpoint(TINY.lm, 3))
    assert isinstance(module, HeartMuLa)
    return module


@torch.inference_mode()
def torch_step(network: HeartMuLa, inputs: Arrays, cache: Arrays | None = None) -> StepOutputs:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
    past = None
    if cache is not None:
        layers = range(network.sizes.backbone.num_layers)
        past = [tuple(torch.from_numpy(cache[f"{kind}_past_{layer}"]) for kind in "kv") for layer in layers]
    return network.step(StepInputs(**tensors), past, eos_id=TINY.ids.audio_eos_id)  # type: ignore[arg-type]


def prompt_inputs(preset: Preset, golden: Golden, *, padding: int = 0) -> tuple[Arrays, int]:
    """Inputs of a golden prompt; returns them and the prompt's length."""
    case = golden.folder.cases[f"prompt{golden.args['prompt']}"]
    ids = golden.folder.io[f"prompt{golden.args['prompt']}.text_ids"]
    scale = float(golden.args["cfg_scale"])
    muq = golden.args.get("muq", "zero")
    style = golden.folder.io["muq_random"] if muq == "rand" else np.zeros(preset.lm.muq_dim, np.float32)
    inputs = step_inputs(
        preset,
        [scale],
        text_ids=np.pad(ids, (0, padding))[None],
        style=style[None],
        style_index=np.array([-1 if muq is None else case["muq_idx"]]),
        n_new=np.array([len(ids)]),
    )
    return inputs, len(ids)


@pytest.mark.parametrize("golden", GREEDY)
def test_greedy_song_is_the_references(golden: Golden, golden_engine: Any) -> None:
    preset = golden_lm(golden.folder)
    wanted = golden["frames"]
    engine, (inputs, length) = golden_engine(golden.folder), prompt_inputs(preset, golden)
    rows = len(inputs["position"])
    cache = empty_cache(preset, rows, length + wanted.shape[1] + 5)  # longer than is used
    frames: list[Any] = []
    position, n_new = 0, length
    while len(frames) < wanted.shape[1]:
        outputs = engine.run(inputs | cache)
        frames.append(outputs["next_codes"][0])
        store(cache, outputs, [position] * rows, [n_new] * rows)
        position, n_new = position + n_new, 1
        inputs = step_inputs(
            preset, [float(golden.args["cfg_scale"])], codes=frames[-1][None], position=np.full(rows, position)
        )
    assert np.array_equal(np.stack(frames, axis=1), wanted)


SCALES = (1.5, 1.0, 4.0)
"""Three songs, five rows."""


def songs_side_by_side(lengths: tuple[int, ...]) -> Arrays:
    """Prompts of these lengths, padded to the longest, with settings that differ between the songs."""
    longest, count = max(lengths), len(lengths)
    ids = (uniform(1, "ids", 0, (count, longest)) * TINY.lm.text_vocab_size).astype(np.int64)
    return step_inputs(
        TINY,
        SCALES,
        text_ids=ids,
        style=normal(1, "style", 0, (count, TINY.lm.muq_dim)),
        style_index=np.array([2, -1, 0]),
        n_new=np.array(lengths),
        temperature=np.array([1.0, 0.7, 1.3], np.float32),
        top_k=np.array([50, 1000, 3]),
        uniform=uniform(1, "lm", 0, (count, 8)),
        allow_eos=np.array([False, True, True]),
    )


def test_sampled_songs_side_by_side_are_those_of_pytorch(engine: OnnxEngine, network: HeartMuLa) -> None:
    lengths = (11, 4, 7)
    inputs = songs_side_by_side(lengths)
    rows = inputs["row_song"]
    cache, torch_cache = empty_cache(TINY, 5, 24), empty_cache(TINY, 5, 24)
    position, n_new = np.zeros(5, np.int64), np.array(lengths)[rows]
    for frame in range(12):
        got = engine.run(inputs | (cache if frame else empty_cache(TINY, 5, 0)))
        want = torch_step(network, inputs, torch_cache if frame else None)
        assert np.array_equal(got["next_codes"], want.codes.numpy())
        assert relative_error(got["logits"], want.logits.numpy()) < 1e-5
        kept = {
            f"{kind}_new_{layer}": pair[index].numpy()
            for layer, pair in enumerate(want.new)
            for index, kind in enumerate("kv")
        }
        for name, new in kept.items():
            for row, count in enumerate(n_new):
                assert relative_error(got[name][row, :, :count], new[row, :, :count]) < 1e-5
        store(cache, got, position, n_new)
        store(torch_cache, kept, position, n_new)
        position, n_new = position + n_new, np.ones(5, np.int64)
        codes = want.codes.numpy() % TINY.lm.codebook_size
        inputs |= {
            "text_ids": np.full((3, 1), -1),
            "codes": codes,
            "style_index": np.full(3, -1),
            "n_new": np.ones(3, np.int64),
            "position": position.copy(),
            "uniform": uniform(1, "lm", frame + 1, (3, 8)),
        }


@pytest.mark.parametrize("width", [0, 32, 64])
def test_a_song_is_bit_exact_whatever_is_beside_it(engine: OnnxEngine, width: int) -> None:
    """At cache widths that are multiples of 32; 0 is the prompt."""
    together = songs_side_by_side((6, 6, 6))
    cache = empty_cache(TINY, 5, 2 * width)
    if width:
        codes = (uniform(5, "codes", 0, (3, 8)) * TINY.lm.codebook_size).astype(np.int64)
        together |= {"text_ids": np.full((3, 1), -1), "codes": codes, "n_new": np.ones(3, np.int64)}
        together |= {"position": np.array([20, 20, 5, 31, 31]), "style_index": np.full(3, -1)}
        for name, past in cache.items():
            past[:, :, :31] = normal(5, name, 0, past[:, :, :31].shape)
    outputs = engine.run(together | cache)
    for song, scale in enumerate(SCALES):
        keep = [name for name in together if name not in {"position", "row_song", "cond_row", "uncond_row"}]
        alone = step_inputs(TINY, [scale], **{name: together[name][song : song + 1] for name in keep})
        rows = together["row_song"] == song
        alone["position"] = together["position"][rows]
        single = engine.run(alone | {name: np.ascontiguousarray(past[rows, :, :width]) for name, past in cache.items()})
        assert np.array_equal(single["next_codes"], outputs["next_codes"][song : song + 1])
        assert np.array_equal(single["logits"], outputs["logits"][song : song + 1])
        assert np.array_equal(single["k_new_2"], outputs["k_new_2"][rows])


def test_cache_beyond_the_position_and_padding_are_not_read(engine: OnnxEngine) -> None:
    lengths = np.array([5, 2, 4])
    inputs = songs_side_by_side(tuple(lengths))
    inputs["position"] = np.array([3, 3, 1, 2, 2])
    cache = {name: normal(2, name, 0, past.shape) for name, past in empty_cache(TINY, 5, 8).items()}
    wanted = engine.run(inputs | cache)
    for row, position in enumerate(inputs["position"]):
        for past in cache.values():
            past[row, :, position:] = 1e4
    for song, length in enumerate(lengths):
        inputs["text_ids"][song, length:] = 7
    got = engine.run(inputs | cache)
    assert np.array_equal(got["logits"], wanted["logits"])


def test_new_positions_follow_cached_ones_wherever_they_are_cut(engine: OnnxEngine) -> None:
    inputs = songs_side_by_side((9, 9, 9))
    whole = engine.run(inputs | empty_cache(TINY, 5, 0))
    cache = empty_cache(TINY, 5, 9)
    head = inputs | {"text_ids": inputs["text_ids"][:, :5], "n_new": np.full(3, 5)}
    store(cache, engine.run(head | empty_cache(TINY, 5, 0)), [0] * 5, [5] * 5)
    tail = inputs | {
        "text_ids": inputs["text_ids"][:, 5:],
        "n_new": np.full(3, 4),
        "position": np.full(5, 5),
        "style_index": np.full(3, -1),
    }
    assert relative_error(engine.run(tail | cache)["logits"], whole["logits"]) < 1e-5


def test_special_ids_are_never_drawn_but_eos_where_allowed(engine: OnnxEngine) -> None:
    eos = TINY.ids.audio_eos_id
    drawn = {False: set[int](), True: set[int]()}
    for allow in drawn:
        for frame in range(60):
            inputs = step_inputs(
                TINY,
                [1.0],
                text_ids=np.array([[frame]]),
                top_k=np.array([1000]),
                temperature=np.array([100.0], np.float32),  # nearly uniform
                uniform=uniform(frame, "any", 0, (1, 8)),
                allow_eos=np.array([allow]),
            )
            drawn[allow] |= set(engine.run(inputs | empty_cache(TINY, 1, 0))["next_codes"].ravel().tolist())
    assert max(drawn[False]) < TINY.lm.codebook_size
    assert max(drawn[True]) <= eos
    assert len(drawn[False]) > 100


def test_largest_uniform_draws_the_last_candidate(engine: OnnxEngine, network: HeartMuLa) -> None:
    inputs = songs_side_by_side((3, 3, 3)) | {"uniform": np.full((3, 8), 1 - 2.0**-23, np.float32)}
    got = engine.run(inputs | empty_cache(TINY, 5, 0))["next_codes"]
    assert np.array_equal(got, torch_step(network, inputs).codes.numpy())


def test_last_position_of_the_table_works(engine: OnnxEngine, network: HeartMuLa) -> None:
    past = TINY.max_positions - 1
    inputs = step_inputs(TINY, [1.0], position=np.array([past]))
    cache = {name: normal(4, name, 0, array.shape) for name, array in empty_cache(TINY, 1, past).items()}
    got, want = engine.run(inputs | cache), torch_step(network, inputs, cache)
    assert relative_error(got["logits"], want.logits.numpy()) < 1e-5
    assert relative_error(got["k_new_0"], want.new[0][0].numpy()) < 1e-5


@pytest.mark.parametrize("folder", folder_params(KIND))
def test_graph_has_the_contracts_tensors(folder: GoldenFolder, golden_engine: Any) -> None:
    spec = heartmula_step(golden_lm(folder).lm.backbone.num_layers)
    engine = golden_engine(folder)
    assert engine.input_names == [tensor.name for tensor in spec.inputs]
    assert engine.output_names == [tensor.name for tensor in spec.outputs]


PREFILLS = case_params(KIND, lambda name, args: "muq" in args and "frames" not in args)


@pytest.mark.parametrize("golden", PREFILLS)
def test_prompt_gives_the_references_logits(golden: Golden, golden_engine: Any) -> None:
    preset = golden_lm(golden.folder)
    inputs, _ = prompt_inputs(preset, golden, padding=2)
    outputs = golden_engine(golden.folder).run(inputs | empty_cache(preset, len(inputs["position"]), 0))
    np.testing.assert_allclose(outputs["logits"][:, 0], golden["c0_logits"], rtol=0, atol=2e-4)


def test_half_precision_stays_near_and_keeps_its_boundary(tmp_path: Path, network: HeartMuLa) -> None:
    graph = build_heartmula_step(TINY, random_checkpoint(TINY.lm, 3), "fp16")
    inputs = songs_side_by_side((6, 3, 5)) | {"top_k": np.ones(3, np.int64)}
    got = engine_of(graph, tmp_path).run(inputs | empty_cache(TINY, 5, 0))
    want = torch_step(network, inputs)
    assert {array.dtype for name, array in got.items() if name != "next_codes"} == {np.dtype(np.float32)}
    assert 1e-6 < relative_error(got["logits"][:, 0], want.logits[:, 0].numpy()) < 1e-2
