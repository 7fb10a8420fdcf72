from __future__ import annotations

import hashlib

import numpy as np
import pytest

from heartvoice.audio.dsp import resample
from heartvoice.audio.recordings import Recording, Voice, read_recording, read_voice
from heartvoice.contracts.constants import MAX_CONSENT_CHARS, MAX_INPUT_RATE_HZ, MIN_INPUT_RATE_HZ
from heartvoice.contracts.field_checks import read_consent
from heartvoice.errors import InvalidRequestError
from tests.support.music import band, encode, singer, speaker

RATE_HZ = 48_000


def bytes_input(data: bytes) -> np.ndarray:
    return np.array([data], np.object_)


def from_samples(audio: np.ndarray, rate_hz: int = RATE_HZ) -> Recording:
    return read_recording({"audio": audio, "sample_rate": np.array([rate_hz])})


def test_samples_are_taken_as_they_are() -> None:
    recording = from_samples(band(2))
    assert np.array_equal(recording.audio, band(2))
    assert recording.sample_rate_hz == RATE_HZ


def test_samples_that_cannot_be_a_recording_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="audio: expected 1 or 2 channels, got 8"):
        from_samples(np.tile(band(2), (4, 1)))
    with pytest.raises(InvalidRequestError, match="audio: expected sound, got no samples"):
        from_samples(np.zeros((2, 0), np.float32))
    with pytest.raises(InvalidRequestError, match=r"audio: expected 1 to 600 s, got 0\.5 s"):
        from_samples(np.zeros((2, RATE_HZ // 2), np.float32))
    with pytest.raises(InvalidRequestError, match=r"audio: expected samples of about -1 to 1, got 1\.6"):
        from_samples((band(2) * 32_768).astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_samples_are_refused(value: float) -> None:
    audio = band(2).copy()
    audio[1, 70_000] = value
    with pytest.raises(InvalidRequestError, match="audio: expected finite samples, got NaN or Inf"):
        from_samples(audio)


@pytest.mark.parametrize("rate_hz", [0, -1, MIN_INPUT_RATE_HZ - 1, MAX_INPUT_RATE_HZ + 1, 2**62])
def test_rates_outside_the_contract_are_refused(rate_hz: int) -> None:
    message = f"sample_rate: expected a sample rate of 8000 to 192000 Hz, got {rate_hz} Hz"
    with pytest.raises(InvalidRequestError, match=message):
        from_samples(band(2), rate_hz)


def test_exactly_one_of_file_and_audio_is_required() -> None:
    both = {"file": bytes_input(encode(band(2))), "audio": band(2), "sample_rate": np.array([RATE_HZ])}
    with pytest.raises(InvalidRequestError, match="file: expected either file or audio, got both"):
        read_recording(both)
    with pytest.raises(InvalidRequestError, match="file: expected either file or audio, got neither"):
        read_recording({"sample_rate": np.array([RATE_HZ])})


def test_the_rate_goes_with_audio_and_only_with_audio() -> None:
    with pytest.raises(InvalidRequestError, match="sample_rate: missing, expected the rate of audio in Hz"):
        read_recording({"audio": band(2)})
    with pytest.raises(InvalidRequestError, match="sample_rate: expected only with audio, got it with file"):
        read_recording({"file": bytes_input(encode(band(2))), "sample_rate": np.array([RATE_HZ])})


def test_names_of_other_inputs_appear_in_errors() -> None:
    with pytest.raises(InvalidRequestError, match="voice: expected either voice or voice_audio, got neither"):
        read_voice({})
    with pytest.raises(InvalidRequestError, match=r"^voice: expected WAV"):
        read_voice({"voice": bytes_input(b"no voice here")})


@pytest.mark.parametrize("audio", [np.zeros(10, np.float32), np.zeros((2, 10)), np.zeros((1, 2, 10), np.float32)])
def test_another_shape_or_dtype_is_refused(audio: np.ndarray) -> None:
    with pytest.raises(InvalidRequestError, match=r"audio: expected FP32 \[channel, sample\], got"):
        from_samples(audio)


def test_stereo_and_mono_are_made_of_what_there_is() -> None:
    two, one = from_samples(band(2)), from_samples(band(2)[:1])
    assert two.stereo() is two.audio
    assert np.array_equal(one.stereo(), np.stack([band(2)[0]] * 2))
    assert np.array_equal(one.mono(), band(2)[0])
    assert np.allclose(two.mono(), (band(2)[0] + band(2)[1]) / 2, atol=1e-7)


# --------------------------------------------------------------------------------------------------------------- voices


def voice_of(audio: np.ndarray, rate_hz: int = 44_100) -> Voice:
    return read_voice(
        {"voice_audio": np.atleast_2d(audio).astype(np.float32), "voice_sample_rate": np.array([rate_hz])}
    )


def test_a_good_voice_has_no_warnings_and_is_44_khz_mono() -> None:
    audio = np.stack([speaker(12, RATE_HZ), 0.5 * speaker(12, RATE_HZ)]).astype(np.float32)
    voice = read_voice({"voice": bytes_input(encode(audio, RATE_HZ, "WAV", "FLOAT"))})
    assert voice.warnings == ()
    assert voice.audio44.shape == (12 * 44_100,)
    assert voice.duration_s == 12.0
    assert np.array_equal(voice.audio44, resample(audio.mean(axis=0), RATE_HZ, 44_100))
    assert voice.sha256 == hashlib.sha256(voice.audio44.astype("<f4").tobytes()).hexdigest()


def test_the_same_samples_have_the_same_name_however_they_came() -> None:
    audio = speaker(4)
    file = read_voice({"voice": bytes_input(encode(audio, 44_100, "WAV", "FLOAT"))})
    assert file.sha256 == voice_of(audio).sha256
    assert file.sha256 != voice_of(audio[:-1]).sha256


@pytest.mark.parametrize(("left", "right", "used"), [(1.0, -1.0, 0), (1.0, -0.7, 0), (-0.7, 1.0, 1)])
def test_a_voice_whose_channels_cancel_is_its_louder_channel(left: float, right: float, used: int) -> None:
    audio = np.stack([left * speaker(4), right * speaker(4)]).astype(np.float32)
    voice = voice_of(audio)
    assert np.array_equal(voice.audio44, audio[used])
    side = ("left", "right")[used]
    assert f"channels: they cancel each other, so only the {side} one is used" in voice.warnings


@pytest.mark.parametrize(("seconds", "fits"), [(2.9, False), (3.0, True), (60.0, True), (600.1, False)])
def test_a_voice_has_3_to_600_seconds(seconds: float, fits: bool) -> None:
    audio = speaker(seconds, 8000)
    if fits:
        assert voice_of(audio, 8000).duration_s == seconds
    else:
        with pytest.raises(InvalidRequestError, match=f"voice_audio: expected 3 to 600 s, got {seconds} s"):
            voice_of(audio, 8000)


@pytest.mark.parametrize("rate_hz", [8000, 11_025])
def test_of_a_long_voice_the_60_s_with_the_most_voice_are_used(rate_hz: int) -> None:
    rng = np.random.default_rng(0)
    audio = 1e-4 * rng.standard_normal((2, 150 * rate_hz))
    spoken = np.r_[5:15, 50:85, 90:111]  # seconds
    for second in spoken:
        audio[:, second * rate_hz : (second + 1) * rate_hz] += speaker(1, rate_hz)
    recording = Recording(audio.astype(np.float32), rate_hz)
    voice = read_voice({"voice_audio": recording.audio, "voice_sample_rate": np.array([rate_hz])})
    start = 50 * rate_hz  # the first second of 60 that hold both longer parts
    assert voice.duration_s == 60.0
    found = int(np.flatnonzero(recording.audio[0] == voice.audio.audio[0, 0])[0])
    assert abs(found - start) < 0.2 * rate_hz
    assert np.array_equal(voice.audio.audio, recording.audio[:, found : found + 60 * rate_hz])
    assert (
        f"long: 150.0 s, of which the 60 s with the most voice are used, from {found / rate_hz:.1f} s" in voice.warnings
    )
    again = {"voice_audio": voice.audio.audio, "voice_sample_rate": np.array([rate_hz])}
    assert read_voice(again).sha256 == voice.sha256


@pytest.mark.parametrize(
    "audio", [np.zeros(200_000), np.full(200_000, 0.5), 1e-5 * singer(5)], ids=["zeros", "constant", "faint"]
)
def test_a_silent_voice_is_refused(audio: np.ndarray) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"voice_audio: expected a voice above -90 dBFS, got -.* dBFS: silence"
    ):
        voice_of(audio)


def test_a_click_in_silence_is_no_voice() -> None:
    audio = np.zeros(200_000)
    audio[1000:1100] = 0.9
    with pytest.raises(
        InvalidRequestError, match=r"expected at least 1 s of voice within 30 dB of its level, got 0\.0"
    ):
        voice_of(audio)


def test_poor_voices_are_read_with_warnings() -> None:
    good = speaker(12)

    def warnings(audio: np.ndarray, rate_hz: int = 44_100) -> list[str]:
        return [warning.split(":")[0] for warning in voice_of(audio, rate_hz).warnings]

    assert warnings(good) == []
    assert warnings(np.clip(4 * good, -1, 1)) == ["clipping"]
    coded = resample(resample(np.clip(4 * good, -1, 1), 44_100, 22_050), 22_050, 44_100)
    assert np.abs(coded).max() > 1.03
    assert warnings(coded) == ["clipping"], "its overshoots do not hide it"
    assert warnings(30 * good) == [], "floats above full scale are whole"
    assert warnings(speaker(5)) == ["short"]
    assert warnings(resample(good, 44_100, 8000), 8000) == ["narrow band"]
    assert warnings(resample(resample(good, 44_100, 7000), 7000, 44_100)) == ["narrow band"]
    assert warnings(np.concatenate([speaker(5), np.zeros(44_100 * 15)])) == ["little voice"]


# -------------------------------------------------------------------------------------------------------------- consent


def consent(text: str | bytes) -> str:
    data = text if isinstance(text, bytes) else text.encode()
    return read_consent({"voice": bytes_input(b"..."), "voice_consent": bytes_input(data)})


def test_consent_is_required_with_a_voice_and_only_then() -> None:
    for inputs in ({"voice": bytes_input(b"...")}, {"voice_audio": singer(1)[None]}):
        with pytest.raises(InvalidRequestError, match="voice_consent: missing"):
            read_consent(inputs)
    assert read_consent({}) == ""


def test_consent_is_kept_without_the_space_around_it() -> None:
    assert consent("  Zoë Müller, by e-mail, 2026-03-04 \n") == "Zoë Müller, by e-mail, 2026-03-04"
    assert consent("ü" * MAX_CONSENT_CHARS) == "ü" * MAX_CONSENT_CHARS


@pytest.mark.parametrize("text", ["", "   ", "\n\t ", "\u2003"])
def test_blank_consent_is_missing(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="voice_consent: missing"):
        consent(text)


def test_consent_that_is_too_long_or_not_plain_text_is_refused_without_repeating_it() -> None:
    with pytest.raises(InvalidRequestError, match="voice_consent: expected at most 500 characters, got 501"):
        consent("x" * 501)
    for bad in ("secret\x00name", "secret\nname", "secret\x1b[2Jname", "secret\u2028name"):
        with pytest.raises(
            InvalidRequestError, match=r"voice_consent: expected text without control.*U\+.... at 6"
        ) as error:
            consent(bad)
        assert "secret" not in str(error.value)
    with pytest.raises(InvalidRequestError, match="voice_consent: expected UTF-8"):
        consent(b"\xff\xfe")
