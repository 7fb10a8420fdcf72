"""Writes the phonemes beside the words in lines.json; lines are spoken from the file, without eSpeak.

    python -m tests.support.voice_bank.phonemes --write

eSpeak NG (the wheel espeakng-loader) gives American IPA with ties, which are turned into Kokoro's letters.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from collections.abc import Sequence

import espeakng_loader

from tests.support.voice_bank.lines import FILE

_SYNCHRONOUS, _UTF8 = 2, 1
_IPA, _TIES = 0x02, 0x80
_TIE = "\u0361"
_LETTERS = (
    ("a͡ɪ", "I"), ("e͡ɪ", "A"), ("o͡ʊ", "O"), ("a͡ʊ", "W"), ("ɔ͡ɪ", "Y"), ("t͡ʃ", "ʧ"), ("d͡ʒ", "ʤ"), ("ə͡l", "ᵊl"),
    ("ɜː", "ɜɹ"), ("ɚ", "əɹ"), ("ɐ", "ə"), ("ɾ", "T"), ("ː", ""), (_TIE, ""),
    ("ɹɹ", "ɹ"),
)  # fmt: skip
"""eSpeak's symbols and Kokoro's letters, replaced in this order."""


def phonemes_of(lines: Sequence[str]) -> list[str]:
    """Return Kokoro's letters for each line of English words."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().encode()
    if library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0) <= 0 or library.espeak_SetVoiceByName(b"en-us"):
        raise RuntimeError("eSpeak NG did not start")
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    try:
        return [_kokoro(library, line) for line in lines]
    finally:
        library.espeak_Terminate()


def _kokoro(library: ctypes.CDLL, line: str) -> str:
    """Return one line's letters; eSpeak takes it clause by clause, and drops its punctuation."""
    rest, clauses = ctypes.c_char_p(line.encode()), []
    while rest.value is not None:
        spoken = library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA | _TIES | ord(_TIE) << 8)
        clauses.append(spoken.decode().strip())
    letters = ", ".join(clause for clause in clauses if clause)
    for symbol, letter in _LETTERS:
        letters = letters.replace(symbol, letter)
    return letters + "."


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
