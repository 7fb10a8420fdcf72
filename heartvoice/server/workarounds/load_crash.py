"""Starts a server again that crashed while it loaded its models.

Fault (Triton 2.51): while a model loads, Triton asks its process for a sign of life every second. If none comes, as on
    a host that stops for a second, Triton frees messages that the process reads next; the process reads rubbish, dies
    with the lock of its shared memory held, and takes the server along (`boost::interprocess::lock_exception`).
Does: repeats such a start once.
Test: `test_it_is_started_once_more`, `test_a_process_that_stands_still_while_it_loads_takes_triton_along`
Delete when: a model's process that stops for 3 s while it loads does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


def start(launch: Callable[[], None], wait_ready: Callable[[bool], bool], clean: Callable[[], None]) -> None:
    """Start a server and wait until it is ready, twice if it crashes meanwhile.

    Args:
        launch: starts it.
        wait_ready: returns whether it is ready; false means that it crashed, and is allowed if the argument is true.
        clean: removes what a crashed server left.
    """
    launch()
    if not wait_ready(True):
        clean()
        log.warning("Triton crashed while it loaded the models; starting it once more")
        launch()
        wait_ready(False)
