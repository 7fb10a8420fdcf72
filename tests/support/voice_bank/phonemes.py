"""Writes the phonemes beside the words in lines.json; lines are spoken from the file, without eSpeak.

python -m tests.support.voice_bank.phonemes --write
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from tests.support.voice_bank.lines import FILE
from train.voices.phonemes import phonemes_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Check or write the file, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the file; otherwise only compare")
    options = parser.parse_args(arguments)
    before = json.loads(FILE.read_text())
    after = {name: dict(zip(lines, phonemes_of(list(lines)), strict=True)) for name, lines in before.items()}
    if options.write:
        FILE.write_text(json.dumps(after, ensure_ascii=False, indent=1) + "\n")
    return int(not options.write and before != after)


if __name__ == "__main__":
    sys.exit(main())
