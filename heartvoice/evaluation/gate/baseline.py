"""The gate's committed numbers: made from several seeds, and what is worse than they are."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heartvoice.errors import HeartvoiceError, InvalidRequestError
from heartvoice.evaluation.gate.measures import MEASURES, Measure, Values, gathered
from heartvoice.evaluation.results import rounded

FORMAT = 1
CONFIDENCE = 0.999
"""Of the tolerance: one more seed would be worse by more than it once in a thousand lists."""
MIN_SEEDS = 3
_AGAIN = "make it anew with --write"
Identity = Mapping[str, Any]
"""What numbers belong to: a list's hash, and the identity of the weights of each network."""


@dataclass(frozen=True)
class Level:
    """What a measure was over a list, and how much of a change says nothing."""

    mean: float
    """Of the numbers of all seeds."""
    tolerance: float


@dataclass(frozen=True)
class Baseline:
    """Numbers of all items by measure, item and seed."""

    identity: Identity
    seeds: tuple[int, ...]
    values: Mapping[str, Mapping[str, tuple[float, ...]]]
    """By `Measure.key` and item: one value a seed, as the file has it. A measure has the items that it applied to."""

    def level(self, measure: Measure, items: Collection[str]) -> Level | None:
        """Return what a measure was over some items; None if it applied to none of them."""
        kept = [row for item, row in self.values.get(measure.key, {}).items() if item in items]
        if not kept:
            return None
        numbers = [gathered(measure, column) for column in zip(*kept, strict=True)]
        return Level(float(np.mean(numbers)), tolerance(measure, numbers))

    @property
    def items(self) -> frozenset[str]:
        """Names of all items."""
        return frozenset(item for rows in self.values.values() for item in rows)


def tolerance(measure: Measure, numbers: Sequence[float]) -> float:
    """Return the change that says nothing, from the numbers of at least `MIN_SEEDS` seeds.

    The distance from their mean that one more seed exceeds in one direction with probability 1 - `CONFIDENCE`, at
    least the measure's own.
    """
    from scipy.stats import t

    n = len(numbers)
    spread = float(np.std(numbers, ddof=1)) * math.sqrt(1 + 1 / n)
    return max(measure.least, float(t.ppf(CONFIDENCE, n - 1)) * spread)


def collect(identity: Identity, runs: Mapping[int, Mapping[str, Values]]) -> Baseline:
    """Make a baseline; an item that has no value with some seed is left out of that measure.

    Args:
        identity: of list and weights.
        runs: values by item, by seed; each seed has the same items.

    Raises:
        InvalidRequestError: too few seeds.
    """
    if len(runs) < MIN_SEEDS:
        raise InvalidRequestError(f"seeds: expected at least {MIN_SEEDS}, got {len(runs)}")
    values: dict[str, dict[str, tuple[float, ...]]] = {}
    for item, first in next(iter(runs.values())).items():
        for key in first:
            row = [rounded(run[item].get(key)) for run in runs.values()]
            if all(value is not None for value in row):
                values.setdefault(key, {})[item] = tuple(row)
    return Baseline(identity, tuple(runs), values)


# ----------------------------------------------------------------------------------------------------------------- file


def dumps(baseline: Baseline) -> str:
    """Return the file's text: the numbers, and for readers their mean, tolerance and direction."""
    return json.dumps(_as_json(baseline), indent=1, allow_nan=False) + "\n"


def _as_json(baseline: Baseline) -> dict[str, Any]:
    found: dict[str, Any] = rounded(
        {
            "format": FORMAT,
            **baseline.identity,
            "seeds": list(baseline.seeds),
            "measures": {
                measure.key: {
                    "better": measure.better,
                    "unit": measure.unit,
                    "over_the_list": measure.gather,
                    "mean": level.mean,
                    "tolerance": level.tolerance,
                    "values": {item: list(row) for item, row in baseline.values[measure.key].items()},
                }
                for measure in MEASURES
                if (level := baseline.level(measure, baseline.items)) is not None
            },
        }
    )
    return found


def load(path: Path, identity: Identity) -> Baseline:
    """Read the file.

    Raises:
        HeartvoiceError: it is missing, damaged or edited, or of other weights or another list; says what to do.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HeartvoiceError(f"{path}: no such file, so nothing says what is worse; {_AGAIN}") from None
    except ValueError as error:
        raise HeartvoiceError(f"{path}: damaged: {error}; {_AGAIN}") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise HeartvoiceError(f"{path}: expected numbers of format {FORMAT}; {_AGAIN}")
    for name, value in identity.items():
        if stored.get(name) != value:
            raise HeartvoiceError(f"{path}: made with another {name}: {_difference(stored.get(name), value)}; {_AGAIN}")
    try:
        values = {
            key: {item: tuple(map(float, row)) for item, row in made["values"].items()}
            for key, made in stored["measures"].items()
        }
        baseline = Baseline(identity, tuple(stored["seeds"]), values)
        same = rounded(stored["measures"]) == _as_json(baseline)["measures"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HeartvoiceError(f"{path}: damaged: {error!r}; {_AGAIN}") from error
    if not same:
        raise HeartvoiceError(f"{path}: its means, tolerances or measures are not those of its values; {_AGAIN}")
    return baseline


def _difference(stored: object, value: object) -> str:
    """Name the parts of two identities that differ."""
    if isinstance(stored, dict) and isinstance(value, dict):
        names = sorted(name for name in {*stored, *value} if stored.get(name) != value.get(name))
        return ", ".join(names)
    return f"expected {value!r}, got {stored!r}"


# ----------------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True)
class Move:
    """One measure then and now."""

    measure: Measure
    was: Level
    now: float | None
    """None if it no longer has a value for every item that it had one for."""
    items: Mapping[str, tuple[float, float]]
    """By item: mean of the seeds, and now."""
    lost: tuple[str, ...]
    """Items without a value now."""

    @property
    def steps(self) -> float:
        """How many tolerances it is better; below -1 it is worse, and -infinity where it was lost."""
        if self.now is None:
            return -math.inf
        change = (self.now - self.was.mean) / self.was.tolerance
        return change if self.measure.better == "higher" else -change

    @property
    def is_worse(self) -> bool:
        """Whether the gate fails by it."""
        return self.steps < -1


def compare(baseline: Baseline, now: Mapping[str, Values]) -> list[Move]:
    """Compare one run with the baseline, over the items of the run.

    Args:
        baseline: of the whole list.
        now: values by item, of the whole list or a part.

    Raises:
        HeartvoiceError: the baseline lacks an item or a measure.
        InvalidRequestError: there is no item.
    """
    if not now:
        raise InvalidRequestError("items: expected one at least, got none")
    measured = {key for row in now.values() for key, value in row.items() if value is not None}
    lacking = sorted((set(now) - baseline.items) | (measured - set(baseline.values)))
    if lacking:
        raise HeartvoiceError(f"baseline: it lacks {', '.join(lacking)}; {_AGAIN}")
    return [move for measure in MEASURES if (move := _move(baseline, measure, now)) is not None]


def _move(baseline: Baseline, measure: Measure, now: Mapping[str, Values]) -> Move | None:
    was = baseline.level(measure, now.keys())
    if was is None:
        return None
    rows = {item: row for item, row in baseline.values[measure.key].items() if item in now}
    items: dict[str, tuple[float, float]] = {}
    for item, row in rows.items():
        value = now[item].get(measure.key)
        if value is not None:
            items[item] = (float(np.mean(row)), value)
    lost = tuple(item for item in rows if item not in items)
    number = None if lost else gathered(measure, [value for _, value in items.values()])
    return Move(measure, was, number, items, lost)
