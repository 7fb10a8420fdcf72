"""HeartMuLa, the music language model: text to frames of eight codes.

The backbone runs once per frame and predicts codebook 0. The depth decoder runs within the frame and predicts the other
codebooks. `HeartMuLa.step` runs both; a prompt of T positions and a frame of one position use the same call, and the
exported graph has the same structure. Source: heartmula spec; state-dict names are those of the official checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heartvoice.config.presets import HeartMuLaConfig
from heartvoice.models.llama import KeyValue, Transformer
from heartvoice.models.sampling import mask_special, sample_inverse_cdf


@dataclass(frozen=True)
class StepInputs:
    """Inputs of one call of `HeartMuLa.step`, without the cache: S songs, R rows, T new positions.

    Row r belongs to song row_song[r]. It is unconditional if cond_row[row_song[r]] is another row. `uncond_row` equals
    `cond_row` for a song without guidance.
    """

    text_ids: Tensor
    """int64 [S, T]: a text id, or -1 for an audio frame (given by `codes`)."""
    codes: Tensor
    """int64 [S, K]: the previous frame; ignored if no position is -1."""
    style: Tensor
    """float32 [S, muq_dim]."""
    style_index: Tensor
    """int64 [S]: the new position that the style vector overwrites; -1 for none."""
    n_new: Tensor
    """int64 [S]: number of valid positions of the T, at least 1; the others are right padding."""
    position: Tensor
    """int64 [R]: positions of each row in the cache, which is the first new position."""
    row_song: Tensor
    """int64 [R]."""
    cond_row: Tensor
    """int64 [S]."""
    uncond_row: Tensor
    """int64 [S]."""
    temperature: Tensor
    """float32 [S], above 0; for argmax use temperature 1, top_k 1 and uniform 0."""
    top_k: Tensor
    """int64 [S], at least 1."""
    cfg_scale: Tensor
    """float32 [S]."""
    uniform: Tensor
    """float32 [S, K] in [0, 1 - 2^-23]: one draw for each codebook."""
    allow_eos: Tensor
    """int64 or bool [S]: 0 forbids EOS."""


@dataclass(frozen=True)
class StepOutputs:
    """Outputs of one call of `HeartMuLa.step`."""

    codes: Tensor
    """int64 [S, K]: the frame after the last valid position; -1 if the song's logits are not finite."""
    logits: Tensor
    """float32 [S, K, V]: after guidance, before special ids are masked."""
    new: list[KeyValue]
    """Each layer's keys and values [R, Hkv, T, head_dim], for the caller's cache."""


@dataclass(frozen=True)
class DepthTrace:
    """A teacher-forced pass of the depth decoder."""

    projected: Tensor
    """[R, K, decoder width]: inputs after `projection`."""
    hidden: Tensor
    """float32 [R, K, decoder width]: outputs after the final norm."""
    logits: Tensor
    """float32 [R, K - 1, V]: codebooks 1 to K - 1."""


class HeartMuLa(nn.Module):
    """The music language model."""

    def __init__(self, sizes: HeartMuLaConfig) -> None:
        """Make all tensors of the checkpoint; `heartvoice.models.load.load_module` sets their values."""
        super().__init__()
        self.sizes = sizes
        width, depth_width = sizes.backbone.embed_dim, sizes.decoder.embed_dim
        books, vocabulary = sizes.audio_num_codebooks, sizes.audio_vocab_size
        self.text_embeddings = _table(sizes.text_vocab_size, width)
        self.audio_embeddings = _table(books * vocabulary, width)
        self.unconditional_text_embedding = _table(1, width)
        self.muq_linear = nn.Linear(sizes.muq_dim, width)
        self.backbone = Transformer(sizes.backbone)
        self.codebook0_head = nn.Linear(width, vocabulary, bias=False)
        self.projection = nn.Linear(width, depth_width, bias=False)
        self.decoder = Transformer(sizes.decoder)
        # Stored as [in, out] per codebook, unlike a linear layer's weight.
        self.audio_head = nn.Parameter(torch.zeros(books - 1, depth_width, vocabulary))

    # ------------------------------------------------------------------------------------------------ embeddings

    def embed_prompt(self, text_ids: Tensor, style: Tensor | None = None, style_index: Tensor | None = None) -> Tensor:
        """Embed text, with the style vector in its slot.

        Args:
            text_ids: int64 [S, T].
            style: [S, muq_dim], or None: the slot keeps the embedding of its text id.
            style_index: int64 [S], the slot in T; -1 none.

        Returns:
            [S, T, E], for conditional rows.
        """
        embedded: Tensor = self.text_embeddings(text_ids)
        if style is None or style_index is None:
            return embedded
        slot = torch.arange(text_ids.shape[1], device=text_ids.device) == style_index[:, None]
        vector: Tensor = self.muq_linear(style.to(self.muq_linear.weight.dtype))
        return torch.where(slot[..., None], vector[:, None], embedded)

    def embed_code(self, codes: Tensor, codebook: int) -> Tensor:
        """Embed codes of one codebook: int64 [...] to [..., E]."""
        embedded: Tensor = self.audio_embeddings(codes + codebook * self.sizes.audio_vocab_size)
        return embedded

    def embed_frames(self, codes: Tensor) -> Tensor:
        """Embed whole frames: int64 [..., K] to the sum over codebooks [..., E]."""
        books = torch.arange(codes.shape[-1], device=codes.device) * self.sizes.audio_vocab_size
        embedded: Tensor = self.audio_embeddings(codes + books)
        return embedded.sum(-2)

    def unconditional(self, embedded: Tensor, rows: Tensor) -> Tensor:
        """Blank the prompt of unconditional rows, including BOS, EOS and style slot.

        Args:
            embedded: [R, T, E] prompt embeddings.
            rows: bool [R], true where the row is unconditional.

        Returns:
            [R, T, E].
        """
        return torch.where(rows[:, None, None], self.unconditional_text_embedding.weight[0], embedded)

    def embed(self, inputs: StepInputs) -> Tensor:
        """Embed the new positions of every row: [R, T, E]."""
        row_song = inputs.row_song
        text = self.embed_prompt(inputs.text_ids.clamp(min=0), inputs.style, inputs.style_index)
        rows = torch.arange(row_song.shape[0], device=row_song.device)
        text = self.unconditional(text[row_song], inputs.cond_row[row_song] != rows)
        frame = self.embed_frames(inputs.codes)[:, None]  # [S, 1, E]
        is_frame = (inputs.text_ids < 0)[..., None]  # [S, T, 1]
        return torch.where(is_frame[row_song], frame[row_song], text)

    # ------------------------------------------------------------------------------------------ heads and guidance

    def codebook0_logits(self, hidden: Tensor) -> Tensor:
        """Apply the head of codebook 0: final-norm output [..., E] to float32 [..., V], before guidance."""
        logits: Tensor = self.codebook0_head(hidden.to(self.codebook0_head.weight.dtype))
        return logits.to(torch.float32)

    def depth_logits(self, hidden: Tensor, codebook: int) -> Tensor:
        """Apply a later codebook's head: depth output [..., decoder width] to float32 [..., V], before guidance."""
        return (hidden.to(self.audio_head.dtype) @ self.audio_head[codebook - 1]).to(torch.float32)

    @staticmethod
    def guide(logits: Tensor, cond_row: Tensor, uncond_row: Tensor, cfg_scale: Tensor) -> Tensor:
        """Apply classifier-free guidance in float32.

        Args:
            logits: float32 [R, V].
            cond_row: int64 [S].
            uncond_row: int64 [S]; where it equals `cond_row`, that row's logits are returned.
            cfg_scale: float32 [S].

        Returns:
            float32 [S, V].
        """
        conditional, blank = logits[cond_row], logits[uncond_row]
        return blank + cfg_scale[:, None] * (conditional - blank)

    # --------------------------------------------------------------------------------------------- depth decoder

    def depth_trace(self, hidden: Tensor, codes: Tensor) -> DepthTrace:
        """Run the depth decoder on a known frame, all positions at once.

        Args:
            hidden: float32 [R, E], the backbone's last output.
            codes: int64 [R, K]; the last codebook's code is not used.
        """
        embedded = [hidden.to(self.projection.weight.dtype)]
        embedded += [self.embed_code(codes[:, book], book) for book in range(codes.shape[1] - 1)]
        projected: Tensor = self.projection(torch.stack(embedded, dim=1))
        out, _ = self.decoder(projected, torch.zeros_like(codes[:, 0]))
        logits = [self.depth_logits(out[:, book], book) for book in range(1, codes.shape[1])]
        return DepthTrace(projected, out, torch.stack(logits, dim=1))

    def sample_frame(
        self, hidden: Tensor, inputs: StepInputs, eos_id: int, max_top_k: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw one frame, codebook after codebook.

        Args:
            hidden: float32 [R, E], the backbone's output at each row's last valid position.
            inputs: the step's sampling settings and rows.
            eos_id: the id that ends a song.
            max_top_k: largest `top_k` of the batch, if known.

        Returns:
            int64 [S, K] codes and float32 [S, K, V] logits after guidance. Codes are -1 for a song whose logits are not
            all finite.
        """
        codes: list[Tensor] = []
        logits: list[Tensor] = []

        def draw(raw: Tensor) -> None:
            guided = self.guide(raw, inputs.cond_row, inputs.uncond_row, inputs.cfg_scale)
            allowed = mask_special(guided, self.sizes.codebook_size, eos_id, inputs.allow_eos)
            uniform = inputs.uniform[:, len(codes)]
            codes.append(sample_inverse_cdf(allowed, inputs.temperature, inputs.top_k, uniform, max_top_k=max_top_k))
            logits.append(guided)

        draw(self.codebook0_logits(hidden))
        past: list[KeyValue] | None = None
        position = torch.zeros_like(inputs.row_song)
        entering = hidden.to(self.projection.weight.dtype)[:, None]  # the first pass processes positions 0 and 1
        for book in range(1, self.sizes.audio_num_codebooks):
            previous = self.embed_code(codes[-1], book - 1)[inputs.row_song][:, None]
            entering = torch.cat([entering, previous], dim=1) if past is None else previous
            out, new = self.decoder(self.projection(entering), position, past)
            past = new if past is None else _append(past, new)
            position = position + entering.shape[1]
            draw(self.depth_logits(out[:, -1], book))
        frame, guided_logits = torch.stack(codes, dim=1), torch.stack(logits, dim=1)
        return frame.masked_fill(~guided_logits.sum((1, 2)).isfinite()[:, None], -1), guided_logits

    # ------------------------------------------------------------------------------------------------------ step

    def step(
        self,
        inputs: StepInputs,
        past: Sequence[KeyValue] | None,
        *,
        eos_id: int,
        max_top_k: int | None = None,
    ) -> StepOutputs:
        """Run T new positions of every row, then draw each song's next frame.

        Args:
            inputs: rows, settings and random numbers.
            past: cache of every row, as `Transformer.forward` takes it.
            eos_id: the id that ends a song; drawn only if `allow_eos` is set, or if it is an ordinary code.
            max_top_k: largest `top_k` of the batch; None reads it from the tensor.
        """
        hidden, new = self.backbone(self.embed(inputs), inputs.position, past)
        last = (inputs.n_new - 1)[inputs.row_song]
        hidden = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]
        codes, logits = self.sample_frame(hidden, inputs, eos_id, max_top_k)
        return StepOutputs(codes, logits, new)


def _table(n_rows: int, width: int) -> nn.Embedding:
    """Make an embedding without initial values: drawing them on meta imports torch's compiler (2 s)."""
    return nn.Embedding(n_rows, width, _weight=torch.empty(n_rows, width))


def _append(past: Sequence[KeyValue], new: Sequence[KeyValue]) -> list[KeyValue]:
    return [
        (torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2))
        for (old_key, old_value), (key, value) in zip(past, new, strict=True)
    ]
