"""Makes the demo world's ingredients: Kokoro speaks the vocabulary, FluidR3's instruments are measured.

    python -m train.demo.ingredients [--write]

Needs network once for the pinned packages, and about 20 CPU minutes for the speech, which is cached under
HEARTVOICE_CACHE by the hash of the code. Without --write it says whether this machine makes the committed files.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import pickle
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile

from heartvoice.export.wheel_files import cache_folder
from train.demo import analysis, atoms, instruments, speech, tables, words
from train.demo.analysis import SpokenWord
from train.voices import kokoro, packages

VOICES = ("af_heart", "af_bella", "am_michael", "bm_george")
"""Kokoro's, in the order of `layout.SINGERS`; the first one's times are those of the spelling."""
RETAKES = (
    ("ladder", "his", "beside", "hold", "deep", "rider", "lost", "bottle", "am", "can", "painted", "somebody"),
    (
        "could",
        "market",
        "moonlight",
        "winter",
        "picture",
        "baby",
        "when",
        "borrow",
        "fading",
        "only",
        "valley",
        "again",
    ),
)
"""Words that were misheard most, in lists in which they are spoken anew: among others a word sounds otherwise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the ingredients and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the files; otherwise only compare")
    options = parser.parse_args(arguments)
    before = tables.hashes() if tables.SOUNDS.is_file() else {}
    contents = [path.read_bytes() for path in (tables.SPELLING, tables.SOUNDS)] if before else []
    voices, spelled = atoms.build([speak(voice) for voice in VOICES], atoms.Options())
    tables.write(spelled, voices, instruments.measure())
    made = tables.hashes()
    for name, found in made.items():
        print(f"{name}: sha256 {found}, {'as before' if before.get(name) == found else 'other than before'}")
    if not options.write and contents:
        for path, content in zip((tables.SPELLING, tables.SOUNDS), contents, strict=True):
            path.write_bytes(content)
    return int(not options.write and made != before)


def speak(voice: str) -> dict[str, SpokenWord]:
    """Return every word as a voice speaks it; out of the cache if it is there.

    Raises:
        ExportError: Kokoro cannot be fetched.
    """
    spoken: dict[str, SpokenWord] = {}
    lists = [*speech.word_lists(), *RETAKES]
    for number, listed in enumerate(lists):
        path = cache_folder() / "demo-world" / f"{voice}-{number:02d}-{_key(listed)}.pickle"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            made = analysis.analyse(speech.speak_list(listed, voice))
            with NamedTemporaryFile(dir=path.parent, prefix=".make-", delete=False) as stream:
                pickle.dump(made, stream)
            Path(stream.name).replace(path)
            print(f"{voice}: list {number + 1} of {len(lists)}", flush=True)
        spoken |= {word.word: word for word in pickle.loads(path.read_bytes())}  # noqa: S301 - the file of this program
    return spoken


def _key(listed: tuple[str, ...]) -> str:
    """Hash what the speech of a list depends on."""
    digest = hashlib.sha256()
    for code in (analysis, kokoro, packages, speech):
        digest.update(inspect.getsource(code).encode())
    for package in ("numpy", "onnxruntime", "pyworld-prebuilt", "scipy"):
        digest.update(f"{package} {version(package)}\n".encode())
    for word in listed:
        digest.update(f"{word} {words.phonemes()[word]}\n".encode())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
