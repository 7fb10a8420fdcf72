"""Back-pressure between models: one response of a stream at a time, even if a process dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid

import pytest

from heartvoice.serving.workarounds.acknowledgements import AckReceiver, AckSender


def test_a_response_is_missing_until_it_is_taken() -> None:
    job_id = uuid.uuid4().hex
    with AckSender(job_id) as receiver:
        sender = AckReceiver(job_id.encode())
        for _ in range(3):
            assert sender.complete()
            sender.sent()
            assert not sender.complete()
            receiver.take()
            sender.wait(300)
        assert sender.complete()
        sender.close()
        receiver.take()  # a sender that has ended needs none


def test_waiting_ends_with_the_acknowledgement() -> None:
    job_id = uuid.uuid4().hex
    with AckSender(job_id) as receiver:
        sender = AckReceiver(job_id.encode())
        sender.sent()
        threading.Timer(0.2, receiver.take).start()
        sender.wait(300)
        assert sender.complete()


def test_a_caller_that_has_ended_takes_no_more() -> None:
    job_id = uuid.uuid4().hex
    with AckSender(job_id) as receiver:
        sender = AckReceiver(job_id.encode())
        sender.sent()
        receiver.take()
    sender.sent()
    sender.wait(300)
    assert sender.complete()


def test_a_caller_that_was_killed_takes_no_more() -> None:
    job_id = uuid.uuid4().hex
    code = f"""
import time
from heartvoice.serving.workarounds.acknowledgements import AckSender
with AckSender({job_id!r}):
    print(flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        caller.stdout.readline()
        sender = AckReceiver(job_id.encode())
        sender.sent()
        assert not sender.complete()
        caller.kill()
        sender.wait(300)
        assert sender.complete()


@pytest.mark.parametrize("job_id", [b"", b"nobody", b"\0" * 3, b"x" * 300, b"../../tmp"])
def test_a_caller_that_gives_no_acknowledgements_is_not_waited_for(job_id: bytes) -> None:
    sender = AckReceiver(job_id)
    sender.sent()
    sender.wait(0.0)
    assert sender.complete()
    sender.close()


def test_a_crowd_at_its_door_holds_nobody_up() -> None:
    job_id = uuid.uuid4().hex
    with AckSender(job_id):
        crowd = [AckReceiver(job_id.encode()) for _ in range(30)]
        crowd[-1].sent()
        assert crowd[-1].complete(), "it got in: the test shows nothing"


def test_nothing_is_said_to_other_users(monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = uuid.uuid4().hex
    user = os.geteuid()
    with AckSender(job_id) as receiver:
        stranger, sender = AckReceiver(job_id.encode()), AckReceiver(job_id.encode())
        users = iter([user + 1, user, user])
        monkeypatch.setattr(os, "geteuid", lambda: next(users))
        for each in (stranger, sender):
            each.sent()
        receiver.take()
        assert sender.complete()
        assert stranger.complete(), "its connection is closed"
