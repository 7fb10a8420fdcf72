"""A checked song: what `song` and `render` are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from heartvoice.arrays import Array
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import MAX_FRAMES
from heartvoice.contracts.encoding import encode_settings
from heartvoice.contracts.field_checks import check_codes, read_settings
from heartvoice.contracts.messages import Codes
from heartvoice.contracts.models import SONG
from heartvoice.contracts.network_names import COVER_NETWORKS, Network
from heartvoice.contracts.settings import VOICE_SETTINGS
from heartvoice.contracts.texts import lyrics_warnings
from heartvoice.contracts.validation import check_song
from heartvoice.models.vocabulary import LyricVocabulary
from heartvoice.pipeline.voice_request import VoiceRequest
from heartvoice.stages.lm.request import LmRequest

_SETTINGS = tuple(setting for setting in SONG.settings if setting not in VOICE_SETTINGS)


@dataclass(frozen=True, eq=False)
class SongRequest:
    """A checked song: a request to the language model or finished codes, and the codec's settings."""

    lm: LmRequest | None
    codes: Codes | None
    seed: int
    codec_window: int
    codec_steps: int
    codec_guidance: float
    return_codes: bool
    stems: bool = False
    voice: VoiceRequest | None = None
    """The voice that shall sing it. None keeps the singer of the language model."""
    settings: dict[str, float | int | bool | str] = field(default_factory=dict)
    """All settings by name, for the report."""
    warnings: tuple[str, ...] = ()
    """What the model was not made for."""
    replaced: Mapping[str, str] | None = None
    """Words that the language model does not know, with what it sings instead; None if its vocabulary is open."""

    @classmethod
    def from_inputs(
        cls, inputs: Mapping[str, Array], preset: Preset, vocabulary: LyricVocabulary | None = None
    ) -> SongRequest:
        """Read and check a request's tensors.

        Args:
            inputs: of the contract.
            preset: sizes of the networks.
            vocabulary: of the language model; None is an open one.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        check_song(inputs)
        voice = VoiceRequest.from_inputs(inputs) if {"voice", "voice_audio"} & set(inputs) else None
        settings = read_settings(inputs, _SETTINGS)
        lm, codes = None, None
        if "codes" in inputs:
            codes = inputs["codes"].astype(np.int32)
            check_codes(codes, preset.codec.codebook_size, MAX_FRAMES)
        else:
            lm = LmRequest.from_inputs(inputs, preset)
        sung = lm.within(vocabulary) if lm else None
        warnings = lyrics_warnings(lm.lyrics) if lm else ()
        replaced = None
        chosen: dict[str, float | int | bool | str] = {**settings, **(voice.settings if voice else {})}
        if sung and vocabulary is not None:
            replaced = sung.replaced
            warnings += vocabulary.warnings(replaced)
            chosen["unknown_words"] = sung.unknown_words
        return cls(
            lm=sung,
            codes=codes,
            seed=int(settings["seed"]),
            codec_window=int(settings["codec_window"]),
            codec_steps=int(settings["codec_steps"]),
            codec_guidance=float(settings["codec_guidance"]),
            return_codes=bool(settings["return_codes"]),
            stems=bool(settings["stems"]),
            voice=voice,
            settings=chosen,
            warnings=warnings,
            replaced=replaced,
        )

    def to_inputs(self) -> dict[str, Array]:
        """The request as tensors of the contract; the reverse of `from_inputs`."""
        inputs = encode_settings(self.settings, _SETTINGS)
        if self.voice is not None:
            inputs |= self.voice.to_inputs()
        if self.lm is not None:
            inputs |= self.lm.to_inputs()
        if self.codes is not None:
            inputs["codes"] = self.codes
        return inputs

    @property
    def networks(self) -> tuple[Network, ...]:
        """Networks that make it, the writing one first."""
        writers: tuple[Network, ...] = ("lm", "codec") if self.lm is not None else ("codec",)
        if self.voice is not None:
            return (*writers, *COVER_NETWORKS)
        return (*writers, "separator") if self.stems else writers

    @property
    def n_frames(self) -> int:
        """Greatest possible length in frames."""
        return self.codes.shape[1] if self.codes is not None else self.lm.n_frames if self.lm else 0
