"""Lyrics and transcripts as comparable words: without section marks, case and punctuation, numbers as words."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from heartvoice.contracts.texts import canonical_lyrics, without_section_marks

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

CHARACTER_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
"""Languages written without blanks between words: their units are characters."""
SURE = 0.95
"""Least probability of a text's language; below it the language is unclear."""
_SAME_LANGUAGE = {"nb": "no", "jv": "jw"}
"""Codes of the identifier that Whisper calls otherwise."""
_LONGEST_NUMBER = 7
"""Digits of a number that is read as one; a longer one is read digit by digit, like a telephone number."""
_NUMBER = re.compile(r"(\$?)(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d+))?(st|nd|rd|th|s)?(?![^\W_])", re.ASCII | re.IGNORECASE)
_APOSTROPHES = re.compile("['\u2018\u2019\u02bc\u0060\u00b4]")
_DROPPED_G = re.compile(r"(?<=[a-z]in)['\u2018\u2019\u02bc](?![a-z])")
"""The apostrophe of `runnin'`."""
_SPELLINGS = (
    (re.compile(r"(?<=[a-z]{2})our(?=(s|ed|ing|ful|less|ite|ites)?\b)"), "or"),
    (re.compile(r"(?<=[a-z]{3})is(?=(e|es|ed|er|ing)\b)"), "iz"),
    (re.compile(r"(?<=[a-z]{2})tre(?=s?\b)"), "ter"),
    (re.compile(r"\bgrey"), "gray"),
)
"""British spellings and what they become, on both sides; `promise` becomes `promize` on both and stays equal."""
_SPOKEN_SIGNS = {"&": " and ", "%": " percent ", "+": " plus "}


def lyric_words(lyrics: str, language: str) -> list[str]:
    """Return the words that a singer of the lyrics sings; see `words`."""
    return words(without_section_marks(canonical_lyrics(lyrics)), language)


def words(text: str, language: str) -> list[str]:
    """Return the comparable units of a text: words, or characters of `CHARACTER_LANGUAGES`.

    Case, punctuation and apostrophes are gone and numbers are words, as far as the language's are known. English loses
    its few accents, too, and its two spellings; `runnin'` becomes `running`.

    Args:
        text: any text.
        language: ISO 639-1 code.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    if language == "en":
        text = _DROPPED_G.sub("g", text)
        for sign, spoken in _SPOKEN_SIGNS.items():
            text = text.replace(sign, spoken)
        text = "".join(each for each in unicodedata.normalize("NFD", text) if unicodedata.category(each) != "Mn")
    text = _NUMBER.sub(lambda found: f" {_spoken(found, language)} ", text).lower()
    text = _APOSTROPHES.sub("", text)
    for spelling, other in _SPELLINGS if language == "en" else ():
        text = spelling.sub(other, text)
    kept = "".join(each if unicodedata.category(each)[0] in "LNM" else " " for each in text)
    if language in CHARACTER_LANGUAGES:
        return list("".join(kept.split()))
    return kept.split()


def language_of(lyrics: str) -> str | None:
    """Return the language of lyrics as ISO 639-1 code; None if it is unclear, as that of `la la la` is."""
    text = without_section_marks(canonical_lyrics(lyrics))
    code, probability = _identifier().classify(text)
    return _SAME_LANGUAGE.get(code, code) if probability >= SURE else None


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_pickled_model(MODEL_FILE, norm_probs=True)


def _spoken(found: re.Match[str], language: str) -> str:
    """Return a number as it is spoken; as it was written in a language whose numbers are not known."""
    from num2words import num2words

    dollars, whole, decimals, suffix = found.groups()
    digits, suffix = whole.replace(",", ""), (suffix or "").lower()
    try:
        if len(digits) > _LONGEST_NUMBER or (digits.startswith("0") and len(digits) > 1):
            spoken = " ".join(num2words(int(digit), lang=language) for digit in digits)
        elif decimals:
            spoken = num2words(float(f"{digits}.{decimals[:_LONGEST_NUMBER]}"), lang=language)
        elif language == "en" and suffix in ("st", "nd", "rd", "th"):
            return str(num2words(int(digits), to="ordinal"))
        elif language == "en" and whole == digits and 1100 <= int(digits) < 2100:
            spoken = num2words(int(digits), to="year")
        else:
            spoken = num2words(int(digits), lang=language)
    except NotImplementedError:
        return found[0]
    if suffix == "s":  # the 80s
        spoken = f"{spoken[:-1]}ies" if spoken.endswith("y") else f"{spoken}s"
    elif suffix:
        spoken = f"{spoken} {suffix}"
    return f"{spoken} dollars" if dollars and language == "en" else spoken
