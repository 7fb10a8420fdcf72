"""The flow's solver, over the module and over the graph."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from heartvoice.errors import RequestCancelledError
from heartvoice.keyed_random import normal
from heartvoice.stages.svc.flow import Velocity, network_velocity, sample
from tests.support.cancelling import networks_until
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params
from tests.support.svc_networks import (
    DIT,
    OneOf,
    TorchFlow,
    frames_last,
    golden_dit,
    network_of,
    small_engine,
    svc_engine,
)

FOLDERS = folder_params("seed_vc/cfm")
CASE = re.compile(r"out\.steps(\d+)\.cfg([\d.]+?)(?:\.temperature([\d.]+))?")


@lru_cache(maxsize=4)
def golden_networks(folder: GoldenFolder, kind: str) -> OneOf:
    sizes, source = golden_dit(folder)
    engine = svc_engine(sizes, source) if kind == "graph" else TorchFlow(network_of(sizes, source))
    return OneOf({"svc_flow": engine})


def inputs(length: int = 30, prompt: int = 10) -> dict[str, Any]:
    return {
        "noise": normal(0, "noise", 0, (1, length, DIT.in_channels)),
        "prompt": normal(0, "prompt", 0, (1, prompt, DIT.in_channels)) * np.float32(2) - 5,
        "style": normal(0, "style", 0, (1, DIT.style_dim)),
        "cond": normal(0, "cond", 0, (1, length, DIT.content_dim)),
    }


class Recorded:
    """A velocity that remembers where it was asked for."""

    def __init__(self, velocity: Velocity) -> None:
        self.velocity = velocity
        self.states: list[Any] = []
        self.times: list[float] = []

    def __call__(self, x: Any, prompt_x: Any, t: float, style: Any, cond: Any) -> Any:
        self.states.append(x[0].T)
        self.times.append(t)
        return self.velocity(x, prompt_x, t, style, cond)


@pytest.mark.parametrize("kind", ["module", "graph"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_samples_and_their_way_are_the_references(folder: GoldenFolder, kind: str) -> None:
    io = folder.io
    cases = {name: match for name in io if (match := CASE.fullmatch(name))}
    assert len(cases) >= 3
    over_network = network_velocity(golden_networks(folder, kind))
    for name, match in cases.items():
        steps, guidance, temperature = int(match[1]), float(match[2]), float(match[3] or 1)
        velocity = Recorded(over_network)
        found = sample(
            frames_last(io["noise"]) * np.float32(temperature), frames_last(io["prompt"]), io["style"], io["mu"],
            steps=steps, guidance=guidance, velocity=velocity,
        )  # fmt: skip
        assert_close(frames_last(found), io[name], 5e-5)
        np.testing.assert_allclose(velocity.times, io[f"traj_t.steps{steps}"], atol=1e-6)
        way = f"traj_x.steps{steps}.cfg{match[2]}"
        if temperature == 1 and way in io:
            assert_close(np.stack(velocity.states), io[way], 5e-5)


def test_quirk_10_the_state_on_the_prompt_is_zero_at_every_step() -> None:
    seen = []

    def velocity(x: Any, prompt_x: Any, t: float, style: Any, cond: Any) -> Any:
        seen.append((x, prompt_x))
        return np.ones_like(x)

    given = inputs()
    noise = given["noise"].copy()
    found = sample(**given, steps=3, guidance=0.7, velocity=velocity)
    assert not found[:, :10].any()
    np.testing.assert_allclose(found[:, 10:], noise[:, 10:] + 1, atol=1e-6)
    for x, prompt_x in seen:
        assert not x[:, :10].any()
        assert np.array_equal(prompt_x[0, :10], given["prompt"][0])
        assert not prompt_x[0, 10:].any()
    assert np.array_equal(given["noise"], noise)  # the caller keeps its noise


def test_quirk_9_rows_are_conditional_then_null_and_are_bound_once() -> None:
    calls = []

    def velocity(x: Any, prompt_x: Any, t: float, style: Any, cond: Any) -> Any:
        calls.append((prompt_x, style, cond))
        assert len(x) == 2
        assert np.array_equal(x[0], x[1])
        return np.stack([np.full_like(x[0], 3.0), np.full_like(x[0], 1.0)])

    given = inputs(prompt=0)
    found = sample(**given, steps=1, guidance=0.5, velocity=velocity)
    np.testing.assert_allclose(found, given["noise"] + (1.5 * 3 - 0.5 * 1), atol=1e-6)
    sample(**given, steps=4, guidance=0.5, velocity=velocity)
    for fixed in calls[0]:
        assert not fixed[1].any()
    assert np.array_equal(calls[0][2][0], given["cond"][0])
    for later in calls[2:]:
        assert all(mine is first for mine, first in zip(later, calls[1], strict=True))


def test_without_guidance_there_is_one_row() -> None:
    shapes = []

    def velocity(x: Any, prompt_x: Any, t: float, style: Any, cond: Any) -> Any:
        shapes.append([len(value) for value in (x, prompt_x, style, cond)])
        return x * 0

    sample(**inputs(), steps=2, guidance=0.0, velocity=velocity)
    assert shapes == [[1, 1, 1, 1]] * 2


def test_torch_and_numpy_take_the_same_way() -> None:
    network = network_of(DIT)
    given = inputs()
    expected = sample(
        **given, steps=3, guidance=0.7, velocity=network_velocity(OneOf({"svc_flow": TorchFlow(network)}))
    )
    with torch.inference_mode():
        found = sample(
            **{name: torch.from_numpy(value) for name, value in given.items()}, steps=3, guidance=0.7,
            velocity=lambda x, prompt_x, t, style, cond: network(x, prompt_x, style, cond, torch.full((len(x),), t)),
        )  # fmt: skip
    assert_close(found, expected, 1e-5)


def test_cancelling_stops_before_the_next_step() -> None:
    networks = OneOf({"svc_flow": small_engine(DIT)})
    velocity = network_velocity(networks_until(networks, lambda: len(networks.calls) == 2))
    with pytest.raises(RequestCancelledError):
        sample(**inputs(), steps=4, guidance=0.0, velocity=velocity)
    assert len(networks.calls) == 2
