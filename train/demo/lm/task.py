"""The training of the demo preset's HeartMuLa: copying words first, then whole songs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from heartvoice.config.presets import DEMO_IDS, DEMO_LM, HeartMuLaConfig
from heartvoice.models.heartmula import HeartMuLa
from train.demo.layout import CHORD, LEAD, N_BOOKS, TEMPI, read_chord, read_lead
from train.demo.lm.attention import fuse
from train.demo.lm.batches import BAR, FIRST, FRAME, IGNORED, Example, batch_of
from train.demo.lm.examples import onsets, opening, random_song, words_alone, world_song
from train.demo.lm.initial import initialise
from train.demo.prompt import generation_ids, tokenizer_json
from train.demo.score import CHOICES, Tags
from train.demo.songs import held_out_song
from train.demo.tables import SPELLING, hashes
from train.frame.task import Group, Moment, Task
from train.frame.weights import json_text, write, write_checkpoint

FOLDER = "HeartMuLa-oss-demo"
COPYING = 0.2
"""Share of the training that copies words alone, before whole songs."""
ONSETS, RANDOM = 0.15, 0.35
"""Shares of the batches after that: words alone of whole songs, and whole songs of random words. The rest sings
sentences."""
OPENINGS: tuple[tuple[float, float, float, int], ...] = ((0.7, 0.65, 0.1, 12), (0.82, 0.2, 0.1, 25))
"""From so far in the training on, these shares of the batches are songs' first frames alone, and their first two bars,
of lyrics with at most so many words: songs have too few beginnings to learn from them which instruments, style and key
tags ask for, and tags are found sooner in short prompts."""
OPENING_ROWS = (6, 2)
"""So many times as many rows have batches of first frames, and of two bars."""
KEEP = 0.3
"""Share of the frames in which nothing begins that the depth decoder learns from."""
MUON, ADAM = 0.012, 1.5e-3
_PAIR = 2
_HELD_OUT = 50
"""Songs of which the first frames are measured."""
_BOOKS = ("word", "clock", "note", "atom_1", "atom_2", "lead", "chord", "low")


class LmTask(Task):
    """HeartMuLa at demo size, on songs that are composed while it learns."""

    name = "lm"

    def __init__(self, sizes: HeartMuLaConfig = DEMO_LM, *, songs: int = 8, copying: float = COPYING) -> None:
        """Draw the initial weights.

        Args:
            sizes: of the network.
            songs: in a batch.
            copying: share of the steps that copy words alone.
        """
        self.network: HeartMuLa = HeartMuLa(sizes)
        self._sizes, self._songs, self._copying = sizes, songs, copying
        fuse(self.network)
        initialise(self.network)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Sizes, batches and vocabulary."""
        return {
            "sizes": asdict(self._sizes), "songs": self._songs, "copying": self._copying, "onsets": ONSETS,
            "random": RANDOM, "keep": KEEP, "rates": [MUON, ADAM], "weights": [BAR, FIRST],
            "openings": [*map(list, OPENINGS), list(OPENING_ROWS)],
            "tokenizer": sha256(tokenizer_json().encode()).hexdigest(),
            "world": {SPELLING.name: hashes()[SPELLING.name]},
        }  # fmt: skip

    def groups(self) -> Sequence[Group]:
        """Muon for the matrices of both transformers, Adam for the rest."""
        named = dict(self.network.named_parameters())
        matrices = [p for name, p in named.items() if ".layers." in name and p.ndim == 2]
        chosen = {id(p) for p in matrices}
        rest = [p for p in named.values() if id(p) not in chosen]
        return [Group(matrices, "muon", MUON), Group(rest, "adam", ADAM, weight_decay=0.01)]

    def compose(self, moment: Moment, rng: np.random.Generator) -> dict[str, Tensor]:
        """Compose words alone in the first share of the steps, and mixed songs afterwards."""
        if moment.progress < self._copying:
            early = moment.progress < 0.4 * self._copying
            n_words = int(rng.integers(3, 10 if early else 31))
            examples = [words_alone(rng, n_words) for _ in range(3 * self._songs)]
        else:
            examples = self._openings(moment, rng) or self._mixed(rng)
        return batch_of(examples, rng, eos_id=DEMO_IDS.audio_eos_id, blank=0.1)

    def _openings(self, moment: Moment, rng: np.random.Generator) -> list[Example]:
        """Compose beginnings of songs in some late steps; none in others."""
        phases = [each for begins, *each in OPENINGS if moment.progress >= begins]
        first, two_bars, n_words = phases[-1] if phases else (0.0, 0.0, 0)
        kind = rng.random()
        if kind >= first + two_bars:
            return []
        bars, rows = (0, OPENING_ROWS[0]) if kind < first else (2, OPENING_ROWS[1])
        songs = [
            random_song(rng, Tags(tempo=str(rng.choice(CHOICES["tempo"]))), int(rng.integers(3, int(n_words) + 1)), 1.0)
            for _ in range(rows * self._songs)
        ]
        return [opening(song, bars) for song in songs]

    def _mixed(self, rng: np.random.Generator) -> list[Example]:
        """Compose songs of all tempi; random words are as many as make songs of one length."""
        kind, tempi = rng.random(), [str(tempo) for tempo in rng.choice(CHOICES["tempo"], 3 * self._songs)]
        if kind < ONSETS:
            n_words = int(rng.integers(10, 49))
            return [onsets(random_song(rng, Tags(tempo=tempo), n_words, 1.0)) for tempo in tempi]
        if kind < ONSETS + RANDOM:
            n_words = int(rng.integers(5, 26))
            counts = [max(3, round(n_words * min(TEMPI.values()) / TEMPI[tempo])) for tempo in tempi]
            return [
                random_song(rng, Tags(tempo=tempo), count, KEEP)
                for tempo, count in zip(tempi[: self._songs], counts, strict=False)
            ]
        return [world_song(rng, Tags(tempo=tempo), KEEP) for tempo in tempi[: self._songs]]

    def loss(self, batch: Mapping[str, Tensor], moment: Moment) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Return the sum of the books' cross entropies, the cursor's three times."""
        del moment
        losses = self.losses(batch)
        return losses.sum() + 2 * losses[0], dict(zip(_BOOKS, losses, strict=False))

    def losses(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return weighted cross entropies of the books, [8], or of the cursor alone, [1], without depth frames."""
        hidden, wanted = self.hidden(batch), batch["targets"]
        followed, weight = wanted[..., 0] != IGNORED, batch["weight"]
        first = _mean(self.network.codebook0_logits(hidden[followed]), wanted[followed][:, 0], weight[followed])
        if not batch["depth"].any():
            return first[None]
        codes = wanted[batch["depth"]]
        logits = self.network.depth_trace(hidden[batch["depth"]], codes).logits
        others = cross_entropy(logits.flatten(0, 1), codes[:, 1:].flatten(), reduction="none").view(-1, N_BOOKS - 1)
        share = weight[batch["depth"]] / weight[batch["depth"]].sum()
        return torch.cat([first[None], share @ others])

    def hidden(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Run the backbone on a batch of `batch_of`: [B, L, E], zero beyond a pair's longer row.

        Rows of like length run in pairs: in batches of all tempi, two positions in five are padding.
        """
        length = batch["text"].shape[1]
        lengths = (batch["targets"][..., 0] != IGNORED).int() * torch.arange(1, length + 1, device=batch["text"].device)
        order = lengths.amax(1).argsort()
        parts = []
        for rows in torch.split(order, _PAIR):
            longest = int(lengths[rows].max())
            hidden = self._hidden({name: batch[name][rows] for name in ("text", "style", "codes", "blank")}, longest)
            parts.append(pad(hidden, (0, 0, 0, length - longest)))
        return torch.cat(parts)[order.argsort()]

    def _hidden(self, rows: Mapping[str, Tensor], length: int) -> Tensor:
        network, text = self.network, rows["text"][:, :length]
        style = torch.zeros(len(text), self._sizes.muq_dim, device=text.device)
        prompt = network.embed_prompt(text.clamp(min=0), style, rows["style"])
        prompt = network.unconditional(prompt, rows["blank"])
        embedded = torch.where((text == FRAME)[..., None], network.embed_frames(rows["codes"][:, :length]), prompt)
        hidden, _ = network.backbone(embedded, torch.zeros_like(rows["style"]))
        return hidden  # type: ignore[no-any-return]

    def check(self) -> Mapping[str, float]:
        """Measure losses, and how often the next word is the right one, on held-out songs."""
        rng = np.random.default_rng(0)
        copied = [words_alone(rng, 24) for _ in range(16)]
        songs = [held_out_song(number) for number in range(4)]
        examples = [Example(song.tags.text, song.lyrics, song.codes) for song in songs]
        device = self.network.audio_head.device
        batches = [
            {name: tensor.to(device) for name, tensor in each.items()}
            for each in (self._batch(copied, rng), self._batch(examples, rng))
        ]
        losses = self.losses(batches[1])
        return {
            "copied": self._word_accuracy(batches[0]), **_named(losses), "moved": self._moved(batches[1]),
            "instruments": self._instruments(_HELD_OUT),
        }  # fmt: skip

    @staticmethod
    def _batch(examples: Sequence[Example], rng: np.random.Generator) -> dict[str, Tensor]:
        return batch_of(examples, rng, eos_id=DEMO_IDS.audio_eos_id, blank=0.0)

    def _word_accuracy(self, batch: Mapping[str, Tensor]) -> float:
        guessed = self.network.codebook0_logits(self.hidden(batch)).argmax(-1)
        wanted = batch["targets"][..., 0]
        return float((guessed == wanted)[wanted != IGNORED].float().mean())

    def _instruments(self, songs: int) -> float:
        """Return the share of the first frames' instruments of lead and chords that are the tags'."""
        scores = [held_out_song(number) for number in range(songs)]
        examples = [opening(Example(score.tags.text, score.lyrics, score.codes), 0) for score in scores]
        device = self.network.audio_head.device
        batch = {name: tensor.to(device) for name, tensor in self._batch(examples, np.random.default_rng(0)).items()}
        logits = self.network.depth_trace(self.hidden(batch)[batch["depth"]], batch["targets"][batch["depth"]]).logits
        guessed = logits[:, [LEAD - 1, CHORD - 1]].argmax(-1).cpu()
        wanted = np.stack([score.codes[[LEAD, CHORD], 0] for score in scores])
        return float((_instrument_ids(guessed.numpy()) == _instrument_ids(wanted)).mean())

    def _moved(self, batch: Mapping[str, Tensor]) -> float:
        """Return the share of the frames with a new word in which it is the likeliest."""
        guessed = self.network.codebook0_logits(self.hidden(batch)).argmax(-1)
        wanted = batch["targets"][..., 0]
        moves = (wanted != IGNORED) & (wanted != batch["codes"][..., 0]) & (batch["text"] == FRAME)
        return float((guessed == wanted)[moves].float().mean())

    def write(self, folder: Path) -> Sequence[Path]:
        """Write checkpoint, tokenizer and generation ids as `heartvoice export` reads them."""
        files = write_checkpoint(folder / FOLDER, self.network.state_dict(), asdict(self._sizes))
        return [
            *files,
            write(folder / "tokenizer.json", tokenizer_json().encode()),
            write(folder / "gen_config.json", json_text(asdict(generation_ids())).encode()),
        ]


def _instrument_ids(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return who plays lead and chord codes, [N, 2]; -1 is nobody."""
    played = [(read_lead(int(lead)), read_chord(int(chord))) for lead, chord in codes]
    return np.array([[-1 if each is None else each.instrument for each in pair] for pair in played])


def _mean(logits: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of cross entropies."""
    return (cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()


def _named(losses: Tensor) -> dict[str, float]:
    return {name: float(loss) for name, loss in zip(_BOOKS, losses, strict=True)}
