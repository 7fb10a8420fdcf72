"""Lists the published weights for `heartvoice export --weights` and their places on disk.

Sources: seed_vc spec, sections 0 and 18 (files, hashes, licences); README of HeartMuLa/heartlib (repositories, folders,
licence); speaker_encoders and roformer specs, section 0; `remote/files.txt` of demucs 4.1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from heartvoice.checkpoints.official import (
    BIGVGAN,
    CAMPPLUS,
    DEMUCS_LICENCE,
    ECAPA,
    GENERATION,
    HEARTMULA_LICENCE,
    LICENCES,
    RMVPE,
    ROFORMER_LICENCE,
    SEED_VC,
    SPEAKER_LICENCES,
    TOKENIZER,
    WAVLM,
    WHISPER,
    licence_name,
)
from heartvoice.config.presets import PRESETS
from heartvoice.errors import InvalidRequestError

OFFICIAL_PRESET = "oss-3b"
_SAFETENSORS = ("config.json", "*.safetensors")
_INDEX = ("*.safetensors.index.json",)


@dataclass(frozen=True)
class WeightSet:
    """Files that are published together and stored in one folder."""

    name: str
    origin: str
    """Repository on the hub, `owner/name`; or a base URL with a final slash."""
    folder: str
    """Below the weights folder; `.` is the weights folder itself."""
    files: tuple[str, ...]
    """Required names or patterns at the top of the repository; for a URL, only names."""
    licence: str
    size: str
    """Approximate size; a range if the published float type is unknown."""
    needed_by: str
    """The jobs, and their parts, that need the weights."""
    optional: tuple[str, ...] = ()
    """Optional patterns; matching files are fetched too."""
    known: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Known sha256 of files, independent of the hub; `…` stands for unknown digits."""
    on_request: bool = False
    """Fetched only if it is named: no engine of the official preset needs it."""

    @property
    def on_hub(self) -> bool:
        """True if the origin is a repository with revisions."""
        return not self.origin.startswith(("https://", "http://"))

    @property
    def licence_name(self) -> str:
        """The licence without its remark."""
        return licence_name(self.licence)

    @property
    def title(self) -> str:
        """The common name of the origin."""
        return self.origin if self.on_hub else self.origin.split("//", 1)[1].rstrip("/")

    def path(self, name: str) -> str:
        """Return the path of a published file below the weights folder."""
        return (PurePosixPath(self.folder) / name).as_posix()

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Return the published names that the set contains."""
        patterns = self.files + self.optional
        return sorted(
            name for name in names if "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)
        )

    def absent(self, names: Iterable[str]) -> list[str]:
        """Return the required names and patterns without a match."""
        published = list(names)
        return [pattern for pattern in self.files if not any(fnmatchcase(name, pattern) for name in published)]


WEIGHTS: tuple[WeightSet, ...] = (
    WeightSet(
        "heartmula-gen", "HeartMuLa/HeartMuLaGen", ".", (TOKENIZER, GENERATION), HEARTMULA_LICENCE,
        "9 MB", "song: tokenizer",
    ),
    WeightSet(
        "heartmula", "HeartMuLa/HeartMuLa-oss-3B-happy-new-year", "HeartMuLa-oss-3B", _SAFETENSORS, HEARTMULA_LICENCE,
        "8 to 16 GB", "song: LM", optional=_INDEX,
    ),
    WeightSet(
        "heartcodec", "HeartMuLa/HeartCodec-oss-20260123", "HeartCodec-oss", _SAFETENSORS, HEARTMULA_LICENCE,
        "3.3 to 6.6 GB", "song: codec", optional=_INDEX,
    ),
    WeightSet(
        "demucs", "https://dl.fbaipublicfiles.com/demucs/hybrid_transformer/", "demucs",
        ("f7e0c4bc-ba3fe64a.th", "d12395a8-e57c48e6.th", "92cfc3b6-ef3bcb9c.th", "04573f0d-f3cf25b2.th"),
        DEMUCS_LICENCE, "0.3 GB", "covers, voices: separator",
        # A name contains a signature and the first digits of the file's sha256.
        known={
            "f7e0c4bc-ba3fe64a.th": "ba3fe64a…", "d12395a8-e57c48e6.th": "e57c48e6…",
            "92cfc3b6-ef3bcb9c.th": "ef3bcb9c…", "04573f0d-f3cf25b2.th": "f3cf25b2…",
        },
    ),
    WeightSet(
        "seed-vc", "Plachta/Seed-VC", SEED_VC,
        (
            "DiT_seed_v2_uvit_whisper_base_f0_44k_bigvgan_pruned_ft_ema_v2.pth",
            "config_dit_mel_seed_uvit_whisper_base_f0_44k.yml",
        ),
        LICENCES["svc_cfm"], "0.8 GB", "covers, voices: converter",
        known={
            "DiT_seed_v2_uvit_whisper_base_f0_44k_bigvgan_pruned_ft_ema_v2.pth":
                "42aef93ffe65857c840d270252fa040f7ba04514945ec460f3ac1ac2a96de684",
            "config_dit_mel_seed_uvit_whisper_base_f0_44k.yml": "ff86f343…7a1a0a",
        },
    ),
    WeightSet(
        "whisper-small", "openai/whisper-small", WHISPER, ("config.json", "model.safetensors"),
        LICENCES["svc_content"], "1.0 GB", "covers, voices: content",
    ),
    WeightSet(
        "bigvgan", "nvidia/bigvgan_v2_44khz_128band_512x", BIGVGAN, ("config.json", "bigvgan_generator.pt"),
        LICENCES["vocoder"], "0.5 GB", "covers, voices: vocoder",
        known={"bigvgan_generator.pt": "d9fe7ec6bd0b44ed9d66973d5012d8181c1570b01e5c72df51973e241dccd357"},
    ),
    WeightSet(
        "rmvpe", "lj1995/VoiceConversionWebUI", PurePosixPath(RMVPE).parent.name, (PurePosixPath(RMVPE).name,),
        LICENCES["f0"], "0.2 GB", "covers, voices: F0",
        known={"rmvpe.pt": "6d62215f4306e3ca278246188607209f09af3dc77ed4232efdd069798c4ec193"},
    ),
    WeightSet(
        "campplus", "funasr/campplus", PurePosixPath(CAMPPLUS).parent.name, (PurePosixPath(CAMPPLUS).name,),
        LICENCES["svc_style"], "28 MB", "covers, voices: style",
        known={"campplus_cn_common.bin": "3388cf5fd3493c9ac9c69851d8e7a8badcfb4f3dc631020c4961371646d5ada8"},
    ),
    WeightSet(
        "ecapa", "speechbrain/spkrec-ecapa-voxceleb", PurePosixPath(ECAPA).parent.name, (PurePosixPath(ECAPA).name,),
        SPEAKER_LICENCES["ecapa"], "83 MB", "speaker encoder ecapa (on request)", on_request=True,
        known={"embedding_model.ckpt": "0575cb64845e6b9a10db9bcb74d5ac32b326b8dc90352671d345e2ee3d0126a2"},
    ),
    WeightSet(
        "wavlm-sv", "microsoft/wavlm-base-plus-sv", WAVLM,
        ("config.json", "preprocessor_config.json", "pytorch_model.bin"),
        SPEAKER_LICENCES["wavlm"], "0.4 GB", "speaker encoder wavlm (on request)", on_request=True,
    ),
    WeightSet(  # a copy: its first place, a release on GitHub, does not state its size before the download
        "bs_roformer", "Blane187/all_public_uvr_models", "bs_roformer",
        ("model_bs_roformer_ep_317_sdr_12.9755.ckpt",),
        ROFORMER_LICENCE, "0.6 GB", "separator bs_roformer (on request)", on_request=True,
        optional=("model_bs_roformer_ep_317_sdr_12.9755.yaml",),
        known={
            "model_bs_roformer_ep_317_sdr_12.9755.ckpt":
                "5b84f37e8d444c8cb30c79d77f613a41c05868ff9c9ac6c7049c00aefae115aa",
        },
    ),
    WeightSet(
        "bs_roformer_sw", "jarredou/BS-ROFO-SW-Fixed", "bs_roformer_sw", ("BS-Rofo-SW-Fixed.ckpt",),
        ROFORMER_LICENCE, "0.7 GB", "separator bs_roformer_sw (on request)", on_request=True,
        optional=("BS-Rofo-SW-Fixed.yaml",),
        known={"BS-Rofo-SW-Fixed.ckpt": "24e7d35ee9c64415673d3fd33e06a67cac2c103c5df6267ba1576459c775916e"},
    ),
    WeightSet(
        "mel_band_roformer", "KimberleyJSN/melbandroformer", "mel_band_roformer", ("MelBandRoformer.ckpt",),
        ROFORMER_LICENCE, "0.9 GB", "separator mel_band_roformer (on request)", on_request=True,
        known={"MelBandRoformer.ckpt": "87201f4d31afb5bc79993230fc49446918425574db48c01c405e44f365c7559e"},
    ),
    WeightSet(
        "mel_band_roformer_ft2", "pcunwa/Kim-Mel-Band-Roformer-FT", "mel_band_roformer_ft2", ("kimmel_unwa_ft2.ckpt",),
        ROFORMER_LICENCE, "0.9 GB", "separator mel_band_roformer, another file (on request)", on_request=True,
        optional=("config_kimmel_unwa_ft.yaml",),
        known={"kimmel_unwa_ft2.ckpt": "5ed7b9e4c2eebbec7a7e5e8113058f7b68ba5e6048db8eaccfbbeb884c7884c0"},
    ),
    WeightSet(
        "mel_band_roformer_big", "pcunwa/Mel-Band-Roformer-big", "mel_band_roformer_big",
        ("big_beta5e.ckpt", "big_beta5e.yaml"),
        ROFORMER_LICENCE, "1.5 GB", "separator mel_band_roformer, another file (on request)", on_request=True,
        known={"big_beta5e.ckpt": "32b876e1163716a9a007438b5a5107069586aa9b9ca653a5f63013b1edf6920c"},
    ),
    WeightSet(
        "faster-whisper-small", "Systran/faster-whisper-small", "faster-whisper-small",
        ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt"), "MIT (model card)", "0.5 GB",
        "evaluate: lyrics in 99 languages (on request)",
        known={
            "config.json": "b55496ac7940a7ae47d2c01eab40edfd8701feec1229d9cce3b40014383fb828",
            "model.bin": "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671",
            "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
        },
        on_request=True,
    ),
)  # fmt: skip
"""In the order of fetching."""


def select(preset: str, only: Iterable[str]) -> list[WeightSet]:
    """Return the weight sets that a preset needs, or the named ones.

    Raises:
        InvalidRequestError: the preset has no published weights, or no set has the name.
    """
    if preset not in PRESETS:
        raise InvalidRequestError(f"--preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    if preset != OFFICIAL_PRESET:
        raise InvalidRequestError(
            f"--preset: {preset} has no published weights, {OFFICIAL_PRESET} has; "
            f"heartvoice export --preset {preset} --random-weights 0 needs none"
        )
    wanted = set(only)
    unknown = wanted - {each.name for each in WEIGHTS}
    if unknown:
        names = ", ".join(each.name for each in WEIGHTS)
        raise InvalidRequestError(f"--only: expected names among {names}, got {', '.join(sorted(unknown))}")
    return [each for each in WEIGHTS if each.name in wanted or not (wanted or each.on_request)]


def fits(known: str, sha256: str) -> bool:
    """Return True if a hash matches a full or partial known hash."""
    head, _, tail = known.partition("…")
    return sha256.startswith(head) and sha256.endswith(tail)
