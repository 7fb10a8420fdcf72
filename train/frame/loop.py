"""The training loop: compose, differentiate, average, move, and save in time."""

from __future__ import annotations

import hashlib
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from heartvoice.keyed_random import bits
from train.frame.averaging import Averaging, started
from train.frame.errors import TrainingError
from train.frame.log import Log, describe, duration, say
from train.frame.optimisers import Optimisers
from train.frame.schedule import rate_factor
from train.frame.state import State, check_recipe, load_state, owned, save_state
from train.frame.task import Moment, Task


@dataclass(frozen=True)
class Options:
    """How long and where a training runs."""

    state: Path
    """Folder of state and log."""
    steps: int
    """Of the whole training, all sittings together."""
    minutes: float | None = None
    """Length of this sitting; None goes to the end."""
    seed: int = 0
    processes: int = 1
    workers: int = 0
    """Processes that compose batches, for each training process; 0 composes between the steps."""
    device: str = "cpu"
    bf16: bool = False
    save_minutes: float = 5.0
    log_steps: int = 20
    check_steps: int = 500


def train(make_task: Callable[[], Task], options: Options) -> bool:
    """Train a task, or go on where its state ends.

    Args:
        make_task: picklable; builds the task with its initial weights, from torch's global generator.
        options: how long, and where.

    Returns:
        Whether all steps are done. If not, the sitting's time is over or a signal came; the state is saved.

    Raises:
        TrainingError: the state cannot be used, another training has it, or the loss is not finite.
    """
    with owned(options.state), started(options.processes, partial(_train, make_task, options)) as place:
        return _train(make_task, options, place)


def _train(make_task: Callable[[], Task], options: Options, place: Averaging) -> bool:
    training = _Training(make_task, options, place)
    with _stop_signals(training):
        return training.run()


class _Composer(Dataset[Any]):
    """Batches by step."""

    def __init__(self, task: Task, options: Options, rank: int) -> None:
        self._task, self._options, self._rank = task, options, rank

    def __getitem__(self, step: int) -> Any:
        moment = Moment(step, self._options.steps, self._rank)
        generator = np.random.Generator(bits(self._options.seed, f"{self._task.name}/{self._rank}", step))
        return self._task.compose(moment, generator)


class _Training:
    """One process of a training, from the state on."""

    def __init__(self, make_task: Callable[[], Task], options: Options, place: Averaging) -> None:
        self._options, self._place = options, place
        self.stopped = False
        self.rank = place.rank
        torch.manual_seed(options.seed)
        self._task = make_task()
        self._network = self._task.network.to(options.device)
        self._optimisers = Optimisers(self._network, self._task.groups())
        self._recipe = {
            **self._task.recipe, "task": self._task.name, "seed": options.seed, "processes": options.processes,
            "bf16": options.bf16,
        }  # fmt: skip
        self._step, self._seconds, self._log_bytes = 0, 0.0, 0
        self._resume()
        self._began = time.monotonic()
        self._saved = self._began
        self._shown: dict[str, list[float]] = {}
        self._last = self._step, self._began

    def _resume(self) -> None:
        state = load_state(self._options.state)
        if state is None:
            return
        check_recipe(state, self._recipe, self._options.state)
        if state.step > self._options.steps:
            raise TrainingError(
                f"--steps: the state has {state.step} steps already, got {self._options.steps}; "
                "give at least as many, or another --state"
            )
        self._network.load_state_dict(state.network)
        self._optimisers.load_state_dict(state.optimisers)
        self._step, self._seconds, self._log_bytes = state.step, state.seconds, state.log_bytes

    def run(self) -> bool:
        """Train until the end, the time, or a signal."""
        if self.rank:
            self._steps(None)
            return self._step == self._options.steps
        log = Log(self._options.state, self._log_bytes)
        try:
            first = self._step
            log.write("start", first, {"total": self._options.steps, "recipe": self._recipe, **_machine(self._options)})
            say(f"{self._task.name}: step {first} of {self._options.steps}, state in {self._options.state}")
            self._steps(log)
            done = self._step == self._options.steps
            if self._step > first:
                if done:
                    self._check(log)
                log.write("end" if done else "pause", self._step, {"seconds": self._elapsed()})
                self._save(log)
            return done
        finally:
            log.close()

    def _steps(self, log: Log | None) -> None:
        loader = DataLoader(
            _Composer(self._task, self._options, self.rank), batch_size=None, collate_fn=_as_it_is,
            sampler=range(self._step, self._options.steps), num_workers=self._options.workers,
            worker_init_fn=_worker if self._options.workers else None,
            prefetch_factor=4 if self._options.workers else None,
        )  # fmt: skip
        self._network.train()
        for batch in loader:
            stop = self._one(batch)
            self._step += 1
            if log is not None:
                self._look_after(log)
            if stop:
                break

    def _one(self, batch: Any) -> bool:
        """Do one step; returns whether it is the last of this sitting."""
        options, moment = self._options, Moment(self._step, self._options.steps, self.rank)
        seed = hashlib.sha256(f"{options.seed}/{self._task.name}/{moment.rank}/{moment.step}".encode()).digest()
        torch.manual_seed(int.from_bytes(seed[:8], "little", signed=True))
        self._network.zero_grad(set_to_none=True)
        device = torch.device(options.device)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            loss, parts = self._task.loss(_moved(batch, device), moment)
        loss.backward()  # type: ignore[no-untyped-call]
        wanted = self.stopped or (options.minutes is not None and self._sitting() > options.minutes * 60)
        stop = self._place.average(self._network, wanted)
        norm = float(torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._task.clip))
        if not np.isfinite(norm):
            raise TrainingError(
                f"step {moment.step}: the gradient is not finite; the state of before is kept. Use a lower rate"
            )
        factor = rate_factor(moment.step, moment.total)
        self._optimisers.step(factor)
        for name, value in {"loss": loss.detach(), **parts, "gradient": norm, "rate": factor}.items():
            self._shown.setdefault(name, []).append(float(value.detach() if isinstance(value, Tensor) else value))
        return stop

    def _look_after(self, log: Log) -> None:
        """Log, check and save when it is time."""
        options = self._options
        if self._step % options.log_steps == 0:
            self._report(log)
        if self._step % options.check_steps == 0 and self._step < options.steps:
            self._check(log)
        if time.monotonic() - self._saved > options.save_minutes * 60:
            self._save(log)

    def _report(self, log: Log) -> None:
        """Log the means since the last report, and say how long the rest takes."""
        step, now = self._last
        self._last = self._step, time.monotonic()
        each = (self._last[1] - now) / (self._step - step)
        means = {name: float(np.mean(values)) for name, values in self._shown.items()}
        self._shown.clear()
        log.write("train", self._step, {**means, "step_s": each, "seconds": self._elapsed()})
        left = (self._options.steps - self._step) * each
        shown = describe({name: value for name, value in means.items() if name != "rate"})
        say(
            f"{self._task.name} {self._step}/{self._options.steps}  {shown}  {each:.2f} s a step, {duration(left)} left"
        )

    def _check(self, log: Log) -> None:
        self._network.eval()
        with torch.no_grad():
            values = self._task.check()
        self._network.train()
        log.write("check", self._step, {**values, "seconds": self._elapsed()})
        say(f"{self._task.name} {self._step}/{self._options.steps}  held out: {describe(values)}")

    def _save(self, log: Log) -> None:
        state = State(
            recipe=self._recipe, step=self._step, total=self._options.steps, seconds=self._elapsed(),
            log_bytes=log.size(), network=self._network.state_dict(), optimisers=self._optimisers.state_dict(),
        )  # fmt: skip
        save_state(self._options.state, state)
        self._saved = time.monotonic()

    def _sitting(self) -> float:
        return time.monotonic() - self._began

    def _elapsed(self) -> float:
        return self._seconds + self._sitting()


@contextmanager
def _stop_signals(training: _Training) -> Iterator[None]:
    """Have SIGINT and SIGTERM end the training after its step; a second one ends it at once."""

    def stop(number: int, _frame: FrameType | None) -> None:
        if training.stopped:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        training.stopped = True
        say(f"{signal.Signals(number).name}: stops after this step; the state is saved")

    if training.rank:  # the first process tells the others
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _worker(_index: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the training ends its workers itself
    torch.set_num_threads(1)


def _as_it_is(batch: Any) -> Any:
    return batch


def _moved(batch: Any, device: torch.device) -> Any:
    """Move the tensors of tuples, lists and dicts to a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: _moved(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(_moved(value, device) for value in batch)
    return batch


def _machine(options: Options) -> Mapping[str, Any]:
    name = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else platform.machine()
    return {"device": name, "torch": str(torch.__version__), "threads": torch.get_num_threads()}
