"""The stage that marks mixes: whatever the chunks, the same samples; and references that carry the mark."""

from __future__ import annotations

from collections.abc import Generator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from heartvoice.audio.recordings import Recording
from heartvoice.config.presets import PRESETS
from heartvoice.contracts.constants import MAX_RESPONSE_SAMPLES, SAMPLE_RATE_HZ
from heartvoice.contracts.messages import AudioChunk, Event, Message, StemsChunk
from heartvoice.errors import InvalidRequestError
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.song_request import SongRequest
from heartvoice.pipeline.watermarking import Watermark, check_reference, mark_mix
from heartvoice.watermark import ALGORITHM, Evidence, Marker, pattern_keys
from heartvoice.watermark.keys import COVER, SONG
from tests.fakes.networks import text
from tests.support import music

WATERMARK = Watermark(b"k" * 32, "weights")


@lru_cache(maxsize=1)
def _band() -> np.ndarray:
    return np.asarray(0.3 * music.song(12.0)[0], np.float32)


def _messages(audio: np.ndarray, length: int, *, stems: bool = False) -> Generator[Message, None, None]:
    for at in range(0, audio.shape[1], length):
        yield AudioChunk(audio[:, at : at + length], at)
        if stems:
            yield StemsChunk(np.stack([audio[:, at : at + length]] * 2), at)
        yield Event("mix", at, audio.shape[1], 0.0)


def _run(messages: Generator[Message, None, None], context: JobContext, **options: Any) -> list[Message]:
    return list(mark_mix(messages, WATERMARK.mark(SONG, {}, limited=True), context, **options))


def _joined(messages: list[Message]) -> np.ndarray:
    chunks = [message for message in messages if isinstance(message, AudioChunk)]
    assert [chunk.start for chunk in chunks] == [0, *np.cumsum([chunk.length for chunk in chunks])[:-1]]
    return np.concatenate([chunk.audio for chunk in chunks], axis=1)


@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize("length", [30_001, 200_000])
def test_the_marked_mix_does_not_depend_on_its_chunks(length: int, limited: bool) -> None:
    audio, context = _band()[:, :200_000], JobContext({}, watermark=WATERMARK)
    mark = WATERMARK.mark(SONG, {}, limited=limited)
    marker = Marker(WATERMARK.key, mark.payload, limited=limited)
    whole = np.concatenate([marker.push(audio), marker.finish()], axis=1)
    assert np.array_equal(_joined(list(mark_mix(_messages(audio, length), mark, context))), whole)
    assert context.report["watermark"] == {"on": True, "alg": ALGORITHM, "payload": f"{mark.payload:08x}"}


def test_stems_and_events_pass_in_their_order_and_the_report_says_what_stems_add_up_to() -> None:
    audio, context = _band()[:, :100_000], JobContext({}, watermark=WATERMARK)
    others = [each for each in _run(_messages(audio, 30_000, stems=True), context) if not isinstance(each, AudioChunk)]
    assert [type(each) for each in others] == [StemsChunk, Event] * 4
    stems = np.concatenate([each.stems for each in others if isinstance(each, StemsChunk)], axis=2)
    assert np.array_equal(stems[0], audio)
    assert context.report["watermark"]["stems_add_up_to"] == "the audio before its watermark"


def test_what_gathered_is_sent_in_chunks_that_a_response_may_carry() -> None:
    audio = np.tile(_band(), 2)[:, : MAX_RESPONSE_SAMPLES + 60_000]
    chunks = _run(_messages(audio, audio.shape[1]), JobContext({}))
    assert max(each.length for each in chunks if isinstance(each, AudioChunk)) == MAX_RESPONSE_SAMPLES
    assert _joined(chunks).shape == audio.shape


def test_nothing_is_marked_without_a_key_nor_a_recording_that_passes() -> None:
    audio = _band()[:, :50_000]
    without, passed = JobContext({}), JobContext({}, watermark=WATERMARK)
    assert np.array_equal(_joined(list(mark_mix(_messages(audio, 20_000), None, without))), audio)
    assert np.array_equal(_joined(_run(_messages(audio, 20_000), passed, generated=lambda: False)), audio)
    assert without.report["watermark"] == passed.report["watermark"] == {"on": False}


def _payload(watermark: Watermark = WATERMARK, kind: str = SONG, **inputs: np.ndarray) -> int:
    request = SongRequest.from_inputs({"lyrics": text("la"), **inputs}, PRESETS["tiny"])
    return watermark.mark(kind, request.to_inputs(), limited=False).payload


def test_a_payload_belongs_to_the_request_and_not_to_what_is_sent_beside_the_song() -> None:
    first = _payload()
    for name in ("stems", "return_codes", "events"):
        beside: dict[str, Any] = {name: np.array([True])}
        assert _payload(**beside) == first
    assert _payload(seed=np.array([0]), top_k=np.array([50])) == first  # the defaults
    others = [
        _payload(seed=np.array([1])), _payload(lyrics=text("lo")), _payload(tags=text("pop")), _payload(kind=COVER),
        _payload(temperature=np.array([0.5])), _payload(Watermark(b"l" * 32, "weights")),
        _payload(Watermark(WATERMARK.key, "others")),
    ]  # fmt: skip
    assert len({first, *others}) == 1 + len(others)


def test_a_payload_is_the_callers_own_and_the_same_when_they_ask_again() -> None:
    alice: dict[str, Any] = {"caller": text("alice")}
    bob: dict[str, Any] = {"caller": text("bob")}
    asked = [_payload(WATERMARK.of_caller(inputs), **inputs) for inputs in (alice, alice, bob)]
    assert asked[0] == asked[1]
    assert len({*asked, _payload()}) == 3
    assert _payload(WATERMARK.of_caller({})) == _payload()


@lru_cache(maxsize=1)
def _marked_song() -> np.ndarray:
    marker = Marker(WATERMARK.key, 0xC0FFEE)
    song = np.tile(_band(), 2)
    return np.concatenate([marker.push(song), marker.finish()], axis=1)


def test_a_reference_with_the_servers_mark_is_refused_or_reported() -> None:
    reference = Recording(_marked_song(), SAMPLE_RATE_HZ)
    with pytest.raises(InvalidRequestError, match=r"voice: expected a recording of a person.*reference_check can be"):
        check_reference(WATERMARK, reference, "warn")
    assert check_reference(WATERMARK, reference, "off")["watermark"]["payload"] == "00c0ffee"
    assert check_reference(None, reference, "warn") == {}
    assert check_reference(Watermark(b"l" * 32, "weights"), reference, "warn") == {}
    assert check_reference(WATERMARK, Recording(_band(), SAMPLE_RATE_HZ), "strict") == {}


def test_a_cover_of_a_marked_song_carries_both_marks() -> None:
    marker = Marker(pattern_keys(WATERMARK.key)[COVER], 0xBEEF)
    cover = np.concatenate([marker.push(_marked_song()), marker.finish()], axis=1)
    found = Evidence(cover, SAMPLE_RATE_HZ).detect_each(WATERMARK.key, speeds=False)
    assert {(each.kind, each.payload) for each in found} == {(SONG, 0xC0FFEE), (COVER, 0xBEEF)}
