"""The LM stage against the reference loop, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice import keyed_random
from heartvoice.contracts.constants import N_CODEBOOKS
from heartvoice.models.generate import generate
from heartvoice.models.prompt import build_prompt
from tests.fakes.networks import BytesTokenizer, TorchStep
from tests.support.lm_songs import LmStage
from tests.unit.stages.lm.test_request import PRESET, request, stage, step  # noqa: F401


@pytest.mark.parametrize(("cfg_scale", "temperature"), [(1.0, 1.0), (1.5, 0.0), (3.0, 1.0)])
def test_frames_are_those_of_the_reference_loop(
    stage: LmStage,  # noqa: F811
    step: TorchStep,  # noqa: F811
    cfg_scale: float,
    temperature: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("heartvoice.stages.lm.cache.WIDTH_BLOCK", 16)
    wanted = request(cfg_scale=cfg_scale, temperature=temperature, duration_s=2.0, min_duration_s=2.0)
    prompt = build_prompt(wanted.tags, wanted.lyrics, BytesTokenizer(), PRESET.ids)
    assert len(prompt.text_ids) + wanted.n_frames > 32  # the cache grows twice
    expected = generate(
        step.model,
        prompt.text_ids,
        max_frames=wanted.n_frames,
        min_frames=wanted.n_frames,
        eos_id=PRESET.ids.audio_eos_id,
        uniform=lambda frame: keyed_random.uniform(wanted.seed, "lm", frame, (1, N_CODEBOOKS))[0],
        style=np.zeros(PRESET.lm.muq_dim, np.float32),
        style_index=prompt.style_index,
        cfg_scale=cfg_scale,
        temperature=temperature,
    )
    assert np.array_equal(np.stack(list(stage.frames(wanted)), axis=1), expected.numpy())


def test_seed_decides_the_song(stage: LmStage) -> None:  # noqa: F811
    songs = [np.stack(list(stage.frames(request(seed=seed)))) for seed in (1, 1, 2)]
    assert np.array_equal(songs[0], songs[1])
    assert songs[0].shape != songs[2].shape or not np.array_equal(songs[0], songs[2])


def test_interleaved_songs_do_not_disturb_each_other(stage: LmStage) -> None:  # noqa: F811
    wanted = [
        request(seed=1, min_duration_s=2.0),
        request(seed=2, cfg_scale=1.0, lyrics="Other words", min_duration_s=2.0),
    ]
    alone = [np.stack(list(stage.frames(r))) for r in wanted]
    together = [np.stack(frames) for frames in zip(*zip(*(stage.frames(r) for r in wanted), strict=True), strict=True)]
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a, b)


def test_codes_are_always_codes(stage: LmStage) -> None:  # noqa: F811
    frames = np.stack(list(stage.frames(request(temperature=10.0, top_k=1000, duration_s=8.0))))
    assert frames.min() >= 0
    assert frames.max() < PRESET.lm.codebook_size


def test_eos_is_forbidden_in_frame_0_and_before_the_shortest_length(step: TorchStep) -> None:  # noqa: F811
    allowed = []

    class Watching:
        def run(self, inputs: dict[str, np.ndarray], outputs: object = None) -> object:
            allowed.append(bool(inputs["allow_eos"][0]))
            return step.run(inputs, outputs)  # type: ignore[arg-type]

    stage = LmStage(Watching(), BytesTokenizer(), PRESET)  # type: ignore[arg-type]  # noqa: F811
    list(stage.frames(request(min_duration_s=0.5, duration_s=1.0)))
    n_forbidden = 7  # 0.5 s are 6.25 frames
    assert allowed[:n_forbidden] == [False] * n_forbidden
    assert all(allowed[n_forbidden:])
    allowed.clear()
    list(stage.frames(request(duration_s=1.0)))
    assert allowed[0] is False
    assert all(allowed[1:])
