"""Which decoder reads every sample of the MP3, OGG and WAV files that people have?

    python -m benchmarks.decoders [--seconds 10]

It makes files as encoders, pipes and `cat` leave them, and decodes each by heartvoice, by libsndfile alone, and by
miniaudio and PyAV where these are installed (`pip install miniaudio av`; they are in no extra). `lost` is the sound
that is missing, in seconds; `off` is the largest difference from libsndfile where that reads the file right.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from heartvoice.audio.decode import decode
from heartvoice.audio.quiet_mpg123 import quiet_mpg123
from heartvoice.errors import InvalidRequestError
from tests.support.music import band, encode, lame

Samples = NDArray[np.float32]
RATE_HZ = 44_100


def _files(seconds: int) -> dict[str, tuple[bytes, int, bool]]:
    """Files by description: content, samples that they hold, and whether libsndfile reads them right."""
    half = seconds * RATE_HZ // 2
    swell = np.concatenate([0.003 * band(seconds / 2), band(seconds / 2)], axis=1)
    n = 2 * half
    mp3, ogg, flac = (encode(swell, RATE_HZ, container) for container in ("MP3", "OGG", "FLAC"))
    wav = encode(swell, RATE_HZ, "WAV", "PCM_16")
    at = wav.index(b"data") + 4
    return {
        "MP3 with a header frame": (mp3, n, True),
        "MP3, constant, without": (lame(swell, variable=False), n, True),
        "MP3, variable, without": (lame(swell), n, False),
        "MP3, two joined": (mp3 + mp3, 2 * n, False),
        "MP3, begins within a frame": (mp3[700:], n - 3 * 1152, False),
        "MP3 behind zeros": (bytes(5000) + mp3, n, False),
        "MP3, cut at two thirds": (mp3[: len(mp3) * 2 // 3], 0, False),
        "OGG Vorbis": (ogg, n, True),
        "OGG, two joined": (ogg + ogg, 2 * n, False),
        "FLAC": (flac, n, True),
        "FLAC, two joined": (flac + flac, 2 * n, False),
        "WAV": (wav, n, True),
        "WAV behind an ID3v2 tag": (b"ID3\4\0\0\0\0\2\12" + bytes(266) + wav, n, False),
        "WAV, states 36 bytes more": (wav[:at] + (len(wav) - at + 32).to_bytes(4, "little") + wav[at + 4 :], n, False),
        "WAV, states 0 bytes": (wav[:at] + bytes(4) + wav[at + 4 :], n, False),
    }


def _heartvoice(data: bytes) -> Samples:
    return decode(data, field="file", max_s=600.0).audio


def _libsndfile(data: bytes) -> Samples:
    with quiet_mpg123():
        audio: Samples = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T
    return audio


def _miniaudio(library: Any, data: bytes) -> Samples:
    sound = library.decode(data, library.SampleFormat.FLOAT32, 2, RATE_HZ)
    audio: Samples = np.frombuffer(sound.samples, np.float32).reshape(-1, sound.nchannels).T
    return audio


def _av(library: Any, data: bytes) -> Samples:
    with library.open(io.BytesIO(data)) as container:
        resampler = library.AudioResampler("fltp")
        blocks = [part.to_ndarray() for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    audio: Samples = np.concatenate(blocks, axis=1).astype(np.float32)
    return audio


def _decoders() -> dict[str, Callable[[bytes], Samples]]:
    found: dict[str, Callable[[bytes], Samples]] = {"heartvoice": _heartvoice, "libsndfile": _libsndfile}
    for name, call in (("miniaudio", _miniaudio), ("av", _av)):
        try:
            library = importlib.import_module(name)
        except ImportError:
            continue
        found[f"{name} {_version(name)}"] = lambda data, call=call, library=library: call(library, data)  # type: ignore[misc]
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _measure(read: Callable[[bytes], Samples], data: bytes, n: int, expected: Samples | None) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        audio = read(data)
    except (InvalidRequestError, soundfile.SoundFileError, ValueError, OSError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:80]}
    except Exception as error:  # miniaudio's DecodeError has no public base
        return {"error": f"{type(error).__name__}: {error}"[:80]}
    result: dict[str, Any] = {"samples": audio.shape[1], "lost_s": max(n - audio.shape[1], 0) / RATE_HZ}
    if expected is not None:
        m = min(audio.shape[1], expected.shape[1])
        result["off"] = float(np.abs(audio[:, :m] - expected[:, :m]).max())
        result["same_length"] = audio.shape == expected.shape
    return result | {"seconds": time.perf_counter() - began}


def _cell(result: dict[str, Any]) -> str:
    if "error" in result:
        return "refused"
    text = f"lost {result['lost_s']:.2f} s" if result["lost_s"] else "all"
    return text + (f", off {result['off']:.0e}" if result.get("off") else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args(arguments)
    decoders = _decoders()
    results: dict[str, dict[str, Any]] = {}
    print("| file | " + " | ".join(decoders) + " |\n|---|" + "---|" * len(decoders))
    for name, (data, n, right) in _files(options.seconds).items():
        expected = _libsndfile(data) if right else None
        results[name] = {decoder: _measure(read, data, n, expected) for decoder, read in decoders.items()}
        print(f"| {name} | " + " | ".join(_cell(results[name][decoder]) for decoder in decoders) + " |", flush=True)
    print(json.dumps({"seconds": options.seconds, "libsndfile": soundfile.__libsndfile_version__, "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
