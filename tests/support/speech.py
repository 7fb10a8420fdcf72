"""Speech for tests: eSpeak NG from the wheel `espeakng-loader`, by ctypes."""

from __future__ import annotations

import _ctypes
import ctypes
import threading
from functools import lru_cache

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback before espeak_Synth returns
_UTF8 = 1
_RATE, _PITCH = 1, 3
_OK = 0
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_lock = threading.Lock()


def _speak(text: str, voice: str, pitch: int, speed: int) -> tuple[NDArray[np.float32], int]:
    """Speak with a newly loaded library; return float32 [N] and its rate.

    The library's state is global and survives its own termination: a second utterance would depend on the first.
    """
    pieces: list[NDArray[np.int16]] = []

    def take(samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).astype(np.int16))
        return 0

    callback, encoded = _Callback(take), text.encode()
    with _lock:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            data = espeakng_loader.get_data_path().encode()
            rate_hz = int(library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0))
            if rate_hz <= 0:
                raise RuntimeError(f"espeak_Initialize failed with {rate_hz}")
            library.espeak_SetSynthCallback(callback)
            if library.espeak_SetVoiceByName(voice.encode()) != _OK:
                raise ValueError(f"voice: eSpeak has no {voice!r}")
            library.espeak_SetParameter(_RATE, speed, 0)
            library.espeak_SetParameter(_PITCH, pitch, 0)
            size = ctypes.c_size_t(len(encoded) + 1)
            if library.espeak_Synth(encoded, size, 0, 1, 0, _UTF8, None, None) != _OK:
                raise RuntimeError("espeak_Synth failed")
            library.espeak_Synchronize()
            library.espeak_Terminate()
        finally:
            _ctypes.dlclose(library._handle)
    return np.concatenate(pieces).astype(np.float32) / np.float32(32768), rate_hz


@lru_cache(maxsize=64)
def say(text: str, voice: str = "en", rate_hz: int = 16_000, pitch: int = 50, speed: int = 160) -> NDArray[np.float32]:
    """Speak a text: float32 [N] within about 1; read-only.

    The samples are equal in every process, except for voices with breath noise (variants f1 to f5, whisper), which is
    random in each process.

    Args:
        text: what to say.
        voice: a language of eSpeak with an optional variant, for example "en", "de", "en+f3", "en-us+m2".
        rate_hz: sample rate of the result; the voice itself has 22.05 kHz.
        pitch: 0 to 99.
        speed: words a minute, 80 to 450.

    Raises:
        ValueError: there is no such voice.
    """
    samples, own_hz = _speak(text, voice, pitch, speed)
    audio = np.ascontiguousarray(resample(samples, own_hz, rate_hz))
    audio.setflags(write=False)
    return audio
