"""The tokenizer of random-weight presets: one id per byte, and one each for `<tag>` and `</tag>`."""

from __future__ import annotations

from heartvoice.errors import ExportError

TAGS = ("<tag>", "</tag>")


def byte_tokenizer(vocabulary: int) -> str:
    """Return the text of a `tokenizer.json` with ids below `vocabulary` and without a BOS.

    Raises:
        ExportError: the vocabulary is too small for bytes and tags.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Id 0 is reserved for the prompt's style slot and the text column of audio frames.
    needed = 1 + len(alphabet) + len(TAGS)
    if vocabulary < needed:
        raise ExportError(f"text_vocab_size: a byte-level tokenizer needs {needed}, got {vocabulary}")
    ids = {"<|empty|>": 0, **{letter: 1 + index for index, letter in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    text: str = tokenizer.to_str(pretty=True)
    return text + "\n"
