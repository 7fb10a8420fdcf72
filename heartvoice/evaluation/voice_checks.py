"""The checks of an enrolment: a person speaks, says the words of the consent, and is the voice of the references.

Thresholds of similarity are those of equal error between spoken lines of different synthetic voices, measured by
`benchmarks/speaker_judges.py`: of 132 pairs of different voices none came above, of 12 of one voice none below. They
are above 99 % of the pairs of different recordings, too; about half of the pairs of one recorded voice are below. Below
the threshold of equal error of spoken against sung lines they are two voices (1.9 and 0.8 % of both errors). What lies
between is left to the operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.audio.encode import source_tags
from heartvoice.audio.recordings import Recording, Voice, read_voice
from heartvoice.contracts.constants import SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.errors import InvalidRequestError
from heartvoice.evaluation.lyric_text import words
from heartvoice.evaluation.lyrics import lyric_error
from heartvoice.evaluation.similarity import DEFAULT_JUDGES, Verdict, decide
from heartvoice.evaluation.speech import speech_seconds
from heartvoice.evaluation.transcriber import Transcriber
from heartvoice.runtime.engines import Engine
from heartvoice.stages.calibration import CALIBRATIONS
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.reference import ReferenceCheck
from heartvoice.stages.speaker import SpeakerStage
from heartvoice.voices.records import Consent, Examination, Finding
from heartvoice.watermark import Evidence

Samples = NDArray[np.float32]

SAME_ABOVE = {"resemblyzer": 0.885, "campplus": 0.818}
"""Cosines from which a phrase and a reference are one voice, by judge."""
MIN_SPEECH_S = 5.0
"""Of the phrase, whose shortest text takes 8 s."""
LEAST_WORDS = 5
"""Of the six words, in their order."""
MOST_ERROR = 0.25
"""Wrong words of the whole text, over its words."""


@dataclass(frozen=True)
class VoiceChecks:
    """What examines recordings; see `heartvoice.voices.limits.Checks`."""

    speech: Engine
    """Of silero-vad."""
    f0: F0Stage
    speakers: Mapping[str, SpeakerStage]
    """Judges by engine."""
    transcriber: Transcriber | None
    origins: Mapping[str, str] = field(default_factory=dict)
    """Sha256 of each network's published file, by name."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why a judge could not be had, by name."""
    mark_key: bytes | None = field(default=None, repr=False)
    """Of the operator's watermark; None looks for none."""
    allow_marked: bool = False
    """Leave a recording with that mark to the operator, in place of refusing it."""

    def examine(self, consent: Consent, phrase: bytes, references: Sequence[bytes]) -> Examination:
        """Check recordings against a consent; see `Checks.examine`."""
        files = {"phrase": phrase}
        for number, each in enumerate(references, 1):
            files["reference" if len(references) == 1 else f"reference {number}"] = each
        voices = {name: _read(name, each) for name, each in files.items()}
        audio = {name: resample(each.audio44, STEM_RATE_HZ, SPEECH_RATE_HZ) for name, each in voices.items()}
        words_found, transcript = self.hear_words(consent, audio["phrase"])
        findings = [self._speech(audio["phrase"]), words_found]
        findings += [_made_by_nobody(name, file) for name, file in files.items()]
        if self.mark_key is not None:
            findings += [self._not_marked(name, each.audio, self.mark_key) for name, each in voices.items()]
        findings += [self._one_speaker(name, each) for name, each in audio.items()]
        findings += [
            self._same_speaker(name, audio["phrase"], each) for name, each in audio.items() if name != "phrase"
        ]
        return Examination(tuple(findings), transcript)

    def _speech(self, phrase: Samples) -> Finding:
        seconds = speech_seconds(self.speech, phrase)
        detail = f"{seconds:.1f} s of speech in the phrase, expected at least {MIN_SPEECH_S:g} s"
        return Finding("speech", seconds >= MIN_SPEECH_S, detail, self._by("silero-vad", {"speech_s": seconds}))

    def hear_words(self, consent: Consent, phrase: Samples) -> tuple[Finding, str]:
        """Compare what is said in [N] at 16 kHz with the text of a consent; return also what was heard."""
        if self.transcriber is None or consent.locale not in self.transcriber.languages:
            why = self.missing.get("whisper", f"nothing here hears words in {consent.locale!r}")
            return Finding("words", None, f"not checked: {why}", {}), ""
        heard = " ".join(each.text for each in self.transcriber.hear(phrase, consent.locale) if each.has_words)
        n_said, error = compare_words(consent, heard)
        detail = (
            f"{n_said} of the {len(consent.words)} words were heard in their order, expected {LEAST_WORDS}; "
            f"{error:.0%} of the text was heard otherwise, expected at most {MOST_ERROR:.0%}"
        )
        facts = self._by("whisper", {"words_in_order": n_said, "error": round(error, 4)})
        return Finding("words", said_enough(n_said, error), detail, facts), heard

    def _not_marked(self, name: str, recording: Recording, key: bytes) -> Finding:
        """Look for the operator's own mark, as served jobs do with a reference, and at other speeds, too."""
        found = Evidence(recording.audio, recording.sample_rate_hz).detect(key)
        facts = {"recording": name, "score": round(found.score, 2), "score_from": round(found.threshold, 2)}
        if not found.found:
            return Finding("not marked", True, f"{name}: no watermark of the key was found", facts)
        detail = f"{name}: generated here: it carries our watermark"
        return Finding("not marked", None if self.allow_marked else False, detail, facts)

    def _one_speaker(self, name: str, audio: Samples) -> Finding:
        """Look for a second voice, and for music behind the voice."""
        check = ReferenceCheck(audio, "strict", field=name)
        try:
            check.hear(self.f0.track)
            check.compare({engine: stage.embed for engine, stage in self.speakers.items()})
        except InvalidRequestError as error:
            return Finding("one speaker", False, str(error), {"recording": name, **check.facts})
        doubts = "; ".join(check.warnings)
        return Finding(
            "one speaker", None if doubts else True, doubts or f"{name}: one voice alone",
            {"recording": name, **check.facts},
        )  # fmt: skip

    def _same_speaker(self, name: str, phrase: Samples, reference: Samples) -> Finding:
        """Let the judges decide whether phrase and reference are one voice: two have to say so."""
        verdicts: dict[str, Verdict] = {}
        facts: dict[str, Any] = {"recording": name, "judges": {}}
        for engine, least in SAME_ABOVE.items():
            if engine not in self.speakers:
                continue
            cosine = float(self.speakers[engine].embed(phrase) @ self.speakers[engine].embed(reference))
            verdicts[engine] = spoken_verdict(engine, cosine)
            facts["judges"][engine] = self._by(engine, {"cosine": round(cosine, 4), "same_from": least})
        decision = decide(verdicts, {engine: self.missing.get(engine, "not asked") for engine in DEFAULT_JUDGES})
        passed = {"same": True, "different": False, "undecided": None}[decision.verdict]
        if passed and decision.missing:
            passed = None
        detail = f"the voices of phrase and {name}: {decision.text}"
        return Finding("same speaker", passed, detail, facts)

    def _by(self, judge: str, facts: dict[str, Any]) -> dict[str, Any]:
        return facts | ({"judge_sha256": self.origins[judge]} if judge in self.origins else {})


def spoken_verdict(engine: str, cosine: float) -> Verdict:
    """Decide on a spoken phrase and a reference, which may be sung: whoever is in doubt is undecided."""
    if cosine >= SAME_ABOVE[engine]:
        return "same"
    return "different" if cosine < CALIBRATIONS[engine].equal_errors[-1].threshold else "undecided"


def compare_words(consent: Consent, heard: str) -> tuple[int, float]:
    """Return how many of a consent's words were heard in their order, and the share of the text heard otherwise."""
    from rapidfuzz.distance import LCSseq

    said, wanted = words(heard, consent.locale), words(consent.text, consent.locale)
    chosen = ["".join(words(each, consent.locale)) for each in consent.words]
    return LCSseq.similarity(chosen, said), lyric_error(wanted, said, heard).error


def said_enough(n_said: int, error: float) -> bool:
    """Return True if what `compare_words` found is the text of the consent."""
    return n_said >= LEAST_WORDS and error <= MOST_ERROR


def _made_by_nobody(name: str, file: bytes) -> Finding:
    """Refuse a recording whose own tag says that a machine made it: no clone of a clone."""
    marked = bool(source_tags(file).comment)
    said = "says of itself that it is AI-generated" if marked else "does not say that it is AI-generated"
    return Finding("not generated", not marked, f"{name}: its tag {said}", {"recording": name})


def _read(field: str, file: bytes) -> Voice:
    """Decode a recording by the rules of references."""
    sent: Array = np.array([file], dtype=object)
    try:
        return read_voice({"voice": sent})
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{field}: {str(error).removeprefix('voice: ')}") from None
