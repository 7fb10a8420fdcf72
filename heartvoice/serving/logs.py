"""The log of a model's process: lines for people, and one JSON line for each job."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from heartvoice.log_format import formatter

_job_log = logging.getLogger("heartvoice.serving.job_log")


def configure() -> None:
    """Send both to standard error, which is the server's log."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if not _job_log.handlers:
        plain = logging.StreamHandler()
        plain.setFormatter(logging.Formatter("%(message)s"))
        _job_log.addHandler(plain)
        _job_log.propagate = False


def write_job(facts: Mapping[str, Any]) -> None:
    """Write the line of one job."""
    _job_log.info("%s", json.dumps(facts))
