"""Calls other models in threads, so that a caller survives the death of a callee.

Fault (Triton 2.51): a call of another model, unary or streamed, can hang after the death of the callee's process.
Does: makes the call in a separate thread and watches the callee's process. If the process dies, the thread is
    abandoned and the caller gets an error.
Test: `test_a_call_ends_when_the_callee_dies`,
    `test_a_killed_stage_fails_the_song_clearly_and_the_next_one_works`
Delete when: calls of a killed process fail by themselves.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from heartvoice.errors import ModelUnavailableError
from heartvoice.serving import process_registry

POLL_S = 0.02
"""Seconds between a waiting caller's checks of its job and of the callee."""
_END = object()


def responses(model: str, call: Callable[[], Iterator[Any]], poll: Callable[[], None]) -> Iterator[Any]:
    """Run a blocking call in a thread and yield its responses.

    Args:
        model: the callee.
        call: makes the call and yields its responses.
        poll: called every `POLL_S` without a response; an exception ends the wait.

    Raises:
        ModelUnavailableError: the callee's process is dead or dies.
    """
    pid = process_registry.serving_pid(model)
    if pid is not None and not process_registry.is_alive(pid):
        raise ModelUnavailableError(f"{model}: its process has died and is being restarted")
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            for response in call():
                answers.put(response)
            answers.put(_END)
        except BaseException as error:  # handed to the waiting caller, which raises it
            answers.put(error)

    threading.Thread(target=work, name=f"bls-{model}", daemon=True).start()
    while True:
        try:
            answer = answers.get(timeout=POLL_S)
        except queue.Empty:
            if pid is not None and not process_registry.is_alive(pid):
                raise ModelUnavailableError(f"{model}: its process died in the middle of the job") from None
            poll()
            continue
        if answer is _END:
            return
        if isinstance(answer, BaseException):
            raise answer
        yield answer
