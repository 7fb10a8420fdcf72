"""Make a song of every text file in a folder, several at once; what exists already is left alone.

python examples/python/batch.py lyrics/ songs/
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from heartvoice.client import Client
from heartvoice.errors import HeartvoiceError


def main() -> None:
    """Make the songs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("lyrics", type=Path, help="folder of .txt files")
    parser.add_argument("songs", type=Path, help="folder for the songs")
    parser.add_argument("--url", default="127.0.0.1:8001")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--at-once", type=int, default=4, help="the server's max_jobs")
    options = parser.parse_args()
    options.songs.mkdir(exist_ok=True)

    def make(text: Path) -> str:
        target = options.songs / f"{text.stem}.flac"
        if target.exists():
            return f"{target}: exists"
        try:
            client.song(text.read_text(encoding="utf-8"), "pop", duration_s=options.seconds).save(target)
        except (HeartvoiceError, OSError, UnicodeError) as error:  # one bad file does not stop the others
            return f"{text}: {error}"
        return f"{target}: made"

    with Client(options.url) as client, ThreadPoolExecutor(options.at_once) as pool:
        print(*pool.map(make, sorted(options.lyrics.glob("*.txt"))), sep="\n")


if __name__ == "__main__":
    main()
