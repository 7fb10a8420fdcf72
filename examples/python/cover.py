"""Give a recording another singer, and keep instrumental and vocals.

python examples/python/cover.py song.mp3 me.wav "My own voice, J. Doe" cover.flac
"""

import argparse

from heartvoice.client import Client


def main() -> None:
    """Make the cover."""
    parser = argparse.ArgumentParser()
    parser.add_argument("recording", help="WAV, AIFF, FLAC, OGG or MP3, at most 10 minutes")
    parser.add_argument("voice", help="3 to 60 s of one voice, without music")
    parser.add_argument("consent", help="whose voice it is, and that they agree")
    parser.add_argument("output", help="cover.wav, .flac, .mp3 or .ogg")
    parser.add_argument("--stems", help="also write instrumental and vocals into this folder")
    parser.add_argument("--url", default="127.0.0.1:8001")
    options = parser.parse_args()
    with Client(options.url) as client:
        cover = client.cover(options.recording, options.voice, consent=options.consent, stems=bool(options.stems))
    cover.save(options.output)
    if options.stems:
        cover.save_stems(options.stems, "flac")
    for warning in cover.report.warnings:
        print("warning:", warning)
    print("converted:", cover.report.converted, "- similarity to the voice:", cover.report.similarity)


if __name__ == "__main__":
    main()
