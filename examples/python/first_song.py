"""Make one song and save it.

Start a server (`heartvoice serve`), then run:

    python examples/python/first_song.py song.flac
"""

import argparse

from heartvoice.client import Client

LYRICS = """[verse]
The kettle hums the morning in, the window wears a little rain
I draw your name against the glass and watch it run and start again
"""


def main() -> None:
    """Make the song."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", help="song.wav, .flac, .mp3 or .ogg")
    parser.add_argument("--url", default="127.0.0.1:8001")
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with Client(options.url) as client:
        song = client.song(LYRICS, "pop, piano, warm", duration_s=options.seconds, seed=7)
        song.save(options.output)
    noise = ", random weights: this is noise" if song.report.random_weights else ""
    print(f"{options.output}: {song.audio.shape[1] / song.sample_rate_hz:.1f} s, seed {song.report.seed}{noise}")


if __name__ == "__main__":
    main()
