"""Every id of every codebook means one thing."""

from __future__ import annotations

import pytest

from train.demo import layout

READERS = {
    layout.CURSOR: (layout.read_cursor, layout.cursor_id),
    layout.CLOCK: (layout.read_clock, layout.clock_id),
    layout.NOTE: (layout.read_note, layout.note_id),
    layout.LEAD: (layout.read_lead, layout.lead_id),
    layout.CHORD: (layout.read_chord, layout.chord_id),
    layout.LOW: (layout.read_low, layout.low_id),
}


@pytest.mark.parametrize("book", READERS)
def test_what_an_id_means_has_that_id_and_no_other(book: int) -> None:
    read, write = READERS[book]
    size = layout.CLOCKS if book == layout.CLOCK else layout.SIZES[book]
    meanings = [read(code) for code in range(size)]
    assert len(set(meanings)) == size
    assert [write(meaning) for meaning in meanings] == list(range(size))  # type: ignore[operator]


def test_the_clock_s_ids_have_their_meanings_twice() -> None:
    clocks = [layout.read_clock(code) for code in range(layout.SIZES[layout.CLOCK])]
    assert clocks[: layout.CLOCKS] == clocks[layout.CLOCKS :]


@pytest.mark.parametrize("book", READERS)
def test_ids_outside_a_book_mean_nothing(book: int) -> None:
    read, _ = READERS[book]
    nothing = layout.Low(-1, 0, 0) if book == layout.LOW else None
    assert [read(code) for code in (-1, layout.SIZES[book], layout.CODEBOOK_SIZE + 7)] == [nothing] * 3


def test_all_books_fit_into_the_codebook() -> None:
    assert len(layout.SIZES) == layout.N_BOOKS
    assert max(layout.SIZES) == layout.CODEBOOK_SIZE <= 1024
