"""Live conversion: request by request, from process to process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from heartvoice.contracts.constants import MAX_RESPONSE_BYTES
from heartvoice.contracts.tensors import SVC_STATE
from heartvoice.errors import InvalidRequestError, RequestCancelledError
from heartvoice.keyed_random import bits
from heartvoice.stages.svc.exact import ExactConversion
from heartvoice.stages.svc.live import (
    CONTEXT_SAMPLES,
    GRID_SAMPLES,
    LEAST_FRAMES,
    LOOKAHEAD_FRAMES,
    LiveConverter,
    LiveState,
)
from heartvoice.stages.svc.pitch import automatic_shift
from heartvoice.stages.svc.settings import ConvertSettings
from heartvoice.stages.svc.stage import ConvertStage, Floats
from heartvoice.stages.svc.vocals import MAX_VOCALS_SAMPLES
from heartvoice.stages.svc.voice_features import VoiceFeatures
from tests.support.cancelling import networks_until
from tests.support.svc_conversion import RATE_HZ, hum, small_runs, small_stage, stage_over, still, tone

QUICK = ConvertSettings(steps=1, guidance=0.0, auto_pitch="exact", prompt_s=3.0)
SEPARATED = 257_985
"""Samples of a request: what separation finishes at a time."""


@lru_cache(maxsize=2)
def voice_of(hz: float = 440.0) -> VoiceFeatures:
    return small_stage()[0].voice(tone(3.0, hz), 3.0)


@lru_cache(maxsize=2)
def verse(seconds: float = 13.0) -> Floats:
    """A melody with rests, float32 [N]."""
    draw = np.random.Generator(bits(0, "verse", 0))
    notes: list[Floats] = []
    while sum(map(len, notes)) < seconds * RATE_HZ:
        notes += [tone(float(draw.uniform(0.2, 0.8)), float(draw.uniform(180, 400))), np.zeros(4000, np.float32)]
    return np.concatenate(notes)[: int(seconds * RATE_HZ)]


def cut(vocals: Floats, sizes: Sequence[int]) -> list[Floats]:
    """Requests of these sizes, and one of the rest."""
    return np.split(vocals, np.cumsum(sizes))


def live(
    stage: ConvertStage, parts: Sequence[Floats], settings: ConvertSettings = QUICK, *, travels: bool = False
) -> tuple[Floats, dict[str, Any]]:
    """A whole live conversion; with `travels`, each request is handled by another converter."""
    converter, pieces = LiveConverter(stage, voice_of(), settings), list[Floats]()
    for index, part in enumerate(parts):
        if travels and index:
            state = np.frombuffer(converter.state().tobytes(), np.float32)
            converter = LiveConverter.restore(stage, voice_of(), settings, state)
        pieces += converter.push(part, more=index + 1 < len(parts))
    return np.concatenate(pieces), converter.report()


def exact(stage: ConvertStage, vocals: Floats, settings: ConvertSettings = QUICK) -> tuple[Floats, dict[str, Any]]:
    conversion = ExactConversion(stage, vocals, voice_of(), settings)
    return np.concatenate(list(conversion)), conversion.report()


@pytest.mark.parametrize("n_samples", [512, 4321, 300_007])
def test_all_vocals_in_one_request_are_the_exact_conversion(n_samples: int) -> None:
    stage, _ = small_stage()
    song, report = live(stage, [verse()[:n_samples]])
    expected, of_exact = exact(stage, verse()[:n_samples])
    assert np.array_equal(song, expected)
    assert report == of_exact | {"mode": "live"} | {name: report[name] for name in ("median_hz",)}
    assert report["median_hz"] == pytest.approx(of_exact["median_hz"], abs=1e-3)


@pytest.mark.parametrize(
    "sizes",
    [
        [SEPARATED, SEPARATED],
        [200_000, 7, 1000, 250_000, 0],
        [100, 100, 573_000],
    ],
)
def test_a_state_that_travels_changes_nothing(sizes: list[int]) -> None:
    stage, _ = small_stage()
    parts = cut(verse(), sizes)
    song, report = live(stage, parts)
    assert len(song) == len(verse()) // 512 * 512
    again, report_again = live(stage, parts, travels=True)
    assert np.array_equal(song, again)
    assert report == report_again


def test_nothing_is_lost_when_the_last_request_is_empty() -> None:
    stage, _ = small_stage()
    song, _ = live(stage, [verse()[:SEPARATED], verse()[:0]])
    assert len(song) == SEPARATED // 512 * 512


def test_frames_lie_where_they_would_in_the_whole_song() -> None:
    """The pitch of every frame that is converted, against that of the same frame in an exact conversion."""
    bins: list[Any] = []

    def regulator(inputs: Mapping[str, Any]) -> dict[str, Any]:
        bins.append(inputs["f0_bins"][0])
        return small_runs()["svc_regulator"](inputs)

    stage, _ = small_stage(svc_regulator=regulator, svc_flow=still, vocoder=hum)
    settings = ConvertSettings(steps=1, guidance=0.0, auto_pitch="off", prompt_s=3.0)
    exact(stage, verse(), settings)
    (whole,) = bins
    converter = LiveConverter(stage, voice_of(), settings)
    at = 0
    for part, more in zip(cut(verse(), [SEPARATED, SEPARATED]), (True, True, False), strict=True):
        before: LiveState = converter._state
        converter.push(part, more=more)
        assert before.context_start % GRID_SAMPLES == 0
        assert before.next_frame * 512 - before.context_start >= min(CONTEXT_SAMPLES, before.next_frame * 512)
        first = before.context_start // 512
        end = converter._state.next_frame + 16
        found = bins[-1][before.next_frame - first : end - first]
        expected = whole[before.next_frame : end]
        assert len(found) == len(expected) > LEAST_FRAMES
        assert np.mean(found != expected) < 0.06  # at the ends of notes, by a value of the contour
        at = end
    assert at == len(verse()) // 512


def test_the_end_of_what_was_heard_waits() -> None:
    stage, _ = small_stage()
    converter = LiveConverter(stage, voice_of(), QUICK)
    (piece,) = [np.concatenate(converter.push(verse()[:SEPARATED], more=True))]
    assert len(piece) == (SEPARATED // 512 - LOOKAHEAD_FRAMES - 16) * 512


def test_small_requests_are_collected() -> None:
    stage, networks = small_stage(svc_flow=still, vocoder=hum)
    converter = LiveConverter(stage, voice_of(), QUICK)
    needed = (LEAST_FRAMES + LOOKAHEAD_FRAMES) * 512
    for part in np.split(verse()[: needed - 1], [5000, 9000, 30_000]):
        assert converter.push(part, more=True) == []
    assert not networks.calls
    (piece,) = converter.push(verse()[needed - 1 : needed], more=True)
    assert len(piece) == (LEAST_FRAMES - 16) * 512


def test_a_short_last_window_waits_for_the_next_request() -> None:
    stage, _ = small_stage()
    room = 400 - voice_of().n_frames
    n_frames = room + 20 + LOOKAHEAD_FRAMES  # a window, and 36 frames with its overlap
    converter = LiveConverter(stage, voice_of(), QUICK)
    pieces = converter.push(verse()[: n_frames * 512], more=True)
    assert [len(piece) for piece in pieces] == [(room - 16) * 512]
    rest = converter.push(verse()[:0], more=False)
    assert sum(map(len, rest)) == (n_frames - room + 16) * 512


def test_a_shift_settles_after_10_s_of_voice_and_the_report_says_how_far_off_it_was() -> None:
    stage, _ = small_stage(svc_flow=still, vocoder=hum)
    low, high = tone(11.0, 200.0), tone(20.0, 400.0)
    _, report = live(stage, [low, high[: 10 * RATE_HZ], high[10 * RATE_HZ :]])
    first = exact(stage, low)[1]["shift_semitones"]
    assert report["shift_semitones"] == pytest.approx(first, abs=0.01)
    assert report["shift_off_semitones"] == pytest.approx(12, abs=1.5)
    assert (report["voiced_share"], report["mode"]) == (pytest.approx(1, abs=0.01), "live")


def test_before_it_settles_a_shift_is_that_of_the_vocals_so_far() -> None:
    stage, _ = small_stage(svc_flow=still, vocoder=hum)
    converter = LiveConverter(stage, voice_of(), QUICK)
    converter.push(np.zeros(3 * RATE_HZ, np.float32), more=True)
    assert converter.report()["shift_semitones"] == 0
    converter.push(tone(3.0, 220.0), more=True)
    first = converter.report()["shift_semitones"]
    assert 11 < first < 13
    converter.push(tone(6.0, 440.0), more=True)
    state = converter._state
    assert not state.settled
    assert converter.report()["shift_semitones"] == pytest.approx(
        automatic_shift(state.voiced, voice_of().f0), abs=1e-3
    )
    assert converter.report()["shift_semitones"] < first - 6


def test_a_state_stays_small_however_long_the_song() -> None:
    stage, _ = small_stage(svc_flow=still, vocoder=hum)
    converter, largest = LiveConverter(stage, voice_of(), QUICK), 0
    for part in np.array_split(tone(30.0), 5):
        converter.push(part, more=True)
        largest = max(largest, converter.state().nbytes)
    assert largest < MAX_RESPONSE_BYTES - SEPARATED * 4 + 100_000  # beside the request's own vocals
    song = 4 * 60_000  # pitches of 600 s
    assert largest + song < 4_000_000
    assert largest // 4 < SVC_STATE.max


def test_a_push_that_is_cancelled_changes_nothing() -> None:
    stage, networks = small_stage()
    parts = cut(verse()[:350_000], [SEPARATED])
    expected, _ = live(stage, parts)
    limit = [10**9]
    cancelled = stage_over(networks_until(networks, lambda: len(networks.calls) >= limit[0]))
    converter = LiveConverter(cancelled, voice_of(), QUICK)
    pieces = converter.push(parts[0], more=True)
    before = converter.state()
    for extra in (0, 2, 4):
        limit[0] = len(networks.calls) + extra
        with pytest.raises(RequestCancelledError):
            converter.push(parts[1], more=False)
        assert np.array_equal(converter.state(), before)
    limit[0] = 10**9
    assert np.array_equal(np.concatenate(pieces + converter.push(parts[1], more=False)), expected)


def test_soft_sounds_before_the_singing_are_forgotten_when_it_comes() -> None:
    converter = LiveConverter(small_stage()[0], voice_of(), QUICK)
    converter.push(np.concatenate([tone(6.0, 800.0, 0.005), tone(1.0, 220.0)]), more=True)
    converter.push(tone(2.0, 220.0), more=False)
    assert converter.report()["median_hz"] == pytest.approx(220, abs=20)


# ------------------------------------------------------------------------------------------------------------- refusals


@lru_cache(maxsize=1)
def a_state() -> Floats:
    converter = LiveConverter(small_stage()[0], voice_of(), QUICK)
    converter.push(verse()[:SEPARATED], more=True)
    return converter.state()


def restored(state: Any, voice: VoiceFeatures | None = None, settings: ConvertSettings = QUICK) -> LiveConverter:
    return LiveConverter.restore(small_stage()[0], voice or voice_of(), settings, state)


def test_a_state_belongs_to_its_voice_and_settings() -> None:
    restored(a_state())
    other = ConvertSettings(steps=2, guidance=0.0, auto_pitch="exact", prompt_s=3.0)
    for voice, settings in ((voice_of(300.0), QUICK), (voice_of(), other)):
        with pytest.raises(InvalidRequestError, match="state: it belongs to a conversion with another voice"):
            restored(a_state(), voice, settings)


def changed(at: int, value: float) -> Floats:
    state = a_state().copy()
    state[at] = value
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: a_state()[:-1], "state: it is damaged: its checksum"),
        (lambda: np.append(a_state(), np.float32(0)), "state: it is damaged: its checksum"),
        (lambda: a_state()[:9], r"state: expected float32 \[at least 19\], got float32 \[9\]"),
        (lambda: a_state()[None], r"state: expected float32 \[at least 19\], got float32 \[1, \d+\]"),
        (lambda: a_state().astype(np.float64), "got float64"),
        (lambda: changed(0, 1), "state: expected version 2, got 1"),
        (lambda: changed(1, np.nan), "state: it is damaged: its checksum"),
        (lambda: changed(9, 100), "state: it is damaged: its checksum"),
        (lambda: changed(-5, np.nan), "state: it is damaged: its checksum"),
    ],
)
def test_damaged_states_are_refused(state: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        restored(state())


def forged(at: int, value: float) -> Floats:
    """A real state with one number changed and a checksum that fits: anyone can make one."""
    state = a_state().copy()
    state[N_BEFORE + at if at >= 0 else at] = value
    state[1], state[2] = divmod(crc32(state[N_BEFORE:].tobytes()), 2**16)
    return state


N_BEFORE = 3
"""Version and checksum."""
_HIGH, _LOW, _NEXT, _WINDOWS, _VALUES, _SETTLED, _SHIFT, _LEVEL, _N_VOICED, _N_LEVELS, _N_TAIL, _N_AUDIO, _PITCH = (
    range(4, 17)
)
"""Behind the owner; the last one is the first pitch."""


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (_HIGH, 1e30, "state: expected"),
        (_HIGH, -1, "state: expected counts"),
        (_LOW, 0.5, "state: expected counts"),
        (_LOW, np.nan, "state: expected finite"),
        (_NEXT, 1e9, "state: expected its next frame among those that came"),
        (_NEXT, 3e38, "state: expected"),
        (_NEXT, 0, "state: expected a next frame behind its windows"),
        (_WINDOWS, 0, "state: expected the end of the last window"),
        (_VALUES, 1e9, "state: expected as many pitches as its samples have"),
        (_VALUES, 0, "state: expected as many pitches as its samples have"),
        (_SHIFT, 1e6, "state: expected a shift of at most 120 semitones"),
        (_SHIFT, np.inf, "state: expected finite"),
        (_LEVEL, 1e6, "state: expected levels in dBFS"),
        (_N_VOICED, 1e9, r"state: expected \d+ samples and pitches"),
        (_N_VOICED, -1, "state: expected counts"),
        (_N_TAIL, 0, r"state: expected \d+ samples and pitches"),
        (_N_AUDIO, 3e38, r"state: expected \d+ samples and pitches"),
        (_PITCH, -100.0, "state: expected pitches in Hz"),
        (_PITCH, 1e30, "state: expected pitches in Hz"),
        (-1, 1e30, "state: expected samples of about -1 to 1"),
    ],
)
def test_states_that_no_conversion_left_behind_are_refused(at: int, value: float, message: str) -> None:
    restored(forged(_PITCH, 220.0))  # a plausible pitch
    with pytest.raises(InvalidRequestError, match=message):
        restored(forged(at, value))


def test_vocals_without_a_frame_are_refused() -> None:
    converter = LiveConverter(small_stage()[0], voice_of(), QUICK)
    assert converter.push(np.zeros(500, np.float32), more=True) == []
    with pytest.raises(InvalidRequestError, match="vocals: expected at least 512 samples in all, got 511"):
        converter.push(np.zeros(11, np.float32), more=False)


def test_vocals_beyond_the_longest_recording_are_refused() -> None:
    converter = LiveConverter(small_stage()[0], voice_of(), QUICK)
    converter._state = LiveState(n_received=MAX_VOCALS_SAMPLES - 10)
    with pytest.raises(InvalidRequestError, match=r"vocals: expected 0 to 10 samples at 44\.1 kHz, got 11"):
        converter.push(np.zeros(11, np.float32), more=True)


def test_nothing_follows_the_last_vocals() -> None:
    converter = LiveConverter(small_stage()[0], voice_of(), QUICK)
    converter.push(verse()[:10_000], more=False)
    with pytest.raises(ValueError, match="after the last"):
        converter.push(verse()[:10_000], more=False)
