"""Songs in a voice, and stems of songs and covers, with both clients over a real gRPC connection."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice import __version__
from heartvoice.client import AudioChunk, Event, Report, SongRequest, StemsChunk, as_recording
from heartvoice.contracts.constants import MIX_STEM_NAMES
from heartvoice.contracts.models import RENDER
from heartvoice.errors import EngineError, InvalidRequestError
from tests.fakes.server import (
    REPORT,
    FakeServer,
    audio,
    cover_report,
    event,
    final,
    infer_response,
    input_bytes,
    input_raw,
    mix_stem_samples,
    mix_stems,
    report,
    samples,
    scripted,
    stream_response,
)
from tests.support.callers import Caller

VOICE = b"a voice"
SUNG: dict[str, Any] = {"tags": "pop", "voice": VOICE, "consent": "me"}
COVERED: dict[str, Any] = {"recording": b"a song", "voice": VOICE, "consent": "me"}
JOBS = [("song", {"tags": "pop"}), ("song", SUNG), ("cover", COVERED)]
JOB_IDS = ["song", "sung", "cover"]


def names(request: Any) -> set[str]:
    """The inputs that were sent."""
    return {tensor.name for tensor in request.inputs}


# ---------------------------------------------------------------------------------------------------------- voices


def test_a_song_in_a_voice_reports_what_a_cover_does(server: FakeServer, caller: Caller) -> None:
    song = caller.song(server.url, **SUNG)
    np.testing.assert_array_equal(song.audio, samples(0, 76_800))
    assert (song.report.converted, song.report.recorded, song.report.warnings) == (True, False, ())
    assert song.report.similarity == {"encoder": "resemblyzer", "before": 0.41, "after": 0.83}
    assert (song.report.f0["change_semitones"], song.report.pitch["shift_semitones"]) == (-2.0, 0.0)
    assert song.stems is None
    assert song.report.comment == (f"AI-generated; heartvoice {__version__}; seed 7; random weights")


def test_voice_consent_modes_and_settings_are_sent(server: FakeServer, caller: Caller) -> None:
    settings: dict[str, Any] = {
        "svc_steps": 10,
        "svc_guidance": 0,
        "pitch_shift": -12,
        "prompt_s": 25,
        "vocal_gain_db": -3,
    }
    caller.song(server.url, **SUNG, no_vocals="error", auto_pitch="octave", live=True, **settings)
    (request,) = server.requests
    assert input_bytes(request, "voice") == VOICE
    assert input_bytes(request, "voice_consent") == b"me"
    assert input_bytes(request, "no_vocals") == b"error"
    assert input_bytes(request, "auto_pitch") == b"octave"
    assert input_raw(request, "live") == b"\1"
    assert input_raw(request, "svc_steps") == struct.pack("<q", 10)
    for name in ("svc_guidance", "pitch_shift", "prompt_s", "vocal_gain_db"):
        assert input_raw(request, name) == struct.pack("<f", settings[name])
    assert len(request.inputs) == 12
    caller.call("cover", server.url, **COVERED, auto_pitch="off")
    assert input_bytes(server.requests[1], "auto_pitch") == b"off"


def test_codes_are_revoiced_with_samples_as_the_voice(server: FakeServer, caller: Caller) -> None:
    voice = (np.full(30_000, 0.25, np.float32), 10_000)
    caller.song(server.url, codes=np.zeros((8, 3), int), voice=voice, consent="me")
    (request,) = server.requests
    assert names(request) == {"codes", "voice_audio", "voice_sample_rate", "voice_consent", "events"}
    assert input_raw(request, "voice_audio") == np.full(30_000, 0.25, "<f4").tobytes()


def test_a_whole_request_may_hold_a_voice(server: FakeServer, caller: Caller) -> None:
    request = SongRequest(tags="pop", voice=as_recording(VOICE), consent="me", auto_pitch="exact")
    assert caller.song(server.url, lyrics=request).report.converted is True
    assert names(server.requests[0]) == {"tags", "voice", "voice_consent", "auto_pitch", "events"}
    for more in ({"voice": VOICE}, {"consent": "me"}, {"no_vocals": "error"}, {"auto_pitch": "off"}):
        with pytest.raises(InvalidRequestError, match="expected a SongRequest alone"):
            caller.song(server.url, lyrics=request, **more)


def test_an_unconverted_song_is_ai_generated_without_that_voice(
    tmp_path: Path, server: FakeServer, caller: Caller
) -> None:
    server.song = scripted(audio(0, 4_800), cover_report(converted=False), final())
    song = caller.song(server.url, **SUNG)
    assert song.report.converted is False
    assert song.save(tmp_path / "song.wav").comment == f"AI-generated; heartvoice {__version__}; seed 7; random weights"


def test_a_song_in_a_voice_is_rendered_on_the_server(server: FakeServer, caller: Caller) -> None:
    data, made = caller.render(server.url, **SUNG, file_format="mp3", svc_steps=5)
    assert (data, made.converted, made.recorded) == (b"file:mp3", True, False)
    assert names(server.requests[0]) == {"tags", "voice", "voice_consent", "svc_steps", "format"}
    server.render = lambda request, context: infer_response(
        {"FILE": b"x", "REPORT": json.dumps(REPORT).encode()}, RENDER
    )
    with pytest.raises(EngineError, match="REPORT: converted: expected bool, got None"):
        caller.render(server.url, **SUNG)


def test_a_song_in_a_voice_must_say_whether_it_was_converted(server: FakeServer, caller: Caller) -> None:
    server.song = scripted(audio(0, 5), report(), final())
    with pytest.raises(EngineError, match="REPORT: converted: expected bool, got None"):
        caller.song(server.url, **SUNG)


ONLY_WITH_VOICE: list[dict[str, Any]] = [
    {"consent": "me"}, {"no_vocals": "error"}, {"auto_pitch": "off"}, {"svc_steps": 25}, {"svc_guidance": 0.7},
    {"pitch_shift": 0}, {"prompt_s": 12}, {"vocal_gain_db": 0}, {"live": False},
]  # fmt: skip


@pytest.mark.parametrize("arguments", ONLY_WITH_VOICE, ids=lambda given: next(iter(given)))
def test_what_is_about_a_voice_is_refused_without_one(
    server: FakeServer, caller: Caller, arguments: dict[str, Any]
) -> None:
    for call, method in ((caller.call, "song"), (caller.items, "stream"), (caller.call, "render")):
        with pytest.raises(InvalidRequestError) as caught:
            call(method, server.url, tags="pop", **arguments)
        assert str(caught.value) == f"{next(iter(arguments))}: expected only with a voice"
    assert not server.requests


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"consent": ""},
            "consent: missing, expected who consents to the use of the voice and how, 1 to 500 characters",
        ),
        ({"voice": "missing.wav"}, "voice: cannot read 'missing.wav': No such file or directory"),
        ({"voice": (np.zeros(8000), 8000)}, "voice: expected 3 to 600 s, got 1 s"),
        ({"no_vocals": "keep"}, "no_vocals: expected one of error, passthrough, convert, got 'keep'"),
        ({"auto_pitch": "on"}, "auto_pitch: expected one of off, exact, semitone, octave, got 'on'"),
        ({"svc_steps": 0}, "svc_steps: expected 1 to 100, got 0"),
        ({"prompt_s": 26}, "prompt_s: expected 3 to 25 s, got 26"),
        ({"tags": ""}, "lyrics, tags: expected text in at least one of them, got none"),
    ],
)
def test_a_bad_voice_is_refused_before_anything_is_sent(
    server: FakeServer, caller: Caller, arguments: dict[str, Any], text: str
) -> None:
    for call, method in ((caller.call, "song"), (caller.items, "stream"), (caller.call, "render")):
        with pytest.raises(InvalidRequestError) as caught:
            call(method, server.url, **(SUNG | arguments))
        assert str(caught.value).startswith(text)
    assert not server.requests


def test_a_hand_made_voice_of_one_second_is_refused_too(server: FakeServer, caller: Caller) -> None:
    short = as_recording((np.zeros(8000), 8000))
    with pytest.raises(InvalidRequestError, match="voice: expected 3 to 600 s, got 1 s"):
        caller.song(server.url, lyrics=SongRequest(tags="pop", voice=short, consent="me"))


# ----------------------------------------------------------------------------------------------------------- stems


@pytest.mark.parametrize(("method", "arguments"), JOBS, ids=JOB_IDS)
def test_stems_arrive_whole_and_add_up(
    server: FakeServer, caller: Caller, method: str, arguments: dict[str, Any]
) -> None:
    song = caller.call(method, server.url, **arguments, stems=True)
    assert input_raw(server.requests[0], "stems") == b"\1"
    assert tuple(song.stems) == MIX_STEM_NAMES
    for stem, wanted in zip(song.stems.values(), mix_stem_samples(0, 76_800), strict=True):
        np.testing.assert_array_equal(stem, wanted)
        assert stem.dtype == np.float32
    np.testing.assert_allclose(sum(song.stems.values()), song.audio, rtol=1e-6, atol=0)
    assert song.report.raw["stems"] == list(MIX_STEM_NAMES)


@pytest.mark.parametrize(("method", "arguments"), JOBS, ids=JOB_IDS)
def test_stems_that_are_not_wanted_are_none(
    server: FakeServer, caller: Caller, method: str, arguments: dict[str, Any]
) -> None:
    assert caller.call(method, server.url, **arguments, stems=False).stems is None
    assert caller.call(method, server.url, **arguments, stems=None).stems is None


def test_streams_yield_stems_between_the_audio(server: FakeServer, caller: Caller) -> None:
    messages = caller.items("stream", server.url, **SUNG, stems=True)
    assert [type(message) for message in messages] == [AudioChunk, AudioChunk, StemsChunk, StemsChunk, Report]
    assert [message.start for message in messages[:-1]] == [0, 48_000, 0, 30_000]
    assert not messages[2].stems.flags.writeable
    messages = caller.items("stream_cover", server.url, **COVERED, stems=True)
    assert [type(message) for message in messages] == [AudioChunk, StemsChunk, AudioChunk, StemsChunk, Report]


def test_a_file_holds_no_stems(server: FakeServer, caller: Caller) -> None:
    for method, arguments in (("render", SUNG), ("render_cover", COVERED)):
        with pytest.raises(InvalidRequestError, match="stems: render has no such setting"):
            caller.call(method, server.url, **arguments, stems=True)
    assert not server.requests


STEM_NAMES = {"stems": list(MIX_STEM_NAMES)}
BROKEN: list[tuple[list[Any], str]] = [
    ([audio(0, 5), mix_stems(1, 5)], "STEMS: expected the chunk that begins at 0, got START 1"),
    ([audio(0, 5), mix_stems(0, 3), mix_stems(4, 1)], "STEMS: expected the chunk that begins at 3, got START 4"),
    ([audio(0, 5), mix_stems(0, 3), mix_stems(2, 3)], "STEMS: expected the chunk that begins at 3, got START 2"),
    ([audio(0, 5), mix_stems(0, 0)], "STEMS: got an empty chunk at 0"),
    ([audio(0, 5), cover_report(**STEM_NAMES)], "STEMS: expected 5 samples in all, as of AUDIO, got 0"),
    (
        [audio(0, 5), mix_stems(0, 4), cover_report(**STEM_NAMES)],
        "STEMS: expected 5 samples in all, as of AUDIO, got 4",
    ),
    (
        [audio(0, 5), mix_stems(0, 6), cover_report(**STEM_NAMES)],
        "STEMS: expected 5 samples in all, as of AUDIO, got 6",
    ),
    ([mix_stems(0, 5), cover_report(**STEM_NAMES)], "STEMS: expected 0 samples in all, as of AUDIO, got 5"),
    ([audio(0, 5), mix_stems(0, 5)], "{model}: the stream ended after 5 samples without its report and final response"),
    ([audio(0, 5), mix_stems(0, 5), cover_report()], "REPORT: stems: expected instrumental, vocals, got None"),
    ([audio(0, 5), mix_stems(0, 5), cover_report(stems=["vocals", "instrumental"])], "REPORT: stems: expected "),
    ([audio(0, 5), mix_stems(0, 5), cover_report(**STEM_NAMES), mix_stems(5, 5)], "{model}: got StemsChunk after the"),
    ([stream_response({"STEMS": mix_stem_samples(0, 5)})], "{model}: expected AUDIO or "),
    (
        [stream_response({"STEMS": mix_stem_samples(0, 5), "AUDIO": samples(0, 5), "START": [0]})],
        "{model}: expected AUDIO or ",
    ),
    (
        [stream_response({"STEMS": np.full((2, 2, 3), np.nan, np.float32), "START": [0]})],
        "STEMS: expected finite samples, got NaN or infinite ones in the chunk at 0",
    ),
    (
        [stream_response({"STEMS": np.zeros((4, 2, 3), np.float32), "START": [0]})],
        "STEMS: expected FP32 [2, 2, sample], got FP32 [4, 2, 3]",
    ),
]


@pytest.mark.parametrize(("responses", "text"), BROKEN)
@pytest.mark.parametrize(("method", "arguments"), [("song", SUNG), ("cover", COVERED)], ids=["song", "cover"])
def test_broken_stems_are_an_engine_error(
    server: FakeServer, caller: Caller, method: str, arguments: dict[str, Any], responses: list[Any], text: str
) -> None:
    server.song = server.cover = scripted(*responses)
    with pytest.raises(EngineError) as caught:
        caller.call(method, server.url, **arguments, stems=True)
    assert str(caught.value).startswith(text.format(model=method))
    assert len(server.requests) == 1


@pytest.mark.parametrize(("method", "arguments"), JOBS, ids=JOB_IDS)
@pytest.mark.parametrize("stems", [{}, {"stems": False}], ids=["default", "false"])
def test_stems_that_nobody_asked_for_are_an_engine_error(
    server: FakeServer, caller: Caller, method: str, arguments: dict[str, Any], stems: dict[str, Any]
) -> None:
    server.song = server.cover = scripted(event("lm", 1, 2), audio(0, 5), mix_stems(0, 5), cover_report(), final())
    with pytest.raises(EngineError, match=f"{method}: got an output that was not asked for: STEMS, START"):
        caller.call(method, server.url, **arguments, **stems)


def test_events_of_all_stages_come_through(server: FakeServer, caller: Caller) -> None:
    stages = ["lm", "codec", "separate", "convert", "mix"]
    server.song = scripted(*(event(stage, 20, 20) for stage in stages), audio(0, 5), cover_report(), final())
    seen: list[Event] = []
    caller.song(server.url, **SUNG, on_event=seen.append)
    assert [shown.stage for shown in seen] == stages
