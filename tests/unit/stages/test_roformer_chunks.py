"""The RoFormers' loop over a recording, against the published loop's vectors where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heartvoice.config.roformer import RoformerConfig
from heartvoice.errors import InvalidRequestError
from heartvoice.keyed_random import normal
from heartvoice.stages.separation.request import Carry
from heartvoice.stages.separation.roformer_chunks import ChunkLoop, Network, Samples
from heartvoice.stages.separation.roformer_transform import RoformerTransform
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params


class Numbered:
    """Changes call k in its own way, as the reference's fake network does."""

    def __init__(self) -> None:
        self.shapes: list[list[int]] = []

    def __call__(self, part: Samples) -> Samples:
        self.shapes.append([1, *part.shape])
        number = np.float32(len(self.shapes))
        return part * (1 + np.float32(0.1) * number) + np.float32(0.01) * number


def parts_of(loop: ChunkLoop, mix: Samples, network: Network) -> list[Samples]:
    return [part for part in loop.run(mix, network) if not isinstance(part, Carry)]


@pytest.mark.parametrize("folder", folder_params("roformer/chunking"))
def test_the_loop_equals_the_published_one(folder: GoldenFolder) -> None:
    for index, case in enumerate(folder.config["cases"]):
        network, mix = Numbered(), folder.io[f"case{index}.mix"]
        loop = ChunkLoop(case["chunk"], case["num_overlap"], as_published=True)
        got = np.concatenate(parts_of(loop, mix, network), axis=-1)
        assert_close(got, folder.io[f"case{index}.vocals"], 1e-6)
        assert network.shapes == case["shapes"]
        assert loop.n_calls(mix.shape[-1]) == case["network_calls"]


@pytest.mark.parametrize("num_overlap", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 39, 40, 41, 60, 61, 400, 413])
def test_no_sample_is_lost(length: int, num_overlap: int) -> None:
    mix = normal(0, "mix", 0, (2, length))
    parts = parts_of(ChunkLoop(40, num_overlap), mix, lambda part: part[None])
    assert max(part.shape[-1] for part in parts) <= 40
    assert_close(np.concatenate(parts, axis=-1), mix[None], 1e-6)


@pytest.mark.parametrize(
    ("chunk", "num_overlap", "field"), [(9, 2, "chunk"), (40, 0, "num_overlap"), (11, 12, "chunk")]
)
def test_sizes_that_leave_no_step_are_refused(chunk: int, num_overlap: int, field: str) -> None:
    with pytest.raises(InvalidRequestError, match=field):
        ChunkLoop(chunk, num_overlap)


@pytest.mark.parametrize("hop", [55, 64])
def test_the_transform_equals_torch_s(hop: int) -> None:
    sizes = RoformerConfig.from_published({"stft_n_fft": 256, "stft_hop_length": hop, "freqs_per_bands": [129]})
    mix = normal(0, "mix", 0, (2, 20 * hop))
    window = torch.hann_window(256)
    spectrum = torch.stft(torch.from_numpy(mix), 256, hop, window=window, return_complex=True)
    expected = torch.view_as_real(spectrum).permute(2, 1, 0, 3).reshape(21, -1)  # frame, bin, channel, part
    transform = RoformerTransform(sizes)
    features = transform.features(mix)
    assert_close(features, expected.numpy(), 1e-4)
    ones = np.zeros((1, *features.shape), np.float32)
    ones[..., ::2] = 1
    assert_close(transform.separate(features, ones), mix[None], 1e-5)
    with pytest.raises(InvalidRequestError, match="more than 128 samples"):
        transform.features(mix[:, :128])
