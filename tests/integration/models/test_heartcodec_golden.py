"""HeartCodec against vectors of the reference implementation (tests/golden/heartlib/README.md)."""

from __future__ import annotations

import pytest

from tests.support.golden_cases import Golden, assert_close
from tests.unit.models.test_heartcodec_golden import (
    ATOL,
    RVQS,
    SONGS,
    _inference,  # noqa: F401
    golden_latents,
    model_of,
    plan_of,
    song_of,
    tensor,
)


@pytest.mark.parametrize("case", RVQS)
def test_rvq_and_condition_equal_the_reference(case: Golden) -> None:
    flow = model_of(case.folder).flow_matching
    indices = tensor(case, "indices")
    output = flow.vq_embed(indices)
    assert_close(output, case["output"], ATOL)
    if "cond" in case:
        assert_close(flow.cond_feature_emb(output), case["cond"], ATOL)
        assert_close(flow.condition(indices.transpose(1, 2)), case["cond_upsampled"], ATOL)


@pytest.mark.parametrize("case", SONGS)
def test_song_latents_equal_the_reference(case: Golden) -> None:
    ours, _ = song_of(case.folder, case.name)
    expected = golden_latents(case)
    for index, (golden, window) in enumerate(zip(expected, ours, strict=False)):
        assert_close(window, golden, ATOL)
        assert plan_of(case).context(index) == case.args["incontext_lengths"][index]
    assert index + 1 == len(expected) == case.args["windows"]
