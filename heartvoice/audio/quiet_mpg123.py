"""Keeps the messages of mpg123 off the process's standard error."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_lock = threading.Lock()
_STDERR = 2
_MPG123 = re.compile(rb"Note: |Warning: |\[[^\]\n]*mpg123[^\]\n]*\] ")
_DAMAGE = re.compile(rb"Note: (?:Illegal|Trying|Skipped)|\[[^\]\n]*mpg123[^\]\n]*\] error")


@dataclass
class DecoderStatus:
    """`damaged` is True if the MP3 decoder could not decode a part of the file."""

    damaged: bool = False


@contextmanager
def quiet_mpg123() -> Iterator[DecoderStatus]:
    """Keep mpg123's messages about untrusted files off the process's standard error.

    libsndfile cannot silence mpg123, so the descriptor itself is redirected, for one MP3 at a time. Lines of other
    threads in that time are written out afterwards.
    """
    status = DecoderStatus()
    with _lock, tempfile.TemporaryFile() as captured:
        try:
            stderr_copy = os.dup(_STDERR)
        except OSError:  # closed: nothing can be printed
            yield status
            return
        os.dup2(captured.fileno(), _STDERR)
        try:
            yield status
        finally:
            os.dup2(stderr_copy, _STDERR)
            os.close(stderr_copy)
            captured.seek(0)
            for line in captured:
                if _DAMAGE.match(line):
                    status.damaged = True
                elif not _MPG123.match(line):
                    os.write(_STDERR, line)
