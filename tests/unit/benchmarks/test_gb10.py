"""docs/how-to/gpu.md is in step with the profile and the sizes."""

from __future__ import annotations

import pytest

from benchmarks import gb10
from heartvoice.config.presets import PRESETS
from heartvoice.server.profiles import GB10

TEXT = gb10.DOC.read_text(encoding="utf-8")
OFFICIAL = PRESETS["oss-3b"]


def test_doc_has_the_profiles_settings() -> None:
    assert gb10.filled(TEXT, {"settings": gb10.settings_table(GB10)}) == TEXT


def test_times_of_the_language_model_are_bound_by_its_bytes() -> None:
    work = next(iter(gb10.song_work(OFFICIAL, 30.0)))
    assert work.bf16_s == work.fp32_s
    assert work.bf16_s == pytest.approx(375 * 10.64e9 / gb10.BANDWIDTH, rel=0.01)


def test_table_without_its_mark_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected one table times, found 0"):
        gb10.filled("<!-- table: memory -->\n<!-- end -->", {"times": ""})
