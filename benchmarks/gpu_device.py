"""Measurement on a GPU: calibration, clocks, CUDA graphs, peak memory, random weights made on the device.

Everything also runs on a CPU, so the benchmark can be tried without a GPU. Needs only torch and numpy.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from heartvoice.checkpoints.random_init import heartcodec_init, heartmula_init
from heartvoice.config.presets import HeartCodecConfig, HeartMuLaConfig
from heartvoice.loadtest import machine
from heartvoice.loadtest.harness import Run, Timing
from heartvoice.models.load import build_module

T = TypeVar("T")
_WARMUP = 3
_CAPTURE_WARMUP = 3
_TOP = 15


def calibrate(device: torch.device) -> dict[str, float]:
    """Measure the device's bandwidth of reading and copying and its rates of matrix products, as medians.

    The products use random numbers, because zeros run faster.
    """
    on_gpu = device.type == "cuda"
    n_bytes = min(2**32, torch.cuda.mem_get_info(device)[0] // 8) if on_gpu else 2**24
    size, repeats = (8192, 10) if on_gpu else (256, 3)
    source = torch.rand(n_bytes // 4, device=device)
    target = torch.empty_like(source)
    rates = {
        "read_gb_s": n_bytes / _seconds(device, source.sum, repeats) / 1e9,
        "copy_gb_s": 2 * n_bytes / _seconds(device, lambda: target.copy_(source), repeats) / 1e9,
    }
    left, right = (torch.rand(size, size, device=device) - 0.5 for _ in range(2))
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, False),
    ):
        use_tf32(tf32)
        product = functools.partial(torch.matmul, left.to(dtype), right.to(dtype))
        rates[f"{name}_tflop_s"] = 2 * size**3 / _seconds(device, product, repeats) / 1e12
    use_tf32(False)
    return rates


def use_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in float32 products and convolutions (torch's default allows convolutions)."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def _seconds(device: torch.device, action: Callable[[], object], repeats: int) -> float:
    """Median device seconds of a call."""
    for _ in range(_WARMUP):
        action()
    return float(np.median([_once(device, action)[1] for _ in range(repeats)]))


def _once(device: torch.device, action: Callable[[], object]) -> tuple[float, float]:
    """Return wall seconds (with synchronisation) and device seconds of one call."""
    if device.type != "cuda":
        start = time.perf_counter()
        action()
        wall = time.perf_counter() - start
        return wall, wall
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    begin.record()
    action()
    end.record()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start, begin.elapsed_time(end) / 1e3


def random_network(sizes: HeartMuLaConfig | HeartCodecConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Make a network with random weights on the device; full size takes a second."""
    init = heartmula_init(sizes) if isinstance(sizes, HeartMuLaConfig) else heartcodec_init(sizes)
    module = build_module(sizes, decode_only=True).to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, tensor in module.state_dict().items():
        each = init(name, tuple(tensor.shape))
        if each.flag:
            tensor.fill_(True)
            continue
        reach = math.sqrt(3) * each.std
        tensor.uniform_(each.mean - reach, each.mean + reach, generator=generator)
        if each.n_zero:
            tensor.narrow(each.zero_axis, tensor.shape[each.zero_axis] - each.n_zero, each.n_zero).zero_()
    return module.eval().requires_grad_(False)


@dataclass
class Bench:
    """Device, time limit and receiver of the results."""

    run: Run
    device: torch.device
    deadline: float
    """Value of `time.perf_counter()` after which nothing new starts."""

    @property
    def on_gpu(self) -> bool:
        """True if the device is a GPU; otherwise this is a dry run."""
        return self.device.type == "cuda"

    def attempt(self, case: str, variant: str, action: Callable[[], T], *, needs_s: float = 0) -> T | None:
        """Run an action; record the reason if it fails or if too little time is left."""
        if time.perf_counter() + needs_s > self.deadline:
            self.run.add(case, variant, failed="not begun: too little time was left")
            return None
        print(f"{time.perf_counter() - self.deadline:+.0f} s  {case}: {variant}", flush=True)
        try:
            return action()
        except Exception as error:  # every error of a kernel, compiler or allocator is a result
            self.run.add(case, variant, failed=f"{type(error).__name__}: {str(error).strip()[:600]}")
        finally:
            self.run.save()
        self.release()
        return None

    def time(self, action: Callable[[], object], *, n: int, limit_s: float = 15) -> tuple[Timing, dict[str, float]]:
        """Time synchronised calls and their memory.

        Args:
            action: the timed function.
            n: number of calls on a GPU; three in a dry run.
            limit_s: after these seconds no more calls are made, except to reach three.

        Returns:
            Wall times; and `device_ms` (median between events), `loaded_gb`, `peak_gb`.
        """
        self._reset_peak()
        loaded = self._memory()
        for _ in range(_WARMUP if self.on_gpu else 1):
            action()
        begin, pairs = time.perf_counter(), []
        for index in range(n if self.on_gpu else 3):
            if index >= 3 and time.perf_counter() - begin > limit_s:
                break
            pairs.append(_once(self.device, action))
        device_ms = float(np.median([device for _, device in pairs])) * 1e3
        facts = {"device_ms": device_ms, "loaded_gb": loaded / 1e9, "peak_gb": self._peak() / 1e9}
        return Timing(tuple(wall for wall, _ in pairs)), facts

    def peak(self, action: Callable[[], T]) -> tuple[T, dict[str, float]]:
        """Run an action; return its result with the memory before and at its peak: `loaded_gb`, `peak_gb`."""
        self._reset_peak()
        loaded = self._memory()
        result = action()
        return result, {"loaded_gb": loaded / 1e9, "peak_gb": self._peak() / 1e9}

    def capture(self, action: Callable[[], object]) -> Callable[[], None]:
        """Capture an action as a CUDA graph, after warming up.

        Its inputs and outputs must keep their addresses.
        """
        if not self.on_gpu:
            raise RuntimeError("CUDA graphs need a GPU")
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(_CAPTURE_WARMUP):
                action()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            action()
        return graph.replay

    def profile(self, action: Callable[[], object]) -> dict[str, Any]:
        """Profile one call: number of kernels, their milliseconds, and the largest of them."""
        kind = torch.profiler.ProfilerActivity.CUDA if self.on_gpu else torch.profiler.ProfilerActivity.CPU
        action()
        with torch.profiler.profile(activities=[kind]) as profiler:
            action()
            if self.on_gpu:
                torch.cuda.synchronize(self.device)
        field = "self_device_time_total" if self.on_gpu else "self_cpu_time_total"
        found = [(getattr(each, field) / 1e3, each.count, each.key[:80]) for each in profiler.key_averages()]
        found = sorted((each for each in found if each[0] > 0), reverse=True)
        return {
            "kernels": sum(count for _, count, _ in found),
            "busy_ms": math.fsum(ms for ms, _, _ in found),
            "top": [{"ms": ms, "calls": count, "name": name} for ms, count, name in found[:_TOP]],
        }

    def release(self) -> None:
        """Return unused memory to the device."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()

    def _memory(self) -> int:
        return torch.cuda.memory_allocated(self.device) if self.on_gpu else machine.rss()

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) if self.on_gpu else machine.peak_rss()

    def _reset_peak(self) -> None:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            machine.reset_peak_rss()


def errors(value: Tensor, reference: Tensor) -> dict[str, Any]:
    """Compute relative error and signal-to-noise ratio on the device in float64."""
    wide = reference.double()
    error = float((value.double() - wide).norm() / wide.norm())
    return {"relative_error": error, "snr_db": -20 * math.log10(error) if error > 0 else 999.0}
