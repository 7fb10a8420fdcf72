"""English words into Kokoro's phoneme letters.

eSpeak NG (the wheel espeakng-loader) gives American IPA with ties, which are turned into Kokoro's letters. It is under
the GPL and only a tool: what it says is stored in files, from which lines are spoken without it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import espeakng_loader

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
