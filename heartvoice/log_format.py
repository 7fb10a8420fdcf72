"""The format of log lines: time in UTC, level, module, message."""

from __future__ import annotations

import datetime
import logging
import time

_TIME = "%Y-%m-%dT%H:%M:%S"


def formatter(pattern: str = "%(levelname)s %(name)s: %(message)s") -> logging.Formatter:
    """Return a formatter that puts the time in UTC before the pattern, to the millisecond."""
    made = logging.Formatter(f"%(asctime)s.%(msecs)03dZ {pattern}", datefmt=_TIME)
    made.converter = time.gmtime
    return made


def timestamp(seconds: float | None = None) -> str:
    """Return a time as in a log line.

    Args:
        seconds: since 1970; None is now.
    """
    moment = datetime.datetime.now(datetime.timezone.utc)
    if seconds is not None:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return f"{moment.strftime(_TIME)}.{moment.microsecond // 1000:03d}Z"
