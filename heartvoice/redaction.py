"""Formats tracebacks of unexpected errors without their messages, which may contain user data."""

from __future__ import annotations

import traceback


def traceback_without_messages(error: BaseException) -> str:
    """Format an error and its causes with types, files, lines and functions, but without messages.

    Messages repeat values (`could not convert string to float: ...`), which may be a caller's lyrics, consent or
    samples; logs must contain none of these.
    """
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        kind = type(current)
        frames = "".join(
            f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n'
            for frame in traceback.extract_tb(current.__traceback__)
        )
        number = f" (errno {current.errno})" if isinstance(current, OSError) and current.errno else ""
        parts.append(f"{kind.__module__}.{kind.__qualname__}{number}\n{frames}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "caused by ".join(parts).rstrip()
