"""Attribution: what it names, what it never repeats, and its place in tags."""

from __future__ import annotations

from typing import Any

import pytest

from heartvoice.contracts.attribution import COVER, SONG, STEMS, attribution, credits_of, with_credits, without_credits
from heartvoice.contracts.messages import Report, StemsReport
from heartvoice.contracts.provenance import GENERATED, Tags

FACTS: dict[str, Any] = {
    "heartvoice": "1.2.3", "seed": 7, "preset": "oss-3b", "random_weights": False, "sources": ["drums"], "warnings": [],
    "networks": {
        "lm": "official", "codec": "official", "svc_cfm": "official", "svc_style": "random seed=0",
        "speaker": "Resemblyzer 0.1.4 (PyPI)", "f0": "official",
    },
    "models": {"lm": "HeartMuLa-oss-3B", "codec": "HeartCodec-oss", "svc_cfm": "Seed-VC"},
    "licences": {"lm": "Apache-2.0", "codec": "Apache-2.0", "svc_cfm": "GPL-3.0", "speaker": "Apache-2.0"},
    "lyrics": "my secret words", "voice_consent": "my own voice, J. Doe", "voice_sha256": "ab" * 32,
}  # fmt: skip
MODELS = (
    "Models: HeartMuLa-oss-3B (language model; Apache-2.0); HeartCodec-oss (codec; Apache-2.0); "
    "Resemblyzer 0.1.4 (PyPI) (speaker encoder; Apache-2.0); official (F0; licence not stated); "
    "Seed-VC (converter; GPL-3.0); random weights (style encoder)."
)


@pytest.mark.parametrize(
    ("made", "more", "what", "voice"),
    [
        (SONG, {}, "AI-generated song, made with heartvoice 1.2.3.", ""),
        (
            SONG, {"converted": True},
            "AI-generated song, made with heartvoice 1.2.3.", " Voice: a reference, by consent.",
        ),
        (
            COVER, {"converted": True, "voice_consent": "consent record consent_aB-1"},
            "AI-generated singing in place of a recording's, made with heartvoice 1.2.3.",
            " Voice: a reference, by consent record consent_aB-1.",
        ),
        (
            COVER, {"converted": True, "consent_record": "consent_2"},
            "AI-generated singing in place of a recording's, made with heartvoice 1.2.3.",
            " Voice: a reference, by consent record consent_2.",
        ),
        (
            COVER, {"converted": False},
            "Recording as it was, passed through heartvoice 1.2.3; nothing in it was generated.", "",
        ),
        (STEMS, {}, "Stems of a recording, separated with heartvoice 1.2.3.", ""),
    ],
)  # fmt: skip
def test_it_names_what_was_made_by_what_and_whose_voice(made: str, more: dict[str, Any], what: str, voice: str) -> None:
    text = attribution(FACTS | more, made)
    assert text == f"{what} {MODELS}{voice}"
    assert not [secret for secret in ("secret", "Doe", "abab") if secret in text]


def test_comment_tags_end_with_it_and_give_it_back() -> None:
    text = attribution(FACTS, SONG)
    song = Report.from_raw(FACTS | {"attribution": text, "converted": False})
    stems = StemsReport.from_raw(FACTS | {"attribution": text})
    origin = Tags(f"{GENERATED}; another", "A title")
    for comment in (
        song.comment,
        song.tags(origin).comment,
        song.stem_tags("vocals", origin).comment,
        stems.stem_tags("drums", origin).comment,
    ):
        assert credits_of(comment) == text
        assert with_credits(without_credits(comment), text) == comment
    assert without_credits(song.comment).endswith("seed 7")
    assert song.stem_tags("vocals", origin).comment.count(text) == 1
    plain = Report.from_raw(FACTS)
    assert (credits_of(plain.comment), plain.attribution) == ("", "")


def test_a_recording_that_was_not_converted_is_not_called_generated() -> None:
    raw = FACTS | {"converted": False, "attribution": attribution(FACTS | {"converted": False}, COVER)}
    assert GENERATED not in Report.from_raw_voice(raw, recorded=True).comment
    assert GENERATED not in attribution(FACTS, STEMS)
