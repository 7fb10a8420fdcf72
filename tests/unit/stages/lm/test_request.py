"""The LM stage against the reference loop, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.errors import InvalidRequestError, RequestCancelledError
from heartvoice.stages.lm.request import LmRequest
from tests.fakes.networks import BytesTokenizer, TorchStep, text, tiny, torch_step
from tests.support.lm_songs import LmStage

PRESET = tiny()


@pytest.fixture(scope="module")
def step() -> TorchStep:
    return torch_step(PRESET)


@pytest.fixture
def stage(step: TorchStep) -> LmStage:
    return LmStage(step, BytesTokenizer(), PRESET)


def request(**changes: object) -> LmRequest:
    values = {"lyrics": "La la\n[chorus] la", "tags": "pop", "duration_s": 2.0, "min_duration_s": 0.0, "seed": 7}
    values |= {"temperature": 1.0, "top_k": 50, "cfg_scale": 1.5}
    return LmRequest(**(values | changes))  # type: ignore[arg-type]


def test_eos_ends_the_song_and_its_frame_is_dropped(step: TorchStep) -> None:
    class Ending:
        def run(self, inputs: object, outputs: object = None) -> object:
            result = step.run(inputs, outputs)  # type: ignore[arg-type]
            self.n = getattr(self, "n", 0) + 1
            if self.n == 4:
                result["next_codes"][0, 5] = PRESET.ids.audio_eos_id
            return result

    frames = list(LmStage(Ending(), BytesTokenizer(), PRESET).frames(request()))  # type: ignore[arg-type]
    assert len(frames) == 3


def test_cancel_ends_within_two_frames(stage: LmStage) -> None:
    made: list[np.ndarray] = []
    frames = stage.frames(request(min_duration_s=2.0), lambda: len(made) >= 3)
    with pytest.raises(RequestCancelledError):
        made.extend(frame for frame in frames)
    assert len(made) <= 5


def test_prompt_and_song_must_fit_the_positions(stage: LmStage) -> None:
    with pytest.raises(InvalidRequestError, match=r"duration_s: .* the limit is 3584"):
        next(stage.frames(request(lyrics="la " * 1000, duration_s=240.0)))


@pytest.mark.parametrize(("seconds", "frames"), [(1.0, 13), (2.4, 30), (2.41, 31), (4.08, 51), (240.0, 3000)])
def test_a_song_is_no_frame_longer_because_its_duration_came_as_float32(seconds: float, frames: int) -> None:
    sent = np.array([seconds], np.float32)
    wanted = LmRequest.from_inputs({"lyrics": text("a"), "duration_s": sent, "min_duration_s": sent}, PRESET)
    assert (wanted.n_frames, wanted.min_frames) == (frames, frames)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"lyrics": text(""), "tags": text(" \n")}, "lyrics, tags: expected text"),
        ({"lyrics": text("x" * 100_000)}, "lyrics: expected at most 20000 UTF-8 bytes, got 100000"),
        ({"lyrics": text("a\x00b")}, r"lyrics: .*control characters, got U\+0000 at 1"),
        ({"lyrics": text("a"), "duration_s": np.array([0.0], np.float32)}, "duration_s: expected 1 to 240 s, got 0"),
        ({"lyrics": text("a"), "duration_s": np.array([-1.0], np.float32)}, "duration_s"),
        ({"lyrics": text("a"), "duration_s": np.array([1e9], np.float32)}, "duration_s"),
        ({"lyrics": text("a"), "duration_s": np.array([np.nan], np.float32)}, "duration_s: .*nan"),
        ({"lyrics": text("a"), "top_k": np.array([0])}, "top_k: expected 1 to 1000, got 0"),
        ({"lyrics": text("a"), "top_k": np.array([1001])}, "top_k"),
        ({"lyrics": text("a"), "cfg_scale": np.array([0.5], np.float32)}, "cfg_scale: expected 1 to 10, got 0.5"),
        ({"lyrics": text("a"), "min_duration_s": np.array([31.0], np.float32)}, "min_duration_s: expected at most"),
        ({"lyrics": text("a"), "style": np.zeros(3, np.float32)}, r"style: expected FP32 \[32\]"),
        ({"lyrics": text("a"), "style": np.full(32, np.inf, np.float32)}, "style: expected finite"),
        ({"lyrics": np.array([b"\xff"], np.object_)}, "lyrics: expected UTF-8"),
    ],
)
def test_bad_input_is_refused_with_field_limit_and_value(inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        LmRequest.from_inputs(inputs, PRESET)
