"""Atoms of 40 ms: the sounds of all words, aligned between the singers and joined into one set of clusters.

An atom is a row of envelopes, one for each singer. Each word of the vocabulary is a fixed row of atoms, the same for
all singers: their renderings of the word are aligned in time, and what they have at one place is clustered together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from train.demo import words
from train.demo.analysis import BANDS_HZ, STEP_S, SpokenWord
from train.demo.compose import usual_half_beats
from train.demo.grammar import training_lyrics
from train.demo.layout import FRAME_HZ, TEMPI
from train.demo.spelling import fill
from train.demo.tables import Syllable
from train.demo.voice import VoiceTables

Wave = NDArray[np.float64]

ATOM_S = 1 / FRAME_HZ / 2
FLOOR = 55.0 * np.log(10) / 10
"""Depth of what is heard of an atom: 55 dB under the loudest band of its singer."""
LEVEL = 0.1
"""Root mean square of a loud vowel."""
_SILENT = -25.0
_COMPRESSED = -25.0 * np.log(10) / 10
"""25 dB under a word's loudest sounds."""
_NOISE_WEIGHT, _VOICE_WEIGHT = 1.5, 4.0
_N_LYRICS = 2000
_RARE = 1e-3
"""Weight of what no usual note has."""
_AXES = 48


Place = tuple[int, int, int, int, int]
"""Of a syllable: first slot, first of the vowel, the held one, first after the vowel, end."""


@dataclass(frozen=True)
class Options:
    """How words become atoms."""

    n_atoms: int = 1023
    """Number of clusters for either half of a frame."""
    stretch: float = 1.6
    """How much slower than speech words are spelled."""
    compression: float = 0.5
    """Differences of level above `_COMPRESSED` count so much: sung sounds are steadier, and quiet ones are heard."""
    rounds: int = 4
    """How often the other singers are aligned anew, to the clusters' means."""
    seed: int = 2


@dataclass(frozen=True)
class Slots:
    """A word in slots of 40 ms."""

    word: str
    envelope: Wave
    """[slot, singer, D]."""
    noise: Wave
    """[slot, singer, D]; 1 where there is no voice."""
    syllables: tuple[Place, ...]
    places: tuple[Wave, ...]
    """Of each singer: the row of every slot."""


def build(
    singers: Sequence[Mapping[str, SpokenWord]], options: Options
) -> tuple[VoiceTables, dict[str, tuple[Syllable, ...]]]:
    """Join the singers' words into atoms.

    Args:
        singers: words of each, the same vocabulary for all; the first one's times are those of the spelling.
        options: number of atoms, and more.

    Returns:
        The envelopes of every atom, 0 = silence, and the spelling of every word.
    """
    levelled = [_levelled(singer, options.compression) for singer in singers]
    means = [np.mean(np.concatenate([w.envelope[w.voiced] for w in s.values()]), axis=0) for s in levelled]
    renderings = {word: [singer[word] for singer in levelled] for word in words.phonemes()}
    slots = [cut(each, means, options.stretch) for each in renderings.values()]
    weights = _weights(slots)
    labels = _cluster(_features(slots), weights, options, None)
    for _ in range(options.rounds):
        slots = _realigned(slots, list(renderings.values()), labels, weights)
        labels = _cluster(_features(slots), weights, options, labels)
    return _tables(slots, labels, weights, options.n_atoms), _spelled(slots, labels)


def _weights(slots: Sequence[Slots]) -> Wave:
    """How much each slot counts in the first and in the second half of a frame, [slot, 2].

    It is how often notes of the usual lengths have it there, times the square root of how often songs have the word.
    """
    songs = Counter(word for seed in range(_N_LYRICS) for word in training_lyrics(seed).text.split())
    counted = np.full((sum(len(each.envelope) for each in slots), 2), _RARE)
    at = 0
    for each in slots:
        numbers = [(2 * slot, 2 * slot + 1) for slot in range(at, at + len(each.envelope))]
        for start, first, held, last, end in each.syllables:
            syllable = Syllable(
                tuple(numbers[start:first]), tuple(numbers[first:last]), tuple(numbers[last:end]), held - first
            )
            for frames in TEMPI.values():
                for length, share in usual_half_beats(syllable.natural, frames):
                    for number in set(fill(syllable, length * frames)):
                        counted[number // 2, number % 2] += share * np.sqrt(1 + songs[each.word])
        at += len(each.envelope)
    return counted


def _spelled(slots: Sequence[Slots], labels: NDArray[np.intp]) -> dict[str, tuple[Syllable, ...]]:
    spelled, at = {}, 0
    for each in slots:
        n = len(each.envelope)
        atoms = tuple((int(first) + 1, int(second) + 1) for first, second in labels[at : at + n])
        spelled[each.word] = tuple(
            Syllable(atoms[start:first], atoms[first:last], atoms[last:end], held - first)
            for start, first, held, last, end in each.syllables
        )
        at += n
    return spelled


def _levelled(singer: Mapping[str, SpokenWord], share: float) -> dict[str, SpokenWord]:
    """Bring all words of a singer to one level, that of their loudest rows, and quiet rows nearer to it."""
    made = {}
    for name, word in singer.items():
        power = np.log(np.exp(word.envelope).mean(axis=1))
        power -= np.sort(power)[-max(len(power) // 4, 4) :].mean()
        wanted = power - (1 - share) * np.clip(power, _COMPRESSED, 0.0)
        envelope = word.envelope + (wanted - np.log(np.exp(word.envelope).mean(axis=1)))[:, None]
        envelope = np.maximum(envelope, envelope.max() - FLOOR)
        made[name] = replace(word, envelope=envelope)
    return made


def cut(renderings: Sequence[SpokenWord], means: Sequence[Wave], stretch: float) -> Slots:
    """Cut a word of all singers into slots on the time of the first."""
    first = renderings[0]
    n_rows = len(first.envelope)
    n = max(2, len(first.letters), round(n_rows * STEP_S * stretch / ATOM_S))
    centres = (np.arange(n) + 0.5) * n_rows / n
    places = [
        centres if each is first else _aligned(first, means[0], each, mean)(centres)
        for each, mean in zip(renderings, means, strict=True)
    ]
    return _sampled(renderings, places, _syllables(first, n))


def _sampled(renderings: Sequence[SpokenWord], places: Sequence[Wave], syllables: tuple[Place, ...]) -> Slots:
    """Take what each rendering has at the slots' places, in rows."""
    envelope, noise = [], []
    for rendering, at in zip(renderings, places, strict=True):
        rows = np.clip(np.rint(at[:, None] + np.array([-1, 0, 1])).astype(int), 0, len(rendering.envelope) - 1)
        envelope.append(rendering.envelope[rows].mean(axis=1))
        aperiodic = np.where(rendering.voiced[:, None], rendering.noise, 1.0)[rows].mean(axis=1)
        voiced = rendering.voiced[rows].mean(axis=1) > 0.5
        noise.append(np.where(voiced[:, None], aperiodic, 1.0))
    return Slots(renderings[0].word, np.stack(envelope, 1), np.stack(noise, 1), syllables, tuple(places))


def _realigned(
    slots: Sequence[Slots], renderings: Sequence[Sequence[SpokenWord]], labels: NDArray[np.intp], weights: Wave
) -> list[Slots]:
    """Align all singers but the first to the means of the slots' clusters."""
    features = _features(slots)
    wanted = np.zeros_like(features)
    for half in (0, 1):
        share = weights[:, half] / weights.sum(axis=1)
        wanted += share[:, None, None] * _means(features, labels[:, half], weights[:, half])[labels[:, half]]
    made, at = [], 0
    for each, spoken in zip(slots, renderings, strict=True):
        n = len(each.envelope)
        places = [each.places[0]]
        for singer, rendering in enumerate(spoken[1:], 1):
            rows = _row_features(rendering.envelope, np.where(rendering.voiced[:, None], rendering.noise, 1.0))
            path = warping_path(cdist(wanted[at : at + n, singer], rows))
            places.append(np.array([path[path[:, 0] == slot, 1].mean() for slot in range(n)]))
        made.append(_sampled(spoken, places, each.syllables))
        at += n
    return made


def _means(values: Wave, labels: NDArray[np.intp], weights: Wave) -> Wave:
    """Return the weighted mean of each label's values [N, ...]; every label has a member."""
    total = np.zeros((int(labels.max()) + 1, *values.shape[1:]))
    np.add.at(total, labels, values * weights.reshape(-1, *[1] * (values.ndim - 1)))
    return total / np.bincount(labels, weights).reshape(-1, *[1] * (values.ndim - 1))


def _aligned(one: SpokenWord, one_mean: Wave, other: SpokenWord, other_mean: Wave) -> Callable[[Wave], Wave]:
    """Return the map from rows of one rendering to rows of another, by dynamic time warping."""
    cost = cdist(_warp_features(one, one_mean), _warp_features(other, other_mean))
    path = warping_path(cost)
    matched = np.array([path[path[:, 0] == row, 1].mean() for row in range(len(cost))])
    return lambda rows: np.interp(rows, np.arange(len(cost)) + 0.5, matched + 0.5)


def _warp_features(word: SpokenWord, mean: Wave) -> Wave:
    envelope = np.maximum(word.envelope - mean, -8.0)
    coarse = envelope.reshape(len(envelope), 20, -1).mean(axis=2)
    return np.concatenate([coarse, 4.0 * word.voiced[:, None]], axis=1)


def warping_path(cost: Wave) -> NDArray[np.intp]:
    """Return the cheapest monotonous path through a cost matrix [N, M] from corner to corner, [P, 2]."""
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0.0
    for diagonal in range(n + m - 1):
        rows = np.arange(max(0, diagonal - m + 1), min(n, diagonal + 1))
        columns = diagonal - rows
        before = np.minimum(total[rows, columns], np.minimum(total[rows, columns + 1], total[rows + 1, columns]))
        total[rows + 1, columns + 1] = before + cost[rows, columns]
    path = [(n - 1, m - 1)]
    while path[-1] != (0, 0):
        row, column = path[-1]
        steps = ((row - 1, column - 1), (row - 1, column), (row, column - 1))
        path.append(min(steps, key=lambda at: total[at[0] + 1, at[1] + 1]))
    return np.array(path[::-1])


def _syllables(word: SpokenWord, n: int) -> tuple[Place, ...]:
    """Find the syllables of a word in slots by its vowels' loudness, near where the speaker's own times have them."""
    n_rows = len(word.sonority)
    places = [index for index, letter in enumerate(words.sounds(word.word)) if letter in words.NUCLEI]
    peaks: list[int] = []
    for number, place in enumerate(places):
        start, end = word.letters[place], word.letters[place + 1]
        middle = (start + end) / 2
        low = max(int(start) - 8, peaks[-1] + 6 if peaks else 0)
        left = len(places) - number - 1
        high = min(max(int(end) + 8, low + 1), n_rows - 6 * left)
        low = min(low, high - 1)
        rows = np.arange(low, high)
        peaks.append(low + int(np.argmax(word.sonority[low:high] - 0.05 * np.abs(rows - middle))))
    between = [one + 1 + int(np.argmin(word.sonority[one + 1 : other + 1])) for one, other in pairwise(peaks)]
    valleys = [0, *between, n_rows]
    made = []
    edges = [0]
    for number, valley in enumerate(valleys[1:], 1):  # each syllable has a slot
        edges.append(int(np.clip(round(valley * n / n_rows), edges[-1] + 1, n - len(peaks) + number)))
    for number, peak in enumerate(peaks):
        start, end = edges[number], edges[number + 1]
        before = word.sonority[valleys[number] : peak + 1]
        after = word.sonority[peak : valleys[number + 1]]
        first_row = valleys[number] + int(np.argmax(before >= _half(before, word.sonority[peak])))
        last_row = peak + int(np.flatnonzero(after >= _half(after, word.sonority[peak]))[-1]) + 1
        held = int(np.clip(int(peak * n / n_rows), start, end - 1))
        first = int(np.clip(round(first_row * n / n_rows), start, held))
        last = int(np.clip(round(last_row * n / n_rows), held + 1, end))
        made.append((start, first, held, last, end))
    return tuple(made)


def _half(side: Wave, peak: float) -> float:
    return float(max((side.min() + peak) / 2, peak - 12.0)) if len(side) else float(peak)


def _row_features(envelope: Wave, noise: Wave) -> Wave:
    """Return what is compared of rows or slots [..., D]."""
    coarse = envelope.reshape(*envelope.shape[:-1], 40, -1).mean(axis=-1)
    breath = noise.reshape(*noise.shape[:-1], 5, -1).mean(axis=-1)
    voice = (noise[..., :4].mean(axis=-1, keepdims=True) < 0.9).astype(float)
    return np.concatenate([coarse, _NOISE_WEIGHT * breath, _VOICE_WEIGHT * voice], axis=-1)


def _features(slots: Sequence[Slots]) -> Wave:
    """Return the features of all slots, [slot, singer, value]."""
    return np.concatenate([_row_features(each.envelope, each.noise) for each in slots])


def _cluster(features: Wave, weights: Wave, options: Options, before: NDArray[np.intp] | None) -> NDArray[np.intp]:
    """Return the clusters of each slot in either half, [slot, 2], beginning with those before if there are any."""
    flat = features.reshape(len(features), -1)
    flat = flat - flat.mean(axis=0)
    _, _, directions = np.linalg.svd(flat, full_matrices=False)
    projected = flat @ directions[:_AXES].T
    rng = np.random.default_rng(options.seed)
    halves = []
    for half in (0, 1):
        if before is None:
            centres, rounds = _spread(projected, weights[:, half], options.n_atoms, rng), 12
        else:
            centres, rounds = _means(projected, before[:, half], weights[:, half]), 4
        halves.append(_k_means(projected, weights[:, half], centres, rounds))
    return np.stack(halves, axis=1)


def _k_means(points: Wave, weights: Wave, centres: Wave, rounds: int) -> NDArray[np.intp]:
    """Return the cluster of each weighted point; scipy's kmeans2 has no weights. Empty clusters are left out."""
    labels = np.zeros(len(points), np.intp)
    for _ in range(rounds):
        labels = np.unique(cdist(points, centres).argmin(axis=1), return_inverse=True)[1]
        centres = _means(points, labels, weights)
    return labels


def _spread(points: Wave, weights: Wave, n: int, rng: np.random.Generator) -> Wave:
    """Choose n of the points [N, D] far from each other: each by its squared distance to those before (k-means++)."""
    chosen = [int(rng.integers(len(points)))]
    nearest = np.sum((points - points[chosen[0]]) ** 2, axis=1)
    while len(chosen) < n:
        likely = nearest * weights
        chosen.append(int(rng.choice(len(points), p=likely / likely.sum())))
        nearest = np.minimum(nearest, np.sum((points - points[chosen[-1]]) ** 2, axis=1))
    return points[chosen]


def _tables(slots: Sequence[Slots], labels: NDArray[np.intp], weights: Wave, n_atoms: int) -> VoiceTables:
    """Average the members of each cluster; atoms that no word has are silent."""
    envelope = np.concatenate([each.envelope for each in slots])
    noise = np.concatenate([each.noise for each in slots])
    voiced = (noise[:, :, :4].mean(axis=2) < 0.9).astype(float)[:, :, None]
    shape = (envelope.shape[1], 2, n_atoms + 1, envelope.shape[2])
    all_envelopes, all_noise = np.full(shape, _SILENT, np.float32), np.ones(shape, np.float32)
    for half in (0, 1):
        label, weight = labels[:, half], weights[:, half]
        atoms = slice(1, int(label.max()) + 2)
        share = _means(voiced, label, weight)
        breath = _means(noise * voiced, label, weight) / np.maximum(share, 1e-9)
        all_envelopes[:, half, atoms] = (_means(envelope, label, weight) + 2 * np.log(LEVEL)).transpose(1, 0, 2)
        all_noise[:, half, atoms] = np.where(share > 0.5, breath, 1.0).transpose(1, 0, 2)
    rows = (shape[0], 2 * (n_atoms + 1), shape[3])
    return VoiceTables(BANDS_HZ, all_envelopes.reshape(rows), all_noise.reshape(rows))
