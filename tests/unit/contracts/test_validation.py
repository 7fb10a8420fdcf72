"""Client, gateway and server accept the same requests, and refuse the others by the same words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from heartvoice.arrays import Array
from heartvoice.client import wire
from heartvoice.client.recordings import Recording
from heartvoice.client.requests import CoverRequest, SongRequest
from heartvoice.config.presets import PRESETS
from heartvoice.contracts.constants import AUTO_PITCH_MODES, NO_VOCALS_MODES
from heartvoice.contracts.field_checks import check_inputs
from heartvoice.contracts.models import COVER, DEMUCS, MODELS, RENDER, SONG, SPEAKER_ENCODER
from heartvoice.contracts.settings import COVER_SETTINGS, RENDER_SETTINGS, SONG_SETTINGS
from heartvoice.contracts.types import NUMPY_DTYPE, ModelSpec, Setting
from heartvoice.contracts.validation import check_cover, check_request, check_separation, check_song, check_speech
from heartvoice.errors import InvalidRequestError
from heartvoice.gateway import request_parser
from heartvoice.gateway.checks import check_request as check_at_gateway
from heartvoice.pipeline.cover_request import CoverRequest as ServerCover
from heartvoice.pipeline.song_request import SongRequest as ServerSong
from heartvoice.stages.lm.request import LmRequest

TINY = PRESETS["tiny"]
RATE_HZ = 8000
CONTROL = "expected text without control characters"


def text(value: str | bytes) -> Array:
    return np.array([value if isinstance(value, bytes) else value.encode()], object)


def verdict(check: Callable[[], object]) -> str:
    """Why the request is refused, "" if it is accepted."""
    try:
        check()
    except InvalidRequestError as error:
        return str(error)
    return ""


def at_server(model: ModelSpec, inputs: Mapping[str, Array]) -> str:
    """The server's verdict, as far as no file is decoded."""
    return verdict(lambda: check_request(model, inputs))


def at_gateway(model: ModelSpec, inputs: Mapping[str, Array]) -> str:
    """The gateway's verdict on the same tensors as bytes."""
    message = wire._encode(model, dict(inputs), "")
    return verdict(lambda: check_at_gateway(request_parser.split(message.SerializeToString()), MODELS))


def as_client_says(refusal: str) -> str:
    """The client calls its argument `consent`, which travels as `voice_consent`."""
    return refusal.replace("voice_consent: ", "consent: ", 1)


# ------------------------------------------------------------------------------------------ disagreements of old


@pytest.mark.parametrize(
    ("consent", "refusal"),
    [
        ("me\u2028ok", "without control characters, line breaks or overrides of direction, got U+2028 at 2"),
        (" " * 10 + "x" * 495, ""),
        ("x" * 501, "expected at most 500 characters, got 501"),
    ],
)
def test_consent_is_judged_alike(consent: str, refusal: str) -> None:
    file = Recording(file=b"sound")
    inputs = {"file": text("sound"), "voice": text("sound"), "voice_consent": text(consent)}
    told = verdict(lambda: wire.encode_job(CoverRequest(file, file, consent)))
    assert told.endswith(refusal)
    assert bool(told) == bool(refusal)
    assert told == as_client_says(at_server(COVER, inputs))
    assert at_gateway(COVER, inputs) == at_server(COVER, inputs)


@pytest.mark.parametrize("character", ["\0", "\a", "\x1b", "\x7f", "\x9b"])
@pytest.mark.parametrize("field", ["lyrics", "tags"])
def test_control_characters_are_refused_before_anything_is_sent(field: str, character: str) -> None:
    words = f"la{character}la"
    expected = f"{field}: {CONTROL}, got U+{ord(character):04X} at 2"
    assert verdict(lambda: wire.encode_job(SongRequest(**{field: words}))) == expected  # type: ignore[arg-type]
    assert verdict(lambda: LmRequest.from_inputs({field: text(words)}, TINY)) == expected
    assert at_gateway(SONG, {field: text(words)}) == expected


def test_a_style_of_giants_is_refused_before_anything_is_sent() -> None:
    style = np.full(TINY.lm.muq_dim, 1e6, np.float32)
    expected = "style: expected values within +-1000, got 1e+06"
    assert verdict(lambda: wire.encode_job(SongRequest("la", style=style))) == expected
    assert verdict(lambda: LmRequest.from_inputs({"lyrics": text("la"), "style": style}, TINY)) == expected


# ------------------------------------------------------------------------------------------------ random requests

CHARACTERS = st.characters(codec="utf-8")
WORDS = st.text(CHARACTERS, max_size=8) | st.sampled_from(["la", "", " ", "\0", "a\u2028b", "\u202e", "\n\t"])
CONSENT = WORDS | st.sampled_from(["me", " " * 10 + "x" * 495, "x" * 501, "é" * 500, "x" * 20_001])
MODES = st.sampled_from([*NO_VOCALS_MODES, *AUTO_PITCH_MODES, "", "keep", "\0"])
CODES = st.builds(
    lambda n, low: np.full((8, n), low, np.int32), st.sampled_from([1, 3, 3001, 3002]), st.sampled_from([-1, 0, 7])
)
STYLE = st.builds(
    lambda n, value: np.full(n, value, np.float32),
    st.sampled_from([1, 32, 512, 513]),
    st.sampled_from([0.0, 999.0, 1001.0, float("nan"), float("inf")]),
)


def numbers(setting: Setting) -> st.SearchStrategy[Any]:
    """Values within a setting's range, and some beyond it; FP32 values as float32 holds them."""
    if setting.dtype == "BOOL":
        return st.booleans()
    low, high = setting.minimum, setting.maximum
    assert low is not None
    assert high is not None
    if setting.dtype == "INT64":
        beyond = [value for value in (low - 1, high + 1) if -(2**63) <= value < 2**63]
        return st.integers(int(low), int(high)) | st.sampled_from([setting.default, low, high, *beyond])
    edges = [float(np.float32(value)) for value in (low, high, setting.default, low - 1, high + 1)]
    return st.floats(low, high, width=32) | st.sampled_from([*edges, float("nan"), float("inf")])


def settings_of(known: tuple[Setting, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={setting.name: numbers(setting) for setting in known})


RECORDINGS = st.builds(lambda data: Recording(file=data), st.sampled_from([b"", b"sound"])) | st.builds(
    lambda seconds, channels, rate_hz: Recording(
        audio=np.zeros((channels, max(1, round(seconds * RATE_HZ))), np.float32), sample_rate_hz=rate_hz
    ),
    st.sampled_from([0.4, 0.9, 2.9, 3.0, 61.0]),
    st.integers(1, 2),
    st.sampled_from([RATE_HZ, 0, 7999, 16_000]),
)
CONVERSION = {"consent": CONSENT, "no_vocals": MODES | st.none(), "auto_pitch": MODES | st.none()}


def songs(known: tuple[Setting, ...]) -> st.SearchStrategy[SongRequest]:
    return st.builds(
        SongRequest, lyrics=WORDS, tags=WORDS, settings=settings_of(known), style=STYLE | st.none(),
        codes=CODES | st.none(), voice=RECORDINGS | st.none(), **CONVERSION,
    )  # fmt: skip


def covers(known: tuple[Setting, ...]) -> st.SearchStrategy[CoverRequest]:
    return st.builds(CoverRequest, RECORDINGS, RECORDINGS, settings=settings_of(known), **CONVERSION)


def tensors(request: SongRequest | CoverRequest, model: ModelSpec) -> dict[str, Array]:
    """The request as any other program would send it, unchecked."""
    inputs: dict[str, Array] = {}
    if isinstance(request, SongRequest):
        inputs = {name: text(getattr(request, name)) for name in ("lyrics", "tags") if getattr(request, name)}
        inputs |= {name: value for name in ("style", "codes") if (value := getattr(request, name)) is not None}
    else:
        inputs = request.recording.inputs()
    if isinstance(request.voice, Recording):
        inputs |= request.voice.inputs(("voice", "voice_audio", "voice_sample_rate"))
    if request.voice is not None or request.consent:
        inputs["voice_consent"] = text(request.consent)
    for name in ("no_vocals", "auto_pitch"):
        if getattr(request, name) is not None:
            inputs[name] = text(getattr(request, name))
    for name, value in request.settings.items():
        inputs[name] = np.array([value], NUMPY_DTYPE[model.setting(name).dtype])
    return inputs


def from_inputs(read: Callable[[dict[str, Array]], object], model: ModelSpec, inputs: dict[str, Array]) -> str:
    """The verdict of the server's reader, which also decodes: of that, only what is decided before."""

    def run() -> None:
        check_inputs(model, inputs)
        read(inputs)

    return verdict(run)


def compare(told: str, model: ModelSpec, inputs: dict[str, Array]) -> None:
    """Settings are checked first on the client's side, so a request with two faults may be refused for the other."""
    server, gateway = at_server(model, inputs), at_gateway(model, inputs)
    assert gateway == server
    assert bool(told) == bool(server), (told, server)
    name = told.partition(":")[0]
    if name not in {setting.name for setting in model.settings}:
        # Voices are measured as soon as they are handed over, under the argument's name.
        measured = name == "voice" and not server.startswith("voice:")
        assert measured or told == as_client_says(server)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(songs(SONG_SETTINGS))
@example(SongRequest("la\0la"))
@example(SongRequest("", " "))
@example(SongRequest("la", settings={"min_duration_s": 31.0}))
def test_songs_are_judged_alike(request: SongRequest) -> None:
    compare(verdict(lambda: wire.encode_job(request)), SONG, tensors(request, SONG))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(covers(COVER_SETTINGS))
def test_covers_are_judged_alike(request: CoverRequest) -> None:
    compare(verdict(lambda: wire.encode_job(request)), COVER, tensors(request, COVER))


RENDERED_COVER = tuple(setting for setting in COVER_SETTINGS if setting in RENDER_SETTINGS)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(songs(RENDER_SETTINGS) | covers(RENDERED_COVER), st.sampled_from(["wav", "ogg", "", "aac", "\0"]))
def test_renders_are_judged_alike(request: SongRequest | CoverRequest, file_format: str) -> None:
    inputs = tensors(request, RENDER) | {"format": text(file_format)}
    compare(verdict(lambda: wire.encode_render(request, file_format)), RENDER, inputs)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RECORDINGS)
def test_recordings_are_judged_alike(recording: Recording) -> None:
    compare(verdict(lambda: wire.encode_stems(recording, None)), DEMUCS, recording.inputs())
    compare(verdict(lambda: wire.encode_embed(recording)), SPEAKER_ENCODER, recording.inputs())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(songs(SONG_SETTINGS), covers(COVER_SETTINGS))
def test_the_servers_readers_refuse_what_the_checker_refuses(song: SongRequest, cover: CoverRequest) -> None:
    jobs: list[tuple[Callable[[dict[str, Array]], object], ModelSpec, dict[str, Array]]] = [
        (lambda inputs: ServerSong.from_inputs(inputs, TINY), SONG, tensors(song, SONG)),
        (ServerCover.from_inputs, COVER, tensors(cover, COVER)),
    ]
    for read, model, inputs in jobs:
        refusal = at_server(model, inputs)
        if refusal:
            assert from_inputs(read, model, inputs) == refusal


def test_each_job_has_its_rules() -> None:
    for check in (check_song, check_cover, check_separation, check_speech):
        assert verdict(lambda check=check: check({}))  # type: ignore[misc]
