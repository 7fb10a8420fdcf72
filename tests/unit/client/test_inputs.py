"""A request's fields against the contract."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from heartvoice.arrays import Array
from heartvoice.client.arguments import SettingValue
from heartvoice.client.inputs import as_sources, job_inputs
from heartvoice.client.recordings import Recording
from heartvoice.client.requests import CoverRequest, SongRequest
from heartvoice.contracts.constants import MAX_TEXT_BYTES
from heartvoice.contracts.settings import SONG_SETTINGS, VOICE_SETTINGS
from heartvoice.contracts.types import Setting
from heartvoice.errors import InvalidRequestError

SOUND = Recording(file=b"sound")
RANGES = [setting for setting in SONG_SETTINGS if setting.minimum is not None]


def check(
    *, lyrics: object = "la", tags: object = "", style: object = None, codes: object = None, **settings: object
) -> dict[str, Array]:
    """The tensors of a song from any arguments, with a voice where the settings are about one."""
    voice = (SOUND, "me") if any(setting.name in settings for setting in VOICE_SETTINGS) else (None, "")
    return job_inputs(SongRequest(lyrics, tags, settings, style, codes, *voice))  # type: ignore[arg-type]


def refusal(**fields: object) -> str:
    """The message that `check` refuses with."""
    with pytest.raises(InvalidRequestError) as caught:
        check(**fields)
    return str(caught.value)


def beyond(setting: Setting, edge: float | int, direction: float) -> float | int:
    """The nearest value outside the range that still has the setting's steps."""
    if setting.dtype == "FP32":
        return float(np.nextafter(edge, math.copysign(math.inf, direction)))
    return int(edge) + int(math.copysign(setting.multiple or 1, direction))


@pytest.mark.parametrize("setting", RANGES, ids=lambda s: s.name)
def test_both_edges_of_a_range_are_accepted_and_the_next_values_refused(setting: Setting) -> None:
    assert setting.minimum is not None
    assert setting.maximum is not None
    others: dict[str, SettingValue] = {"duration_s": 240.0} if setting.name == "min_duration_s" else {}
    for edge, direction in ((setting.minimum, -1), (setting.maximum, 1)):
        value = check(**others, **{setting.name: edge})[setting.name]
        assert value.shape == (1,)
        assert value[0] == np.asarray(edge, value.dtype)
        outside = beyond(setting, edge, direction)
        message = refusal(**others, **{setting.name: outside})
        assert message == f"{setting.name}: expected {setting.describe()}, got {outside!r}"


@pytest.mark.parametrize("setting", SONG_SETTINGS, ids=lambda s: s.name)
def test_values_of_other_types_are_refused_by_name(setting: Setting) -> None:
    bad: list[object] = ["1", b"1", [1], np.array([1]), {}, 1j]
    if setting.dtype != "BOOL":
        bad += [True, np.bool_(False)]
    if setting.dtype != "FP32":
        bad += [1.5, 1.0, np.float32(1)]
    for value in bad:
        assert refusal(**{setting.name: value}).startswith(f"{setting.name}: expected ")


@pytest.mark.parametrize("setting", [s for s in RANGES if s.dtype == "FP32"], ids=lambda s: s.name)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_nan_and_infinity_are_refused(setting: Setting, value: float) -> None:
    assert refusal(**{setting.name: value}).startswith(f"{setting.name}: expected {setting.describe()}, got ")


def test_steps_are_kept() -> None:
    assert check(codec_window=186)["codec_window"][0] == 186
    assert "in steps of 93" in refusal(codec_window=187)


def test_none_is_the_servers_default() -> None:
    assert set(check(seed=None, duration_s=None)) == {"lyrics"}


def test_unknown_settings_are_refused_with_a_hint() -> None:
    assert refusal(duration=3) == "duration: song has no such setting; did you mean duration_s?"
    assert refusal(qqq=3).startswith("qqq: song has no such setting; known: duration_s, min_duration_s, seed")


def test_min_duration_beyond_duration_is_refused() -> None:
    assert refusal(min_duration_s=31) == "min_duration_s: expected at most duration_s = 30, got 31"
    assert refusal(min_duration_s=6, duration_s=5).endswith("duration_s = 5, got 6")
    check(min_duration_s=5, duration_s=5)


def test_texts_must_be_text_of_bounded_length() -> None:
    check(lyrics="x" * MAX_TEXT_BYTES)
    assert refusal(lyrics="é" * (MAX_TEXT_BYTES // 2) + "x") == "lyrics: expected at most 20000 UTF-8 bytes, got 20001"
    assert refusal(tags=b"pop") == "tags: expected text, got bytes"
    assert refusal(lyrics="a\ud800") == "lyrics: expected UTF-8, got byte 0xed at 1"


def test_one_of_lyrics_tags_and_codes_is_enough() -> None:
    assert set(check(lyrics="", tags="pop")) == {"tags"}
    assert set(check(lyrics="", codes=np.zeros((8, 1), int))) == {"codes"}
    assert refusal(lyrics=" ", tags="\n") == "lyrics, tags: expected text in at least one of them, got none"


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (np.ones((1, 4)), "style: expected FP32 [style of 1 to 512], got FP32 [1, 4]"),
        (np.ones(513), "style: expected FP32 [style of 1 to 512], got FP32 [513]"),
        (np.ones(0), "style: expected FP32 [style of 1 to 512], got FP32 [0]"),
        (np.array([1, np.nan]), "style: expected finite values"),
        (np.array([1e300]), "style: expected finite values"),
        (np.array([1, 2000.0]), "style: expected values within +-1000, got 2000"),
        (np.array(["a"]), "style: expected FP32 [style], got <U1"),
    ],
)
def test_style_vectors_are_checked(style: Array, text: str) -> None:
    assert refusal(style=style).startswith(text)


@pytest.mark.parametrize(
    ("codes", "text"),
    [
        (np.zeros((7, 3), int), "codes: expected INT32 [8, frame of 1 to 3001], got INT32 [7, 3]"),
        (np.zeros((8, 0), int), "codes: expected INT32 [8, frame of 1 to 3001], got INT32 [8, 0]"),
        (np.zeros((8, 3002), int), "codes: expected INT32 [8, frame of 1 to 3001], got INT32 [8, 3002]"),
        (np.zeros((8, 3)), "codes: expected INT32 [8, frame], got float64"),
        (np.full((8, 3), -1), "codes: expected values in [0, codebook size), got -1 to -1"),
        (np.full((8, 3), 2**40), "codes: expected values in [0, 2147483648), got"),
    ],
)
def test_codes_are_checked(codes: Array, text: str) -> None:
    assert refusal(codes=codes).startswith(text)


# ------------------------------------------------------------------------------------------------------- covers


def cover_refusal(**fields: Any) -> str:
    """The message that a cover is refused with."""
    arguments: dict[str, Any] = {"recording": SOUND, "voice": SOUND, "consent": "me"} | fields
    with pytest.raises(InvalidRequestError) as caught:
        job_inputs(CoverRequest(**arguments))
    return str(caught.value)


@pytest.mark.parametrize(
    ("consent", "text"),
    [
        ("", "missing, expected who consents to the use of the voice and how, 1 to 500 characters"),
        (" \n\t ", "missing, expected who consents to the use of the voice and how, 1 to 500 characters"),
        ("x" * 501, "expected at most 500 characters, got 501"),
        (None, "expected text, got NoneType"),
        (b"me", "expected text, got bytes"),
        ("me\0", "expected text without control characters, line breaks or overrides of direction, got U+0000 at 2"),
        (
            "a\u2028b",
            "expected text without control characters, line breaks or overrides of direction, got U+2028 at 1",
        ),
        ("\ud800", "expected UTF-8, got byte 0xed at 0"),
    ],
)
def test_consent_is_required_and_plain_text(consent: Any, text: str) -> None:
    assert cover_refusal(consent=consent) == f"consent: {text}"


def test_the_longest_consent_is_counted_in_characters() -> None:
    blanks = " " * 10
    for consent in ("é" * 500, blanks + "x" * 495):
        assert job_inputs(CoverRequest(SOUND, SOUND, consent))["voice_consent"][0] == consent.strip().encode()


def test_covers_have_settings_and_modes_of_their_own() -> None:
    assert cover_refusal(settings={"duration_s": 5}).startswith("duration_s: cover has no such setting; known: seed")
    assert cover_refusal(settings={"vocal_gain_db": -25}) == "vocal_gain_db: expected -24 to 12 dB, got -25"
    assert cover_refusal(no_vocals="keep").startswith("no_vocals: expected one of error, passthrough, convert, got")
    assert cover_refusal(no_vocals=3) == "no_vocals: expected text, got int"


@pytest.mark.parametrize(
    ("sources", "names"),
    [("vocals", ("vocals",)), ("vocals, drums", ("vocals", "drums")), (["bass", "other"], ("bass", "other"))],
)
def test_sources_are_names(sources: Any, names: tuple[str, ...]) -> None:
    assert as_sources(sources) == names


@pytest.mark.parametrize(
    ("sources", "text"),
    [
        ("", "expected names such as vocals, got ''"),
        ([], "expected names such as vocals, got []"),
        ("vocals,,drums", "expected names such as vocals, got "),
        (["vocals,drums"], "expected names such as vocals, got "),
        (["a\nb"], "expected names such as vocals, got "),
        ([3], "expected names, got [3]"),
        ("vocals,vocals", "expected each name once, got vocals, vocals"),
    ],
)
def test_garbage_is_no_source(sources: Any, text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        as_sources(sources)
    assert str(caught.value).startswith(f"sources: {text}")
