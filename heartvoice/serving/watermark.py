"""Reads what the operator marks songs with: `serve --watermark-key` names the key's file in the environment."""

from __future__ import annotations

import os
from pathlib import Path

from heartvoice.contracts.constants import WATERMARK_KEY_VARIABLE
from heartvoice.pipeline.watermarking import Watermark
from heartvoice.runtime.repository import Repository
from heartvoice.watermark.keys import read_key


def open_watermark(repository: Repository) -> Watermark | None:
    """Return the watermark of this server, or None if the operator named no key.

    Raises:
        InvalidRequestError: the key cannot be read, or is none.
    """
    path = os.environ.get(WATERMARK_KEY_VARIABLE)
    return Watermark(read_key(Path(path)), repository.weights_sha256) if path else None
