"""What the converter's reports on one song come to."""

from __future__ import annotations

from heartvoice.contracts.constants import AUTO_PITCH_DOES, AUTO_PITCH_MODES
from heartvoice.stages.svc.report import ConversionReports


def after(*shifts: float, mode: str = "semitone") -> ConversionReports:
    reports = ConversionReports()
    for windows, shift in enumerate(shifts, 1):
        reports.add(None)
        reports.add(
            {
                "windows": windows, "auto_pitch": mode, "shift_semitones": shift, "auto_shift_semitones": shift,
                "keeps_key": shift % 12 == 0, "warnings": [f"pitch: {shift}"],
            }
        )  # fmt: skip
    return reports


def test_one_shift_is_what_was_done() -> None:
    for mode in AUTO_PITCH_MODES:
        done = after(12.0, mode=mode).pitch()
        assert (done["auto_pitch"], done["does"]) == (mode, AUTO_PITCH_DOES[mode])
        assert (done["shift_semitones"], done["auto_shift_semitones"], done["keeps_key"]) == (12.0, 12.0, True)
        assert "shifts_semitones" not in done


def test_shifts_that_moved_are_all_told_and_each_may_leave_the_key() -> None:
    done = after(0.0, 0.0, 5.0, 12.0, 12.0).pitch()
    assert (done["shift_semitones"], done["shifts_semitones"]) == (12.0, [0.0, 5.0, 12.0])
    assert done["keeps_key"] is False
    assert after(0.0, 12.0).pitch()["keeps_key"] is True


def test_the_last_warnings_are_the_songs() -> None:
    assert after(0.0, 5.0).warnings == ["pitch: 5.0"]


def test_a_converter_that_does_not_say_has_done_nothing_to_tell() -> None:
    reports = ConversionReports()
    reports.add({"engine": "identity"})
    assert (reports.pitch(), reports.warnings, reports.last) == ({}, [], {"engine": "identity"})
