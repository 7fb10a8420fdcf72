"""HeartMuLa against vectors of the reference implementation (tests/golden/heartlib/README.md)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heartvoice.models.generate import generate, max_frames_of
from heartvoice.models.heartmula import StepOutputs
from tests.support.golden_cases import Golden, assert_close
from tests.unit.models.test_heartmula_golden import SONGS, _inference, model_of, prompt_of, style_of, tolerance  # noqa: F401


@pytest.mark.parametrize("case", SONGS)
def test_generated_frames_equal_the_reference(case: Golden) -> None:
    args, seen = case.args, list[StepOutputs]()
    text_ids, slot = prompt_of(case)
    books = case.folder.config["audio_num_codebooks"]
    # Greedy songs do not depend on the draws; take some anyway.
    frames = generate(
        model_of(case.folder),
        text_ids,
        max_frames=max_frames_of(args["max_audio_length_ms"]),
        eos_id=args["audio_eos_id"],
        uniform=lambda frame: np.full(books, 0.5, np.float32),
        style=style_of(case),
        style_index=slot,
        cfg_scale=args["cfg_scale"],
        temperature=args["temperature"],
        top_k=args["topk"],
        observe=lambda frame, outputs: seen.append(outputs),
    )
    assert frames.dtype == torch.int32
    np.testing.assert_array_equal(frames, case["frames"])
    for row in case["c0_logits_frame0"]:  # two equal rows where guidance is below 1
        assert_close(seen[0].logits[0, 0], row, tolerance(case))
