"""The contract of every model: inputs, outputs, settings and limits, written once.

Names are imported on first use: the modules of this package import each other, and commands start without the models.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heartvoice.contracts.constants import (
        AUDIO_FORMATS,
        AUTO_PITCH_MODES,
        CONTRACT,
        MIX_STEM_NAMES,
        NO_VOCALS_MODES,
        SAMPLE_RATE_HZ,
        STEM_RATE_HZ,
        UNKNOWN_WORDS_MODES,
    )
    from heartvoice.contracts.models import COVER, DEMUCS, LOADED, MODELS, RENDER, SONG, SPEAKER_ENCODER, SVC
    from heartvoice.contracts.settings import COVER_SETTINGS, RENDER_SETTINGS, SONG_SETTINGS, VOICE_SETTINGS
    from heartvoice.contracts.types import ModelSpec, Setting, TensorSpec

__all__ = [
    "AUDIO_FORMATS",
    "AUTO_PITCH_MODES",
    "CONTRACT",
    "COVER",
    "COVER_SETTINGS",
    "DEMUCS",
    "LOADED",
    "MIX_STEM_NAMES",
    "MODELS",
    "NO_VOCALS_MODES",
    "RENDER",
    "RENDER_SETTINGS",
    "SAMPLE_RATE_HZ",
    "SONG",
    "SONG_SETTINGS",
    "SPEAKER_ENCODER",
    "STEM_RATE_HZ",
    "SVC",
    "UNKNOWN_WORDS_MODES",
    "VOICE_SETTINGS",
    "ModelSpec",
    "Setting",
    "TensorSpec",
]

_MODULES = {
    "constants": (
        "AUDIO_FORMATS",
        "AUTO_PITCH_MODES",
        "CONTRACT",
        "MIX_STEM_NAMES",
        "NO_VOCALS_MODES",
        "SAMPLE_RATE_HZ",
        "STEM_RATE_HZ",
        "UNKNOWN_WORDS_MODES",
    ),
    "models": ("COVER", "DEMUCS", "LOADED", "MODELS", "RENDER", "SONG", "SPEAKER_ENCODER", "SVC"),
    "settings": ("COVER_SETTINGS", "RENDER_SETTINGS", "SONG_SETTINGS", "VOICE_SETTINGS"),
    "types": ("ModelSpec", "Setting", "TensorSpec"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value
