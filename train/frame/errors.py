"""Errors of a training that its user can act on."""

from __future__ import annotations


class TrainingError(Exception):
    """A training cannot start or go on; the message says what is wrong and what to do."""
