"""What the engine over PyTorch alone does: frames under way, recordings, packing. The rest is in test_lm_engines.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from heartvoice import keyed_random
from heartvoice.errors import EngineError
from heartvoice.models.generate import generate
from heartvoice.models.llama import KVCache
from heartvoice.stages.lm.engine_torch import POSITION_BLOCK, TorchEngine
from heartvoice.stages.lm.song_state import SongState
from heartvoice.stages.lm.torch_network import CacheAttention, PackedTransformer
from tests.fakes.networks import BytesTokenizer
from tests.support.lm_engine_kinds import SOURCE, Player, alone, network
from tests.support.lm_songs import PRESET, REQUESTS, codes_alone, request, song, song_that_ends_itself

N_SLOTS = 4


def engine(n_slots: int = N_SLOTS, *, exact: bool = False, **options: Any) -> TorchEngine:
    return TorchEngine(network(), PRESET, n_slots=n_slots, exact=exact, **options)


@pytest.mark.parametrize(("index", "temperature"), [(0, 1.0), (1, 0.0)])
def test_songs_are_those_of_the_pytorch_module(index: int, temperature: float) -> None:
    wanted = SongState(REQUESTS[index], BytesTokenizer(), PRESET)
    codes = generate(
        network(),
        wanted.prompt.text_ids,
        max_frames=REQUESTS[index].n_frames,
        eos_id=PRESET.ids.audio_eos_id,
        uniform=lambda frame: keyed_random.uniform(REQUESTS[index].seed, "lm", frame, (8,)),
        style=wanted.prompt.style,
        style_index=wanted.prompt.style_index,
        temperature=temperature,
        min_frames=REQUESTS[index].n_frames,
    )
    np.testing.assert_array_equal(alone(engine(), REQUESTS[index]), codes.numpy().T)


def test_an_exact_engine_gives_a_song_the_same_bits_in_every_row() -> None:
    """Not only the same codes: the keys and values that it leaves behind."""
    lm = engine(exact=True)

    def cached(n_before: int) -> torch.Tensor:
        player = Player(lm)
        for slot in range(n_before):
            player.join(slot, REQUESTS[4])
        player.join(3, REQUESTS[0])
        while len(player.made[3]) < 4:
            player.step()
        rows, length = lm._songs[3].rows, lm._songs[3].length
        memory = torch.stack([tensor[rows, :, :length] for pair in lm._cache.layers for tensor in pair])
        for slot in [*range(n_before), 3]:
            player.leave(slot)
        return memory

    alone = cached(0)
    assert alone[:, :, :, -1].any()
    torch.testing.assert_close(cached(3), alone, rtol=0, atol=0)


@pytest.mark.parametrize("lag", [0, 1, 5])
def test_eos_seen_late_trims_the_song(lag: int) -> None:
    wanted, codes = song_that_ends_itself()
    player = Player(engine(lag=lag))
    player.join(0, wanted)
    steps = 0
    while not player.songs[0].finished:
        player.step()
        steps += 1
    assert steps == len(codes) + lag  # the first frame came with the prompt, one more step made EOS
    assert player.lm.pending(0) == lag
    np.testing.assert_array_equal(player.leave(0), codes)
    player.join(0, REQUESTS[0])  # nothing of what the old song made too much reaches the new one
    np.testing.assert_array_equal(player.finish()[0], codes_alone(0))


def test_a_song_never_makes_more_frames_than_it_has_positions() -> None:
    lm = engine(lag=4)
    player = Player(lm)
    player.join(0, request(3))
    player.join(1, request(9))
    for _ in range(8 + 4):
        player.step()
        short = lm._songs[0]
        assert short.length <= short.prompt.n_positions - 1
    assert [len(player.made[slot]) for slot in (0, 1)] == [3, 9]
    assert [lm.pending(slot) for slot in (0, 1)] == [0, 0]


def test_packing_shares_the_weights_and_changes_nothing() -> None:
    plain, packed = network(), network()
    size = sum(tensor.nbytes for tensor in packed.state_dict().values())
    lm = TorchEngine(packed, PRESET)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in packed.parameters()}
    assert sum(storage.nbytes() for storage in storages.values()) == size
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), packed.parameters(), strict=True))
    gate = packed.get_parameter("backbone.layers.0.mlp.w1.weight")
    assert lm._frames._backbone._layers[0]._gate_up.data_ptr() == gate.data_ptr()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.02)])
def test_the_packed_backbone_is_the_module(dtype: torch.dtype, tolerance: float) -> None:
    module = network(dtype=dtype)
    sizes, rows = PRESET.lm.backbone, 3
    generator = torch.Generator().manual_seed(0)
    cache = KVCache(sizes, rows, 64, dtype=dtype)
    for pair in cache.layers:
        for tensor in pair:
            tensor.normal_(generator=generator)
    x = torch.randn(rows, 1, sizes.embed_dim, generator=generator).to(dtype)
    position = torch.tensor([0, 17, 62])
    with torch.inference_mode():
        wanted, new = module.backbone(x, position, cache.past())
        attend = CacheAttention(cache.past(), position)
        got = PackedTransformer(module.backbone, 64)(x, position[:, None], attend)
    assert got.dtype == dtype
    assert float((got.float() - wanted).norm() / wanted.norm()) < tolerance
    written = cache.layers[-1][1][torch.arange(rows), :, position]
    assert float((written - new[-1][1][:, :, 0]).float().norm() / written.float().norm()) < tolerance


class _NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what a CUDA graph cannot record: values read by the host, sizes that depend on values, new constants."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh", "item", "equal")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.FORBIDDEN, name
        return func(*args, **(kwargs or {}))


def test_a_frame_can_be_recorded() -> None:
    lm = engine()
    player = Player(lm)
    player.join(0, REQUESTS[0])
    player.join(1, REQUESTS[3])
    player.step()
    (frame,) = lm._recorded.values()
    made = lm._made.clone()
    with torch.no_grad(), _NoWaiting():  # type: ignore[no-untyped-call]
        frame()
    again = lm._made.clone()
    assert not torch.equal(again, made)  # the songs go on from what they made last
    with torch.no_grad():
        frame()
    assert torch.equal(lm._made, again)  # a recording runs it more than once


def test_the_mode_above_notices_what_waits() -> None:
    with pytest.raises(AssertionError, match="_local_scalar_dense"), torch.no_grad(), _NoWaiting():  # type: ignore[no-untyped-call]
        int(torch.zeros(3).max())


def test_warming_up_records_every_size_and_leaves_songs_alone() -> None:
    lm = engine(3)
    lm.warm_up()
    widths = range(POSITION_BLOCK, PRESET.max_positions + 1, POSITION_BLOCK)
    assert {(rows, width) for rows, width, _ in lm._recorded} == {(r, w) for r in (1, 2, 4, 6) for w in widths}
    known = set(lm._recorded)
    np.testing.assert_array_equal(alone(lm, REQUESTS[0]), codes_alone(0))
    assert set(lm._recorded) == known


def test_memory_is_counted_in_whole_rows_of_the_dtype() -> None:
    sizes = PRESET.lm.backbone
    row = PRESET.max_positions * 2 * sizes.num_layers * sizes.num_kv_heads * sizes.head_dim * 2
    lm = TorchEngine.load(SOURCE, PRESET, device="cpu", n_slots=3)
    assert lm.kv_limit == 6 * row
    assert lm.kv_bytes([song(cfg_scale=1.0).prompt, song().prompt]) == 3 * row
    assert sum(tensor.nbytes for pair in lm._cache.layers for tensor in pair) == lm.kv_limit
    small = TorchEngine.load(SOURCE, PRESET, device="cpu", n_slots=8, kv_limit=5 * row + 1)
    assert sum(tensor.nbytes for pair in small._cache.layers for tensor in pair) == 5 * row


def test_half_precision_makes_whole_songs() -> None:
    lm = TorchEngine.load(SOURCE, PRESET, device="cpu", n_slots=2, lag=2)
    codes = alone(lm, REQUESTS[5])
    assert codes.shape == codes_alone(5).shape
    np.testing.assert_array_equal(codes, alone(lm, REQUESTS[5], slot=1))
    assert ((codes >= 0) & (codes < PRESET.lm.codebook_size)).all()


def test_after_an_error_the_slot_is_free_and_songs_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = engine(2)
    player = Player(lm)
    player.join(0, REQUESTS[0])
    wrong = song()
    wrong.prompt.text_ids[0] = PRESET.lm.text_vocab_size
    with pytest.raises(EngineError, match="PyTorch failed at a prompt"):
        lm.prefill(1, wrong.prompt, wrong.next_input())
    with monkeypatch.context() as patch:
        patch.setattr(lm._recorder, "record", _refuse)
        with pytest.raises(EngineError, match="PyTorch failed at a frame: out of memory"):
            player.step()
    np.testing.assert_array_equal(player.finish()[0], codes_alone(0))


def _refuse(action: object) -> object:
    raise RuntimeError("out of memory")
