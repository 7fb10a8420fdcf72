"""Hostile sound files: decompression bombs, false headers, other containers, truncated files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from tests.support import music
from tests.support.hostile.case import RIGHT, Case, case, one

ALLOWED = "^INVALID_ARGUMENT: INVALID_ARG: file: expected "
DAMAGED = ALLOWED + ".*(damaged|cut short|header promises|no samples|at least|0.5 to 600 s)"
FORMATS = ALLOWED + r"WAV or AIFF \(PCM, float, A-law or µ-law\), FLAC, OGG"
SILENCE = "^INVALID_ARGUMENT: INVALID_ARG: .*silence"
RATE_HZ = 16_000


@cache
def tone(seconds: float = 1.0, rate_hz: int = RATE_HZ, n_channels: int = 1) -> np.ndarray:
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    wave: np.ndarray = 0.3 * np.sin(2 * np.pi * 220 * t) * (1 + np.sin(2 * np.pi * 3 * t)) / 2
    made = (wave if n_channels == 1 else np.stack([wave] * n_channels)).astype(np.float32)
    made.setflags(write=False)
    return made


@cache
def encoded(container: str, subtype: str | None = None, seconds: float = 1.0, n_channels: int = 1) -> bytes:
    return music.encode(tone(seconds, n_channels=n_channels), RATE_HZ, container, subtype)


def sound(name: str, make: Callable[[], bytes], error: str, **more: Any) -> Case:
    """Make a case for the speaker encoder, the fastest model that decodes files."""
    return case(f"file: {name}", "speaker_encoder", lambda: {"file": one(make())}, error, **more)


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


# ----------------------------------------------------------------------------------------------------------------- WAV


SAMPLES = (tone() * 32767).astype("<i2").tobytes()


def wav(fmt: bytes | None = None, data: bytes | None = None, extra: bytes = b"", riff: int | None = None) -> bytes:
    """Make a RIFF file of these chunks; by default a valid one."""
    fmt = chunk(b"fmt ", pcm()) if fmt is None else fmt
    data = chunk(b"data", SAMPLES) if data is None else data
    body = b"WAVE" + fmt + extra + data
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if size is None else size) + content + b"\0" * (len(content) % 2)


def pcm(kind: int = 1, n_channels: int = 1, rate: int = RATE_HZ, align: int = 2, bits: int = 16) -> bytes:
    return struct.pack("<HHIIHH", kind, n_channels, rate, (rate * align) % 2**32, align, bits)


def floats(value: float, at: int | None = None) -> bytes:
    """Make a float WAV with this value everywhere, or at one sample."""
    audio = np.full(RATE_HZ, value, np.float64) if at is None else tone().astype(np.float64)
    if at is not None:
        audio[at] = value
    subtype = "DOUBLE" if abs(value) > 1e38 and np.isfinite(value) else "FLOAT"
    return music.encode(audio, RATE_HZ, "WAV", subtype)


WAVS = [
    sound("an honest WAV", wav, RIGHT),
    sound("a WAV of 0 Hz", lambda: wav(chunk(b"fmt ", pcm(rate=0))), ALLOWED),
    sound("a WAV of 4 GHz", lambda: wav(chunk(b"fmt ", pcm(rate=2**32 - 1))), ALLOWED),
    sound("a WAV of 7999 Hz", lambda: wav(chunk(b"fmt ", pcm(rate=7999))), ALLOWED + "a sample rate of 8000"),
    sound("a WAV of no channel", lambda: wav(chunk(b"fmt ", pcm(n_channels=0))), ALLOWED),
    sound("a WAV of 65535 channels", lambda: wav(chunk(b"fmt ", pcm(n_channels=65535))), ALLOWED),
    sound("a WAV of 0 bits", lambda: wav(chunk(b"fmt ", pcm(bits=0))), ALLOWED, or_right=True),
    sound("a WAV of 65535 bits", lambda: wav(chunk(b"fmt ", pcm(bits=65535, align=8192))), ALLOWED),
    sound("a WAV of no alignment", lambda: wav(chunk(b"fmt ", pcm(align=0))), ALLOWED, or_right=True),
    sound("a WAV of GSM", lambda: wav(chunk(b"fmt ", pcm(kind=0x31))), ALLOWED),
    sound("a WAV of MP3", lambda: wav(chunk(b"fmt ", pcm(kind=0x55))), ALLOWED),
    sound("a WAV of mu-law", lambda: encoded("WAV", "ULAW"), RIGHT),
    sound("a WAV of ADPCM", lambda: encoded("WAV", "MS_ADPCM"), ALLOWED),
    sound("a WAV with half a format", lambda: wav(chunk(b"fmt ", pcm()[:8])), ALLOWED),
    sound("a WAV without a format", lambda: wav(b""), ALLOWED),
    sound("a WAV without data", lambda: wav(data=b""), ALLOWED),
    sound("a WAV of no data", lambda: wav(data=chunk(b"data", b"")), ALLOWED),
    sound("a WAV that says 1 GB", lambda: wav(data=chunk(b"data", SAMPLES, 10**9)), RIGHT),
    sound("a WAV that says 4 GB and means unknown", lambda: wav(data=chunk(b"data", SAMPLES, 2**32 - 1)), RIGHT),
    sound("a WAV whose RIFF says nothing", lambda: wav(riff=0), RIGHT),
    sound("a WAV with a chunk of 4 GB", lambda: wav(extra=chunk(b"LIST", b"INFO", 2**32 - 1)), ALLOWED),
    sound("a WAV with ten thousand chunks", lambda: wav(extra=chunk(b"junk", b"") * 10_000), ALLOWED, or_right=True),
    sound("a WAV with its data twice", lambda: wav(extra=chunk(b"data", b"\1\0" * 9000)), SILENCE, or_right=True),
    sound("a WAV whose cue points lie", lambda: wav(extra=chunk(b"cue ", b"\xff" * 4)), ALLOWED, or_right=True),
    sound("an RF64", lambda: encoded("RF64"), RIGHT),
    sound("an RF64 that says RIFF", lambda: patched(encoded("RF64"), 0, b"RIFF"), ALLOWED, or_right=True),
    sound("a W64", lambda: encoded("W64"), FORMATS + ".*W64"),
    sound("a WAV of NaN", lambda: floats(np.nan), ALLOWED + "finite samples"),
    sound("a WAV with one Inf", lambda: floats(np.inf, 8000), ALLOWED + "finite samples"),
    sound("a WAV of 1e300", lambda: floats(1e300), ALLOWED + "finite samples"),
    sound("a WAV of 1e30", lambda: floats(1e30), ALLOWED + "samples of about -1 to 1"),
    sound("a WAV of denormals", lambda: floats(1e-45), SILENCE),
    sound(
        "a WAV of 100 channels",
        lambda: wav(chunk(b"fmt ", pcm(n_channels=100, align=200))),
        ALLOWED + ".*expected 1 to 8",
    ),
    *(
        sound(f"a WAV cut after {n} bytes", lambda n=n: wav()[:n], ALLOWED, or_right=n >= 1000)  # type: ignore[misc]
        for n in (1, 4, 11, 12, 19, 20, 30, 40, 44, 1000)
    ),
]

# ---------------------------------------------------------------------------------------------------------------- FLAC

STREAMINFO = 8
"""Where the content of a FLAC's first block begins."""


def flac_info(rate: int | None = None, n_channels: int | None = None, n_samples: int | None = None) -> bytes:
    """Make a FLAC file with a false header."""
    data = encoded("FLAC")
    bits = int.from_bytes(data[STREAMINFO + 10 : STREAMINFO + 18], "big")
    for value, width, shift in ((rate, 20, 44), (n_channels and n_channels - 1, 3, 41), (n_samples, 36, 0)):
        if value is not None:
            bits = bits & ~((2**width - 1) << shift) | value << shift
    return patched(data, STREAMINFO + 10, bits.to_bytes(8, "big"))


@cache
def silence(container: str, seconds: float, subtype: str | None = None) -> bytes:
    """Encode minutes of silence in a few kilobytes."""
    return music.encode(np.zeros(round(seconds * 48_000), np.float32), 48_000, container, subtype)


FLACS = [
    sound("an honest FLAC", lambda: encoded("FLAC"), RIGHT),
    sound("a FLAC of 0 Hz", lambda: flac_info(rate=0), ALLOWED),
    sound("a FLAC of 655350 Hz", lambda: flac_info(rate=655_350), ALLOWED),
    sound("a FLAC of eight channels", lambda: flac_info(n_channels=8), ALLOWED),
    sound("a FLAC of 2^36-1 samples", lambda: flac_info(n_samples=2**36 - 1), ALLOWED + "at most 600 s"),
    sound("a FLAC that says one sample more", lambda: flac_info(n_samples=RATE_HZ + 1), RIGHT),
    sound("a FLAC of unknown length", lambda: flac_info(n_samples=0), RIGHT),
    sound("a FLAC of eleven minutes' silence", lambda: silence("FLAC", 660.0), ALLOWED + ".*600 s"),
    sound("eleven minutes that say a second", lambda: _short_flac(), SILENCE + "|" + ALLOWED),
    sound("a FLAC with a block of 16 MB", lambda: patched(encoded("FLAC"), 5, b"\xff\xff\xff"), ALLOWED),
    sound("a FLAC of a million blocks", lambda: b"fLaC" + b"\x01\0\0\0" * 10**6, ALLOWED),
    sound("a FLAC of blocks of 0", lambda: patched(encoded("FLAC"), STREAMINFO, b"\0\0\0\0"), ALLOWED, or_right=True),
    sound("a FLAC behind an ID3 tag", lambda: b"ID3\4\0\0\0\0\0\0" + encoded("FLAC"), ALLOWED, or_right=True),
    sound("a FLAC of noise after its header", lambda: encoded("FLAC")[:60] + b"\xa5" * 20_000, DAMAGED),
    *(
        sound(f"a FLAC cut after {n} bytes", lambda n=n: encoded("FLAC")[:n], ALLOWED, or_right=n >= 1000)  # type: ignore[misc]
        for n in (4, 8, 20, 42, 200, 5000)
    ),
]


def _short_flac() -> bytes:
    data = silence("FLAC", 660.0)
    bits = int.from_bytes(data[STREAMINFO + 10 : STREAMINFO + 18], "big") & ~(2**36 - 1) | 48_000
    return patched(data, STREAMINFO + 10, bits.to_bytes(8, "big"))


# ----------------------------------------------------------------------------------------------------------------- OGG


def page_field(data: bytes, offset: int, value: bytes, nth: int) -> bytes:
    """Change a field of an OGG file's nth page without updating its checksum."""
    at = -1
    for _ in range(nth + 1):
        at = data.index(b"OggS", at + 1)
    return patched(data, at + offset, value)


OGGS = [
    sound("an honest OGG", lambda: encoded("OGG", "VORBIS"), RIGHT),
    sound("an honest Opus", lambda: encoded("OGG", "OPUS"), RIGHT),
    sound("a FLAC in OGG", lambda: _flac_in_ogg(), ALLOWED),
    sound("an OGG of eleven minutes' silence", lambda: silence("OGG", 660.0, "VORBIS"), ALLOWED + ".*600 s"),
    sound("an OGG that ends at 2^63-1", lambda: _last_granule(2**63 - 1), ALLOWED, or_right=True),
    sound("an OGG that ends at -1", lambda: _last_granule(2**64 - 1), ALLOWED, or_right=True),
    sound(
        "an OGG with a wrong checksum",
        lambda: page_field(encoded("OGG", "VORBIS"), 22, b"\0\0\0\0", 2),
        ALLOWED,
        or_right=True,
    ),
    sound("two OGGs in one", lambda: encoded("OGG", "VORBIS") * 2, ALLOWED, or_right=True),
    sound("two hundred OGGs in one", lambda: encoded("OGG", "VORBIS") * 200, ALLOWED, or_right=True),
    sound("an OGG and an Opus", lambda: encoded("OGG", "VORBIS") + encoded("OGG", "OPUS"), ALLOWED, or_right=True),
    sound("an OGG of 255 channels", lambda: _vorbis_id(11, b"\xff"), ALLOWED),
    sound("an OGG of 4 GHz", lambda: _vorbis_id(12, b"\xff\xff\xff\xff"), ALLOWED),
    sound("an OGG of a thousand empty pages", lambda: (b"OggS" + b"\0" * 23) * 1000, ALLOWED),
    sound("an OGG of letters", lambda: b"OggS" + b"A" * 10_000, ALLOWED),
    *(
        sound(f"an OGG cut after {n} bytes", lambda n=n: encoded("OGG", "VORBIS")[:n], ALLOWED)  # type: ignore[misc]
        for n in (4, 27, 58, 200, 3000)
    ),
]


def _flac_in_ogg() -> bytes:
    """Make an OGG page with FLAC's first packet."""
    packet = b"\x7fFLAC\1\0\0\1fLaC" + encoded("FLAC")[4:42]
    return b"OggS\0\2" + b"\0" * 8 + b"\1\0\0\0" + b"\0" * 8 + bytes([1, len(packet)]) + packet


def _last_granule(value: int) -> bytes:
    data = encoded("OGG", "VORBIS")
    return patched(data, data.rindex(b"OggS") + 6, value.to_bytes(8, "little"))


def _vorbis_id(offset: int, value: bytes) -> bytes:
    data = encoded("OGG", "VORBIS")
    return patched(data, data.index(b"\x01vorbis") + offset, value)


# ----------------------------------------------------------------------------------------------------------------- MP3


def id3(size: int, content: bytes = b"") -> bytes:
    """Make an ID3 tag that declares `size` bytes but has `content`."""
    return b"ID3\4\0\0" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + content


def mp3() -> bytes:
    return encoded("MP3")


def _xing_frames(count: int) -> bytes:
    data = mp3()
    at = next(place for tag in (b"Xing", b"Info") if (place := data.find(tag)) > 0)
    return patched(data, at + 8, struct.pack(">I", count))


MP3S = [
    sound("an honest MP3", mp3, RIGHT),
    sound("an MP3 with a tag of 256 MB", lambda: id3(2**28 - 1) + mp3(), ALLOWED),
    sound("an MP3 behind five megabytes of tag", lambda: id3(5 * 2**20, b"\0" * (5 * 2**20)) + mp3(), RIGHT),
    sound("an MP3 behind a hundred tags", lambda: id3(10, b"\0" * 10) * 100 + mp3(), ALLOWED, or_right=True),
    sound("a tag alone", lambda: id3(1000, b"\0" * 1000), ALLOWED),
    sound("an MP3 of 2^32-1 frames", lambda: _xing_frames(2**32 - 1), RIGHT),
    sound("an MP3 of one frame", lambda: _xing_frames(1), ALLOWED, or_right=True),
    sound("sync bytes alone", lambda: b"\xff\xfb" * 20_000, ALLOWED),
    sound("an MP3 of no bit rate", lambda: b"\xff\xfb\x00\x00" + b"\0" * 20_000, ALLOWED),
    sound("an MP3 of layer I", lambda: b"\xff\xff\x90\x00" + b"\0" * 20_000, ALLOWED),
    sound("MP3s of several rates in one", lambda: mp3() + silence("MP3", 2.0), ALLOWED, or_right=True),
    *(
        sound(f"an MP3 cut after {n} bytes", lambda n=n: mp3()[:n], ALLOWED, or_right=n >= 1000)  # type: ignore[misc]
        for n in (4, 10, 100, 1000)
    ),
]

# -------------------------------------------------------------------------------------------------------------- others

OTHERS = [
    *(
        sound(f"{container}, which libsndfile reads", lambda c=container: encoded(c), FORMATS)  # type: ignore[misc]
        for container in (
            "CAF",
            "AU",
            "VOC",
            "IRCAM",
            "NIST",
            "MAT4",
            "MAT5",
            "PAF",
            "PVF",
            "AVR",
            "SVX",
            "HTK",
        )
    ),
    sound("an AIFF", lambda: encoded("AIFF"), RIGHT),
    sound("nothing", lambda: b"", "file: expected an encoded recording, got an empty file"),
    sound("a byte", lambda: b"\xff", FORMATS),
    sound("ten megabytes of zeros", lambda: b"\0" * 10**7, FORMATS),
    sound("a ZIP", lambda: b"PK\x03\x04" + b"\0" * 100, FORMATS + ".*ZIP"),
    sound("gzip", lambda: b"\x1f\x8b\x08" + b"\0" * 100, FORMATS + ".*gzip"),
    sound("an MP4", lambda: b"\0\0\0\x18ftypM4A " + b"\0" * 100, FORMATS + ".*MP4"),
    sound("an ELF", lambda: b"\x7fELF" + b"\0" * 100, FORMATS),
    sound("a page", lambda: b"<html><script>alert(1)</script>" * 9, FORMATS),
    sound("an escape sequence", lambda: b"\x1b]0;owned\x07" * 9, FORMATS),
    sound("a playlist of paths", lambda: b"#EXTM3U\n/etc/passwd\nhttp://169.254.169.254/\n", FORMATS),
    sound("a pickle", lambda: b"cos\nsystem\n(S'touch /x'\ntR.", FORMATS),
]
