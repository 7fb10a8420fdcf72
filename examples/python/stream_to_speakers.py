"""Play a song while it is being made.

With `pip install sounddevice` it plays by itself. Without, it writes raw samples to a pipe:

    python examples/python/stream_to_speakers.py | aplay -t raw -f FLOAT_LE -r 48000 -c 2
"""

import argparse
import sys
from collections.abc import Callable

from heartvoice.client import AudioChunk, Client


def player() -> Callable[[bytes], object]:
    """A function that plays interleaved float32 samples at 48 kHz: on the speakers, or into standard output."""
    try:
        import sounddevice  # fails with OSError where the machine has no sound library
    except (ImportError, OSError):
        return sys.stdout.buffer.write
    stream = sounddevice.RawOutputStream(samplerate=48_000, channels=2, dtype="float32")
    stream.start()
    return stream.write


def main() -> None:
    """Play the song."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="127.0.0.1:8001")
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    play = player()
    with Client(options.url) as client:
        # The smallest window gives the earliest first audio.
        for message in client.stream("La la la", "folk, guitar", duration_s=options.seconds, codec_window=93):
            if isinstance(message, AudioChunk):
                play(message.audio.T.clip(-1, 1).tobytes())


if __name__ == "__main__":
    main()
