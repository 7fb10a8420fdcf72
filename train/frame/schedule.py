"""The learning rate over a training: warm-up, plateau, and a fall over the last steps."""

from __future__ import annotations

WARM_UP = 100
"""Steps of the warm-up, or a tenth of a short training."""
FALL = 0.8
"""Share of the steps in which the rate falls. Held at its height, it keeps a decoder 2 dB lower, and a language model
forgets words that it knew."""
FLOOR = 0.02
"""The last step's rate, as a share of the plateau's."""


def rate_factor(step: int, total: int) -> float:
    """Return the share of the plateau's rate for a step, by the steps that remain.

    A training that is made longer goes on at a higher rate.

    Args:
        step: in [0, total).
        total: steps of the whole training, at least 1.

    Returns:
        Above 0, at most 1.
    """
    warm_up = max(1, min(WARM_UP, total // 10))
    fall = max(1.0, FALL * total)
    falling = FLOOR + (1 - FLOOR) * (total - 1 - step) / fall
    return min(1.0, (step + 1) / warm_up, falling)
