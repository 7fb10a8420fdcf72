"""Make a voice reference without a real person's voice: a synthetic singer sings a vocalise.

    python examples/make_voice.py voice.wav [--seconds 12] [--voice 0]

Equal arguments give equal files: 48 kHz, mono, 24 bits.
"""

from __future__ import annotations

import argparse

import soundfile
from singer import RATE_HZ, SINGERS, VOCALISE, sing


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    names = ", ".join(f"{number} {singer.name}" for number, singer in enumerate(SINGERS))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", help="WAV or FLAC file")
    parser.add_argument("--seconds", type=float, default=12.0, help="length in seconds, 3 to 60; better 10 or more")
    parser.add_argument("--voice", type=int, choices=range(len(SINGERS)), default=0, help=f"the singer: {names}")
    options = parser.parse_args(arguments)
    if not 3 <= options.seconds <= 60:
        parser.error(f"--seconds: expected 3 to 60, got {options.seconds:g}")
    singer = SINGERS[options.voice]
    soundfile.write(options.output, sing(singer, VOCALISE, options.seconds), RATE_HZ, subtype="PCM_24")
    print(f"{options.output}: {options.seconds:g} s of a synthetic {singer.name}")


if __name__ == "__main__":
    main()
