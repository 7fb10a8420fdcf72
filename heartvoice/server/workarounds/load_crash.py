"""Repeats a start once if the server crashed, gave up or stood still while it loaded its models.

Fault (Triton 2.51): on a busy host, the server can crash while a model loads
    (`boost::interprocess::lock_exception`), or end because a model's process "is not healthy".
Does: repeats such a start once.
Test: `test_it_is_started_once_more`, `test_one_that_crashes_while_it_reloads_a_model_is_restarted`
Delete when: no start fails that way on a busy host.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


def start(launch: Callable[[], None], wait_ready: Callable[[bool], bool], clean: Callable[[], None]) -> None:
    """Start a server and wait until it is ready; try once more if it does not become ready.

    Args:
        launch: starts it.
        wait_ready: returns whether it is ready; false means that it crashed or stands still, which is allowed if the
            argument is true.
        clean: ends the server and removes what it left.
    """
    launch()
    if not wait_ready(True):
        clean()
        log.warning("Triton crashed, gave up or stood still while it loaded the models; starting it once more")
        launch()
        wait_ready(False)
