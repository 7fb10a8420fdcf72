"""Finished iterators are kept until the stub has answered a call made after their end."""

from __future__ import annotations

import weakref

import pytest

from heartvoice.serving.workarounds import deferred_release
from heartvoice.serving.workarounds.deferred_release import DeferredRelease


class Stream:
    """Stands in for the stub's object."""


def kept(of: DeferredRelease, n: int) -> list[weakref.ref[Stream]]:
    streams = [Stream() for _ in range(n)]
    for stream in streams:
        of.hold(stream)
    return [weakref.ref(stream) for stream in streams]


def alive(refs: list[weakref.ref[Stream]]) -> list[bool]:
    return [ref() is not None for ref in refs]


def test_only_what_had_ended_before_the_question_is_freed() -> None:
    of = DeferredRelease()
    before = kept(of, 2)
    checkpoint = of.checkpoint()
    meanwhile = kept(of, 1)
    assert alive(before + meanwhile) == [True, True, True]
    of.release(checkpoint)
    assert alive(before + meanwhile) == [False, False, True]
    of.release(checkpoint)
    assert alive(meanwhile) == [True]
    of.release(of.checkpoint())
    assert alive(meanwhile) == [False]


def test_where_nobody_asks_they_are_freed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    of = DeferredRelease()
    refs = kept(of, 3)
    of.release(0)
    assert alive(refs) == [True, True, True]
    monkeypatch.setattr(deferred_release, "KEEP_S", -1.0)
    of.release(0)
    assert alive(refs) == [False, False, False]
