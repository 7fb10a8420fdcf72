"""Defects that the gate must find, seeded into any system: at its orders, at what it makes, or in its graphs."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from heartvoice.audio.dsp import resample
from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.contracts.messages import Audio
from heartvoice.evaluation.gate.signals import seams
from heartvoice.evaluation.gate.world import CoverOrder, MadeCover, MadeSong, Maker, SongOrder
from heartvoice.runtime.repository import GRAPH, INDEX, MANIFEST, sha256
from train.demo.crops import without

Change = Callable[[Maker], Maker]
SWAPPED_BOOKS = (5, 6)
SHIFT_S = 0.02
PITCH_CENTS = 30.0
TEMPERATURE = 3.0
OVERDRIVE = 4.0
DROPPED = frozenset({"bass"})
LATENT_TYPE = TensorProto.FLOAT8E5M2
"""Floats of 8 bits, two of them for the mantissa."""


@dataclass(frozen=True)
class Through:
    """A system behind which nothing is changed; defects derive from it."""

    inner: Maker

    def sing(self, order: SongOrder) -> MadeSong:
        return self.inner.sing(order)

    def cover(self, order: CoverOrder) -> MadeCover:
        return self.inner.cover(order)


class _OtherCodes(Through, ABC):
    """Decodes other codes than those of the song."""

    def sing(self, order: SongOrder) -> MadeSong:
        codes = self.inner.sing(order).codes if order.codes is None else order.codes
        return replace(self.inner.sing(replace(order, codes=self.changed(codes))), codes=codes)

    @abstractmethod
    def changed(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the codes that are decoded, [8, T]."""


class CodebookSwapped(_OtherCodes):
    """The codec reads two books in each other's place."""

    def changed(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        made = codes.copy()
        made[list(SWAPPED_BOOKS)] = codes[list(SWAPPED_BOOKS[::-1])]
        return made


class StemDropped(_OtherCodes):
    """The bass is missing in songs, the instrumental in covers."""

    def changed(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        return without(codes.astype(np.int64), DROPPED).astype(np.int32)

    def cover(self, order: CoverOrder) -> MadeCover:
        made = self.inner.cover(order)
        return replace(made, audio=made.vocals)


class WindowShifted(Through):
    """The second codec window of a song is 20 ms late."""

    def sing(self, order: SongOrder) -> MadeSong:
        made = self.inner.sing(order)
        start, *others = seams(made.codes.shape[1], order.settings["codec_window"])
        window = slice(start, others[0] if others else None)
        audio = made.audio.copy()
        audio[:, window] = np.roll(made.audio[:, window], round(SHIFT_S * SAMPLE_RATE_HZ), axis=1)
        return replace(made, audio=audio)


class PitchRaised(Through):
    """The voice of songs and covers is 30 cents too high."""

    def sing(self, order: SongOrder) -> MadeSong:
        made = self.inner.sing(order)
        return replace(made, audio=_raised(made.audio))

    def cover(self, order: CoverOrder) -> MadeCover:
        made = self.inner.cover(order)
        vocals = _raised(made.vocals)
        return replace(made, vocals=vocals, audio=made.audio - made.vocals + vocals)


def _raised(audio: Audio) -> Audio:
    """Play [2, N] faster, a second at a time: the pitch rises, and the rhythm stays within 20 ms."""
    ratio = 2 ** (PITCH_CENTS / 1200)
    slower = round(SAMPLE_RATE_HZ / ratio)
    return np.concatenate([_faster(part, slower) for part in _seconds(audio)], axis=1)


def _faster(part: Audio, rate_hz: int) -> Audio:
    made = resample(np.ascontiguousarray(part), SAMPLE_RATE_HZ, rate_hz)
    return np.pad(made, ((0, 0), (0, part.shape[1] - made.shape[1])), mode="wrap")


def _seconds(audio: Audio) -> Iterator[Audio]:
    for start in range(0, audio.shape[1], SAMPLE_RATE_HZ):
        yield audio[:, start : start + SAMPLE_RATE_HZ]


class HotLanguageModel(Through):
    """The language model draws its codes at temperature 3."""

    def sing(self, order: SongOrder) -> MadeSong:
        return self.inner.sing(replace(order, settings={**order.settings, "temperature": TEMPERATURE}))


@dataclass(frozen=True)
class WrongLyrics(Through):
    """Other words are sung than were asked for."""

    lyrics: str

    def sing(self, order: SongOrder) -> MadeSong:
        return self.inner.sing(replace(order, lyrics=self.lyrics) if order.codes is None else order)


class MixClipped(Through):
    """Songs and covers are overdriven by 12 dB, clipped, and turned down again."""

    def sing(self, order: SongOrder) -> MadeSong:
        made = self.inner.sing(order)
        return replace(made, audio=_clipped(made.audio))

    def cover(self, order: CoverOrder) -> MadeCover:
        made = self.inner.cover(order)
        return replace(made, audio=_clipped(made.audio))


def _clipped(audio: Audio) -> Audio:
    limit = float(np.abs(audio).max()) / OVERDRIVE
    return np.clip(audio, -limit, limit)


class WrongVoice(Through):
    """Covers get the voice of the recording's own singer for reference."""

    def cover(self, order: CoverOrder) -> MadeCover:
        return self.inner.cover(replace(order, reference=order.recording.mean(axis=0)))


# --------------------------------------------------------------------------------------------------------------- graphs


def zero_layer(root: Path) -> None:
    """Zero the middle convolution of a repository's decoder."""

    def change(graph: onnx.GraphProto) -> None:
        weights = {tensor.name: tensor for tensor in graph.initializer}
        used = [node.input[1] for node in graph.node if node.op_type == "Conv" and node.input[1] in weights]
        tensor = weights[used[len(used) // 2]]
        tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))

    _change(root, "heartcodec_decoder", change)


def cut_latents(root: Path) -> None:
    """Keep the latents that a repository's decoder gets in 8 bits."""

    def change(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == "latents":
                    node.input[place] = "latents of 8 bits"
        graph.node.insert(0, helper.make_node("Cast", ["latents"], ["cut"], to=LATENT_TYPE))
        graph.node.insert(1, helper.make_node("Cast", ["cut"], ["latents of 8 bits"], to=TensorProto.FLOAT))

    _change(root, "heartcodec_decoder", change)


def _change(root: Path, model: str, change: Callable[[onnx.GraphProto], None]) -> None:
    """Change a graph of an exported repository, and its hashes."""
    path, manifest_path, index_path = root / model / GRAPH, root / model / MANIFEST, root / INDEX
    graph = onnx.load(path)
    change(graph.graph)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    manifest, index = (json.loads(each.read_text()) for each in (manifest_path, index_path))
    manifest["files"] = {path.name: {"sha256": sha256(path), "bytes": path.stat().st_size}}
    index["graphs"][model]["sha256"] = manifest["files"][path.name]["sha256"]
    manifest_path.write_text(json.dumps(manifest))
    index_path.write_text(json.dumps(index))


def of_systems(other_lyrics: str) -> dict[str, Change]:
    """Name the defects of systems; one of them has `other_lyrics` sung."""
    return {
        "codebook swapped": CodebookSwapped,
        "window shifted": WindowShifted,
        "pitch raised": PitchRaised,
        "hot language model": HotLanguageModel,
        "wrong lyrics": lambda maker: WrongLyrics(maker, other_lyrics),
        "mix clipped": MixClipped,
        "stem dropped": StemDropped,
        "wrong voice": WrongVoice,
    }


OF_GRAPHS: dict[str, Callable[[Path], None]] = {"decoder layer zeroed": zero_layer, "8-bit latents": cut_latents}
