"""The networks of a preset by name: which job runs which, and what reports call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Network = Literal[
    "lm", "codec", "separator", "speaker", "f0", "svc_content", "svc_regulator", "svc_cfm", "svc_style", "vocoder"
]
NETWORKS: tuple[Network, ...] = get_args(Network)
CONVERTER_NETWORKS: tuple[Network, ...] = ("svc_cfm", "svc_content", "svc_regulator", "svc_style", "vocoder")
COVER_NETWORKS: tuple[Network, ...] = (*CONVERTER_NETWORKS, "separator", "f0", "speaker")
"""Networks of a job with a voice, beside those that write a song."""
TITLES: dict[Network, str] = {
    "lm": "language model",
    "codec": "codec",
    "separator": "separator",
    "speaker": "speaker encoder",
    "f0": "F0",
    "svc_content": "content encoder",
    "svc_regulator": "regulator",
    "svc_cfm": "converter",
    "svc_style": "style encoder",
    "vocoder": "vocoder",
}
RANDOM = "random"
"""Beginning of the origin of random weights; the seed follows."""

SMALL_WORLD = "a small procedural world, not HeartMuLa's"
"""End of the origin of weights that `train/demo` makes; the preset's name is before it."""


def describe(origins: Mapping[str, str], *, random: bool) -> str:
    """Name the networks whose weights are random, or those whose weights are real.

    Args:
        origins: of the weights, by network, as in a report's `networks`.
        random: which of the two.

    Returns:
        Titles joined by commas; real ones with their origin.
    """
    names = [name for name in TITLES if name in origins and origins[name].startswith(RANDOM) == random]
    return ", ".join(TITLES[name] if random else f"{TITLES[name]} ({origins[name]})" for name in names)


def noise(origins: Mapping[str, str]) -> str:
    """Return what random weights make noise of: "songs", "voices", "songs and voices" or "".

    Args:
        origins: of the weights, by network.
    """
    makers = {"songs": ("lm", "codec"), "voices": CONVERTER_NETWORKS}
    return " and ".join(
        made for made, names in makers.items() if any(origins.get(name, "").startswith(RANDOM) for name in names)
    )
