"""The tokenizer of random-weight presets: one id for each byte, and one each for `<tag>` and `</tag>`."""

from __future__ import annotations

from heartvoice.errors import ExportError

TAGS = ("<tag>", "</tag>")


def byte_tokenizer(vocabulary: int) -> str:
    """Text of a `tokenizer.json` whose ids are all below `vocabulary`; it adds no BOS of its own.

    Raises:
        ExportError: the vocabulary is too small for bytes and tags.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Id 0 stays free: the prompt's style slot and the text column beside audio frames hold it.
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
