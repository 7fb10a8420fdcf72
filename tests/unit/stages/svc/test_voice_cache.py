"""The voice cache: least recently used first, one maker for a voice, and never another's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from heartvoice.audio.recordings import read_voice
from heartvoice.errors import EngineError, ModelUnavailableError, RequestCancelledError
from heartvoice.keyed_random import bits
from heartvoice.stages.svc.voice_cache import FORGOTTEN_S, VoiceCache, key_group, pcm_sha256, voice_key
from tests.support.cancelling import cancelled_when
from tests.support.svc_conversion import tone

N_THREADS = 4


@dataclass(frozen=True)
class Item:
    key: str
    nbytes: int = 1


def item(key: str, nbytes: int = 1) -> Callable[[], Item]:
    return lambda: Item(key, nbytes)


def never() -> Item:
    raise AssertionError("it is there")


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(N_THREADS) as found:
        yield found


# ----------------------------------------------------------------------------------------------------------------- keys


def test_a_key_names_the_samples_the_preset_and_the_stretch() -> None:
    audio = tone(0.1)
    other = audio.copy()
    other[7] = np.nextafter(other[7], np.float32(1))
    keys = [
        voice_key(pcm_sha256(audio), "tiny", 12.0), voice_key(pcm_sha256(other), "tiny", 12.0),
        voice_key(pcm_sha256(audio), "oss-3b", 12.0), voice_key(pcm_sha256(audio), "tiny", 12.5),
    ]  # fmt: skip
    assert len(set(keys)) == 4
    assert voice_key(pcm_sha256(audio.copy()), "tiny", 12) == keys[0]


def test_a_reference_has_the_name_that_reports_give_it() -> None:
    audio = tone(4.0)
    voice = read_voice({"voice_audio": audio[None], "voice_sample_rate": np.array([44_100])})
    assert voice.sha256 == pcm_sha256(voice.audio44)


# ------------------------------------------------------------------------------------------------------------- eviction


def test_the_least_recently_used_voice_leaves_first() -> None:
    cache = VoiceCache[Item](30)
    for key in "abc":
        cache.get(key, item(key, 10))
    assert cache.get("a", never) == Item("a", 10)
    cache.get("d", item("d", 10))
    assert [cache.find(key) is not None for key in "abcd"] == [True, False, True, True]
    assert cache.report()["bytes"] == 30


def test_a_large_voice_takes_the_room_of_several() -> None:
    cache = VoiceCache[Item](30)
    for key, size in (("a", 10), ("b", 10), ("c", 25)):
        cache.get(key, item(key, size))
    assert [cache.find(key) is not None for key in "abc"] == [False, False, True]


def test_a_voice_beyond_the_limit_is_handed_out_and_evicts_none() -> None:
    cache = VoiceCache[Item](30)
    cache.get("a", item("a", 10))
    assert cache.get("huge", item("huge", 31)).nbytes == 31
    assert cache.find("huge") is None
    assert cache.report() == {"voices": 1, "bytes": 10, "hits": 0, "misses": 2}


# -------------------------------------------------------------------------------------------------------- single flight


class Slow:
    """A maker that waits until it is told to go on."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.begun, self.go = threading.Event(), threading.Event()
        self.n_calls = 0

    def __call__(self) -> Item:
        self.n_calls += 1
        self.begun.set()
        assert self.go.wait(60)
        if self.error is not None:
            raise self.error
        return Item("slow")


@contextmanager
def waiting(pool: ThreadPoolExecutor, cache: VoiceCache[Item], slow: Slow, **options: object) -> Iterator[list[Future]]:
    """A maker at work and two that wait for it."""
    leader = pool.submit(cache.get, "slow", slow)
    assert slow.begun.wait(60)
    others = [pool.submit(cache.get, "slow", slow, **options) for _ in range(2)]  # type: ignore[arg-type]
    time.sleep(0.02)  # so that they do wait
    try:
        yield [leader, *others]
    finally:
        slow.go.set()


def test_concurrent_requests_make_a_voice_once(pool: ThreadPoolExecutor) -> None:
    cache, slow = VoiceCache[Item](10), Slow()
    with waiting(pool, cache, slow) as futures:
        slow.go.set()
        found = [future.result(60) for future in futures]
    assert slow.n_calls == 1
    assert all(value is found[0] for value in found)


def test_other_voices_do_not_wait(pool: ThreadPoolExecutor) -> None:
    cache, slow = VoiceCache[Item](10), Slow()
    with waiting(pool, cache, slow):
        assert cache.get("other", item("other")) == Item("other")
        assert not slow.go.is_set()


def test_a_failure_reaches_all_that_wait_and_is_not_kept(pool: ThreadPoolExecutor) -> None:
    cache, slow = VoiceCache[Item](10), Slow(EngineError("no memory"))
    with waiting(pool, cache, slow) as futures:
        slow.go.set()
        for future in futures:
            with pytest.raises(EngineError, match="no memory"):
                future.result(60)
    assert slow.n_calls == 1
    assert cache.get("slow", item("again")) == Item("again")


def test_another_requests_cancellation_fails_nobody_else(pool: ThreadPoolExecutor) -> None:
    cache, slow = VoiceCache[Item](10), Slow(RequestCancelledError("mine"))
    leader = pool.submit(cache.get, "slow", slow)
    assert slow.begun.wait(60)
    other = pool.submit(cache.get, "slow", item("made instead"))
    time.sleep(0.02)
    slow.go.set()
    with pytest.raises(RequestCancelledError, match="mine"):
        leader.result(60)
    assert other.result(60) == Item("made instead")


def test_an_interrupt_stays_in_its_own_thread(pool: ThreadPoolExecutor) -> None:
    cache, slow = VoiceCache[Item](10), Slow(GeneratorExit())
    with waiting(pool, cache, slow) as futures:
        slow.go.set()
        with pytest.raises(GeneratorExit):
            futures[0].result(60)
        with pytest.raises(EngineError, match="GeneratorExit"):
            futures[1].result(60)


def test_one_that_waits_can_be_cancelled(pool: ThreadPoolExecutor) -> None:
    cache, slow = VoiceCache[Item](10), Slow()
    with waiting(pool, cache, slow, check=cancelled_when(lambda: True)) as futures:
        for future in futures[1:]:
            with pytest.raises(RequestCancelledError, match="by the test"):
                future.result(60)


def test_no_wait_is_endless(pool: ThreadPoolExecutor) -> None:
    cache, slow = VoiceCache[Item](10), Slow()
    with waiting(pool, cache, slow, wait_s=0.05) as futures:
        for future in futures[1:]:
            with pytest.raises(ModelUnavailableError, match="voice slow is still being listened to"):
                future.result(60)


# ------------------------------------------------------------------------------------------------------------- property


class Story:
    """Requests of several threads for few voices, some of which fail, with pauses anywhere."""

    def __init__(self, seed: int) -> None:
        draw = np.random.Generator(bits(seed, "interleaving", 0))
        self.keys = [f"{seed}-{voice}" for voice in range(3)]
        self.sizes = dict(zip(self.keys, draw.integers(1, 20, 3).tolist(), strict=True))
        self.cache = VoiceCache[Item](int(draw.integers(1, 45)))
        self.plans = [
            [
                (self.keys[voice], bool(draw.random() < 0.15), pauses.tolist())
                for voice, pauses in zip(draw.integers(0, 3, 4), draw.integers(0, 4, (4, 2)) * 5e-5, strict=True)
            ]
            for _ in range(N_THREADS)
        ]
        self.lock, self.at_work = threading.Lock(), set[str]()
        self.foreign = 0

    def make(self, key: str, fails: bool, pause_s: float) -> Item:
        with self.lock:
            assert key not in self.at_work, "one voice is made twice at once"
            self.at_work.add(key)
        time.sleep(pause_s)
        with self.lock:
            self.at_work.remove(key)
        if fails:
            raise EngineError(key)
        return Item(key, self.sizes[key])

    def live(self, plan: list[tuple[str, bool, list[float]]]) -> int:
        n_found = 0
        for key, fails, (before_s, within_s) in plan:
            time.sleep(before_s)
            try:
                found = self.cache.get(key, partial(self.make, key, fails, within_s))
            except EngineError as error:
                self.foreign += str(error) != key
                continue
            assert found == Item(key, self.sizes[key])
            n_found += 1
        return n_found


def test_two_voices_never_mix_in_500_interleavings(pool: ThreadPoolExecutor) -> None:
    n_found = n_shared = 0
    for seed in range(500):
        story = Story(seed)
        n_found += sum(pool.map(story.live, story.plans))
        report = story.cache.report()
        kept = [key for key in story.keys if story.cache.find(key)]
        assert report["voices"] == len(kept)
        assert report["bytes"] == sum(story.sizes[key] for key in kept) <= story.cache._limit
        assert not story.cache._pending
        assert not story.foreign  # failures, too, are the own voice's
        n_shared += N_THREADS * 4 - report["misses"]
    assert n_found > 5000
    assert n_shared > 1000  # found in the cache, or waited for


# ---------------------------------------------------------------------------------------------------------- forgetting


def test_a_forgotten_voice_is_gone_under_all_its_keys_and_not_kept_for_an_hour() -> None:
    seconds = 0.0
    cache = VoiceCache[Item](now=lambda: seconds)
    mine, others = ([voice_key(name, "tiny", prompt_s) for prompt_s in (6.0, 12.0)] for name in ("mine", "other"))
    for key in (*mine, *others):
        cache.get(key, item(key))
    assert cache.forget(key_group("mine")) == 2
    assert cache.forget(key_group("mine")) == 0
    assert (cache.report()["voices"], cache.report()["bytes"]) == (2, 2)
    assert [cache.find(key) for key in mine] == [None, None]
    assert all(cache.find(key) for key in others)
    assert cache.get(mine[0], item("again")) == Item("again")
    assert cache.find(mine[0]) is None
    seconds = FORGOTTEN_S + 1
    cache.get(mine[0], item("later"))
    assert cache.find(mine[0]) == Item("later")


def test_a_voice_that_is_being_made_when_it_is_forgotten_is_handed_out_and_not_kept() -> None:
    cache, key = VoiceCache[Item](), voice_key("mine", "tiny", 12.0)

    def make() -> Item:
        assert cache.forget(key_group("mine")) == 0
        return Item("made")

    assert cache.get(key, make) == Item("made")
    assert cache.find(key) is None
