"""Words into atoms: alignment of renderings, syllables, clusters; and the committed spellings."""

from __future__ import annotations

import numpy as np

from train.demo import atoms, layout, tables, words
from train.demo.analysis import N_BANDS, SpokenWord, on_grid


def _spoken(word: str, rows: list[int], tilt: float = 0.0) -> SpokenWord:
    """Make a word of sounds 0 (quiet noise), 1 and 2 (vowels), one row each."""
    sounds = np.array(rows)
    bands = np.linspace(0, 1, N_BANDS)
    envelope = -3.0 * (sounds[:, None] == 0) + np.cos(4 * bands * sounds[:, None]) * 3 + tilt * bands
    voiced = sounds > 0
    n_letters = len(words.sounds(word))
    return SpokenWord(
        word, envelope, np.where(voiced[:, None], 0.1, 1.0) * np.ones(N_BANDS), voiced,
        np.where(voiced, 0.0, -30.0), np.linspace(0, len(rows), n_letters + 1),
    )  # fmt: skip


def test_the_path_follows_a_slower_rendering() -> None:
    slow, fast = np.repeat([0, 1, 2, 1], 6), np.repeat([0, 1, 2, 1], 3)
    path = atoms.warping_path(np.abs(slow[:, None] - fast[None]).astype(float))
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [23, 11]
    assert (np.diff(path, axis=0) >= 0).all()
    assert np.array_equal(slow[path[:, 0]], fast[path[:, 1]])


def test_renderings_of_other_speed_share_their_slots() -> None:
    one = _spoken("river", [0] * 10 + [1] * 30 + [0] * 10 + [2] * 30 + [0] * 8)
    other = _spoken("river", [0] * 20 + [1] * 20 + [0] * 16 + [2] * 40 + [0] * 4, tilt=2.0)
    slots = atoms.cut([one, other], [one.envelope.mean(0), other.envelope.mean(0)], stretch=1.3)
    voiced = slots.noise.mean(axis=2) < 0.5
    assert len(voiced) == round(88 * 0.005 * 1.3 / 0.04)
    assert np.array_equal(voiced[:, 0], voiced[:, 1])
    (start, first, held, last, end), (start2, first2, held2, last2, end2) = slots.syllables
    assert (start, end, end2) == (0, start2, len(voiced))
    assert voiced[first:last, 0].all()
    assert voiced[[held, held2], 0].all()
    assert start <= first <= held < last <= end
    assert start2 <= first2 <= held2 < last2 <= end2


def test_clusters_keep_silence_apart_and_every_word_is_spelled() -> None:
    rng = np.random.default_rng(0)
    singer = {word: _spoken(word, np.repeat(rng.integers(0, 3, 12), 6).tolist()) for word in words.phonemes()}
    voices, spelled = atoms.build([singer, singer], atoms.Options(n_atoms=20, rounds=1))
    assert voices.envelope.shape == voices.noise.shape == (2, 42, N_BANDS)
    halves = voices.envelope.reshape(2, 2, 21, N_BANDS)
    assert spelled.keys() == words.phonemes().keys()
    used = [atom for each in spelled.values() for s in each for atom in (*s.onset, *s.nucleus, *s.coda)]
    for half in (0, 1):
        ids = {atom[half] for atom in used}
        assert ids == set(range(1, len(ids) + 1))
        assert 10 < len(ids) <= 20
        assert halves[:, half, 0].max() < halves[:, half, sorted(ids)].min()


def test_a_grid_keeps_a_flat_spectrum_flat() -> None:
    np.testing.assert_allclose(on_grid(np.full((2, 513), 3.0)), 3.0)


def test_the_committed_spelling_has_every_word_in_atoms_that_there_are() -> None:
    spellings = tables.spellings()
    assert spellings.keys() == words.phonemes().keys()
    for word, syllables in spellings.items():
        assert len(syllables) == len(words.syllables(word))
        for syllable in syllables:
            assert 0 <= syllable.held < len(syllable.nucleus)
            for atom in (*syllable.onset, *syllable.nucleus, *syllable.coda):
                assert all(0 < number < layout.N_ATOMS for number in atom)
    voices, band = tables.sounds()
    assert voices.envelope.shape[:2] == (len(layout.SINGERS), layout.N_SOUNDS)
    assert set(band.drums) == set(layout.DRUMS)


def test_the_committed_sounds_are_shares_and_finite_amplitudes() -> None:
    voices, band = tables.sounds()
    before = tables.hashes()
    assert set(before) == {"spelling.json", "sounds.npz"}
    assert voices.noise.min() >= 0
    assert voices.noise.max() <= 1
    assert all(np.isfinite(rows).all() for rows in band.notes.values())
