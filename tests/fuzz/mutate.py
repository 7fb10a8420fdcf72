"""Bytes that are nearly right: a seed with pieces of it changed, repeated, cut or swapped for interesting numbers."""

from __future__ import annotations

from hypothesis import strategies as st

_NUMBERS = (
    b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80",
    b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\0\0\xc0\x7f", b"\0\0\x80\x7f",
)  # fmt: skip
"""Ends of integers, NaN and Inf."""


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of the seeds after up to eight changes; sometimes anything at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=400))
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(0, 16))
        match draw(st.sampled_from(["set", "insert", "cut", "repeat", "end"])):
            case "set":
                piece = draw(st.sampled_from(_NUMBERS) | st.binary(min_size=1, max_size=8))
                data[at : at + len(piece)] = piece
            case "insert":
                data[at:at] = draw(st.binary(max_size=16))
            case "cut":
                del data[at : at + length]
            case "repeat":
                data[at:at] = data[at : at + length] * draw(st.integers(1, 20))
            case "end":
                del data[at:]
    return bytes(data)
