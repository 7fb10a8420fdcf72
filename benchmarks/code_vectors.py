"""How wide must the codec's code vectors be for the demo preset, and how should they start?

    python -m benchmarks.code_vectors --decoder build/demo/decoder [--steps 400]

A small network reads the sum of a frame's eight code vectors and guesses the latents that the score encoder
writes for this frame; vectors and network learn together. What it cannot know from the sum, the flow cannot either.
Prints the error on frames of held-out songs for each width, with vectors that start as the encoder's tables in
dimensions of their own (`own`) or at random in all dimensions (`random`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from heartvoice.config.presets import DEMO_CODEC
from heartvoice.models.heartcodec.scalar import LEVELS, quantize
from train.demo.code_vectors import start_code_vectors
from train.demo.codec_network import codebooks, new_flow
from train.demo.codec_states import trained_decoder
from train.demo.score import Codes
from train.demo.score_encoder import ScoreEncoder, stereo_targets
from train.demo.songs import held_out_song, training_songs
from train.frame.optimisers import Optimisers
from train.frame.task import Group

WIDTHS = (32, 64, 96, 128, 192)
HIDDEN, FRAMES = 384, 512
N_SONGS, N_HELD_OUT = 200, 8
MUON, ADAM = 0.012, 3e-3
_SPREAD = 0.5


class Guess(nn.Module):
    """Code vectors and a network from their sum to both latents of a frame."""

    def __init__(self, width: int, encoder: ScoreEncoder, songs: Sequence[Codes], *, own: bool) -> None:
        super().__init__()
        sizes = replace(
            DEMO_CODEC, dim=width, codebook_dim=width, in_channels=2 * DEMO_CODEC.out_channels + width
        )  # fmt: skip
        flow = new_flow(sizes)
        start_code_vectors(flow, encoder, songs)
        if not own:
            for codebook in codebooks(flow):
                nn.init.normal_(codebook.embed, 0.0, _SPREAD)
        self.vectors = flow.vq_embed
        self.network = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
            nn.Linear(HIDDEN, 2 * DEMO_CODEC.out_channels),
        )  # fmt: skip

    def forward(self, codes: Tensor) -> Tensor:
        """Codes [B, 8] to latents [B, 2 latents * L]."""
        guessed: Tensor = self.network(self.vectors(codes[:, None])[:, 0])
        return guessed

    def optimisers(self) -> Optimisers:
        """Muon for matrices, Adam for the rest."""
        matrices = [parameter for parameter in self.network.parameters() if parameter.ndim == 2]
        biases = [parameter for parameter in self.network.parameters() if parameter.ndim == 1]
        return Optimisers(
            self,
            [Group(matrices, "muon", MUON), Group([*biases, *self.vectors.parameters()], "adam", ADAM)],
        )


def frames_of(songs: Sequence[Codes], encoder: ScoreEncoder) -> tuple[Tensor, Tensor]:
    """Codes [N, 8] of all frames, and their latents [N, 2 * L]."""
    codes, latents = [], []
    for song in songs:
        tensor = torch.from_numpy(song)[None]
        with torch.no_grad():
            latents.append(stereo_targets(encoder, tensor)[0].reshape(song.shape[1], -1))
        codes.append(tensor[0].T)
    return torch.cat(codes), torch.cat(latents)


def measure(
    encoder: ScoreEncoder, songs: Sequence[Codes], held_out: Sequence[Codes], steps: int,
    widths: Sequence[int] = WIDTHS,
) -> None:  # fmt: skip
    """Print a line for each width and start."""
    codes, latents = frames_of(songs, encoder)
    test_codes, test_latents = frames_of(held_out, encoder)
    print(f"{len(codes)} frames, {len(test_codes)} held out; standard deviation of latents {latents.std():.3f}")
    for width in widths:
        for own in (True, False):
            torch.manual_seed(0)
            guess = Guess(width, encoder, songs, own=own)
            optimisers = guess.optimisers()
            start = time.process_time()
            for step in range(steps):
                rows = torch.randint(len(codes), (FRAMES,))
                guess.zero_grad(set_to_none=True)
                (guess(codes[rows]) - latents[rows]).square().mean().backward()
                optimisers.step(min(1.0, (step + 1) / 20, 2 * (steps - step) / steps))
            with torch.no_grad():
                found = guess(test_codes)
            error = float((found - test_latents).square().mean().sqrt())
            exact = float(((quantize(found) - test_latents).abs() < 0.5 / LEVELS).float().mean())
            print(
                f"width {width:4d} {'own' if own else 'random':6s}: error {error:.3f}, exact levels {exact:.3f}, "
                f"{time.process_time() - start:.0f} CPU s",
                flush=True,
            )


def main() -> None:
    """Measure with the encoder of a decoder's training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoder", type=Path, required=True, metavar="DIR", help="state of the decoder's training")
    parser.add_argument("--steps", type=int, default=400, help="of each variant (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    _, encoder = trained_decoder(DEMO_CODEC, args.decoder)
    songs = [score.codes for score in training_songs(0, N_SONGS)]
    measure(encoder, songs, [held_out_song(number).codes for number in range(N_HELD_OUT)], args.steps)


if __name__ == "__main__":
    main()
