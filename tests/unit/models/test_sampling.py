"""The graphs' sampler, and what ties it to the reference's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from heartvoice import keyed_random
from heartvoice.models.sampling import mask_special, reference_probabilities, sample_inverse_cdf, sample_reference

V = 97


def logits_of(seed: int, rows: int = 1) -> Tensor:
    return torch.from_numpy(keyed_random.normal(seed, "logits", 0, (rows, V))) * 2


def draw(logits: Tensor, uniform: Tensor, *, k: int, temperature: float = 1.0) -> Tensor:
    rows = len(uniform)
    settings = torch.full((rows,), temperature), torch.full((rows,), k)
    return sample_inverse_cdf(logits.expand(rows, -1), *settings, uniform)


@pytest.mark.parametrize(("k", "temperature"), [(1, 1.0), (5, 0.5), (50, 1.0), (V, 2.0), (1000, 1.0)])
def test_both_samplers_draw_from_the_same_distribution(k: int, temperature: float) -> None:
    """Chi-square of 20 000 draws of each against the reference's probabilities, at about 5 sigma."""
    n, logits = 20_000, logits_of(1)
    expected = reference_probabilities(logits, k, temperature)[0].double().numpy() * n
    uniform = torch.from_numpy(keyed_random.uniform(2, "draws", 0, (n,)))
    exponential = torch.from_numpy(-np.log1p(-keyed_random.uniform(3, "draws", 0, (n, V)))) + 1e-30
    for tokens in (
        draw(logits, uniform, k=k, temperature=temperature),
        sample_reference(logits.expand(n, -1), k, temperature, exponential)[:, 0],
    ):
        counts = np.bincount(tokens.numpy(), minlength=V)
        kept = expected > 0
        assert not counts[~kept].any()
        statistic = np.square(counts - expected)[kept] / expected[kept]
        freedom = kept.sum() - 1
        assert statistic.sum() <= freedom + 5 * np.sqrt(2 * freedom) + 1e-6


def test_ties_at_the_threshold_keep_more_than_k() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0, 0.0]])
    grid = torch.arange(300) / 300
    assert set(draw(logits, grid, k=2).tolist()) == {1, 2, 3}


def test_extreme_uniform_numbers_give_kept_ids() -> None:
    for seed in range(200):
        logits = logits_of(seed)
        logits[0, -5:] = -torch.inf
        largest = set(logits[0].topk(7).indices.tolist())
        low, high = draw(logits, torch.tensor([0.0, keyed_random.UNIFORM_MAX]), k=7).tolist()
        assert low == min(largest)
        assert high == max(largest)


def test_top_1_without_randomness_is_argmax() -> None:
    logits = logits_of(4, rows=64)
    tokens = sample_inverse_cdf(logits, torch.ones(64), torch.ones(64, dtype=torch.int64), torch.zeros(64))
    torch.testing.assert_close(tokens, logits.argmax(-1))


def test_rows_have_their_own_settings_and_do_not_see_each_other() -> None:
    logits = logits_of(5, rows=6)
    temperature = torch.tensor([0.3, 1.0, 2.0, 1.0, 0.7, 1.5])
    top_k = torch.tensor([1, 50, 3, 2000, 10, V])
    uniform = torch.from_numpy(keyed_random.uniform(6, "draws", 0, (6,)))
    together = sample_inverse_cdf(logits, temperature, top_k, uniform)
    known = sample_inverse_cdf(logits, temperature, top_k, uniform, max_top_k=2000)
    alone = [
        sample_inverse_cdf(logits[i : i + 1], temperature[i : i + 1], top_k[i : i + 1], uniform[i : i + 1])
        for i in range(6)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=0)
    torch.testing.assert_close(together, known, rtol=0, atol=0)


def test_fewer_allowed_ids_than_k_never_gives_a_masked_one() -> None:
    logits = torch.full((1, V), -torch.inf)
    logits[0, [3, 40]] = torch.tensor([0.0, 1.0])
    assert set(draw(logits, torch.arange(100) / 100, k=50).tolist()) == {3, 40}


def test_special_ids_are_masked_except_an_allowed_eos() -> None:
    logits = torch.zeros(2, V)
    masked = mask_special(logits, V - 5, V - 4, torch.tensor([0, 1]))
    assert torch.isinf(masked[0, -5:]).all()
    assert torch.isinf(masked[1]).nonzero()[:, 0].tolist() == [V - 5, V - 3, V - 2, V - 1]
    assert torch.isfinite(masked[:, : V - 5]).all()


def test_an_eos_that_is_an_ordinary_code_is_never_masked() -> None:
    masked = mask_special(torch.zeros(1, V), V - 5, 10, torch.tensor([False]))
    assert torch.isfinite(masked[0, : V - 5]).all()
