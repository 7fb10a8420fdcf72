"""How much memory and time does a GB10 need? Computes the tables of docs/how-to/gpu.md from sizes.

    python -m benchmarks.gb10            # print both tables
    python -m benchmarks.gb10 --write    # write them into docs/how-to/gpu.md

Nothing here has been run on a GB10. Bytes come from `heartvoice.server.memory_estimate`, operations of the language
model and the codec from `benchmarks.arithmetic`. Operations of the other networks are PyTorch's own count for the
full-size modules on the meta device.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.arithmetic import decoder_flop, flow_flop, frame_bytes, prefill_flop
from heartvoice.config.presets import PRESETS, AnySeparator, Preset, RmvpeConfig, RoformerConfig, SpleeterConfig
from heartvoice.config.svc import SVC_HOP
from heartvoice.contracts.constants import FRAMES_PER_S, LATENTS_PER_FRAME
from heartvoice.contracts.graphs import SVC_CONTEXT
from heartvoice.contracts.settings import CODEC_SETTINGS, SVC_SETTINGS
from heartvoice.contracts.tensors import WINDOW
from heartvoice.contracts.types import Setting
from heartvoice.models.load import AnyConfig, build_module
from heartvoice.server.memory_estimate import CodecPrecision, footprint, gigabytes, total_bytes
from heartvoice.server.profiles import GB10, Profile
from heartvoice.stages.svc.windows import OVERLAP_FRAMES

DOC = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "gpu.md"
BANDWIDTH = 233e9
"""Read bandwidth in bytes per second that others measured on a GB10 (231 to 234); its data sheet says 273."""
BF16_FLOPS, FP32_FLOPS = 100e12, 30e12
"""Estimates, not measured: dense bf16 on tensor cores; float32 without TF32."""
PROMPT_POSITIONS = 300
MEL_FRAMES_PER_S = 44_100 / SVC_HOP


@dataclass(frozen=True)
class Work:
    """One stage of a song, limited by memory bandwidth or by arithmetic."""

    name: str
    amount: str
    bf16_s: float
    fp32_s: float
    fp32_only: bool = False


def memory_rows(preset: Preset, profile: Profile, *, songs: int, codec: CodecPrecision) -> list[tuple[str, ...]]:
    """Rows of the memory table."""
    parts = footprint(preset, songs=songs, codec=codec, pool_bytes=profile.pool_bytes)
    rows = [(part.name, f"{gigabytes(part.n_bytes)}", part.kind, part.note) for part in parts]
    return [
        *rows,
        ("**in all**", f"**{gigabytes(total_bytes(parts))}**", "", f"of {profile.memory_bytes / 1e9:.0f} GB"),
    ]


def totals_rows(preset: Preset, profile: Profile) -> list[tuple[str, ...]]:
    """Rows of total memory by concurrent songs and by the codec's precision."""
    rows: list[tuple[str, ...]] = []
    for songs in (1, 2, 4, 8):
        sums = [
            total_bytes(footprint(preset, songs=songs, codec=codec, pool_bytes=profile.pool_bytes))
            for codec in ("bf16", "fp32")  # type: CodecPrecision
        ]
        rows.append((str(songs), *map(gigabytes, sums)))
    return rows


def time_rows(preset: Preset, duration_s: float) -> list[tuple[str, ...]]:
    """Rows of the lower bounds of a song's stages, run one after the other."""
    works = list(song_work(preset, duration_s))
    rows = [(work.name, work.amount, f"{work.bf16_s:.1f}", f"{work.fp32_s:.1f}") for work in works]
    mixed, exact = (
        sum(times) for times in zip(*((w.fp32_s if w.fp32_only else w.bf16_s, w.fp32_s) for w in works), strict=True)
    )
    return [*rows, ("**in all**", "bf16: the codec; the voice path in fp32", f"**{mixed:.1f}**", f"**{exact:.1f}**")]


def song_work(preset: Preset, duration_s: float) -> Iterable[Work]:
    """Yield the least work of a song with a voice, by stage."""
    frames = math.ceil(duration_s * FRAMES_PER_S)
    mean = PROMPT_POSITIONS + frames // 2
    read = frame_bytes(preset.lm, positions=mean, rows=2, weight_bytes=2, cache_bytes=2)
    writing = frames * read.total / BANDWIDTH + prefill_flop(preset.lm, positions=PROMPT_POSITIONS, rows=2) / BF16_FLOPS
    yield Work(
        "HeartMuLa", f"{frames} frames of {read.total / 1e9:.2f} GB at {mean} positions, guided, bf16", writing, writing
    )
    codec, windows = preset.codec, math.ceil(frames / WINDOW.max)
    latents = LATENTS_PER_FRAME * WINDOW.max
    steps = _default(CODEC_SETTINGS, "codec_steps")
    flow = windows * steps * flow_flop(codec, frames=latents, rows=2)
    yield _bound(
        "HeartCodec", flow + decoder_flop(codec, frames=LATENTS_PER_FRAME * frames),
        f"{windows} window{'s' if windows > 1 else ''} of {steps:.0f} guided steps, and the decoder",
    )  # fmt: skip
    yield from _voice_work(preset, duration_s)


def _separation(separator: AnySeparator, duration_s: float) -> Work:
    segments = math.ceil(duration_s * separator.samplerate / separator.stride_samples)
    if isinstance(separator, SpleeterConfig):
        one = _counted(separator, lambda module: module(_zeros(1, 2, separator.frames, separator.bins)))
        return _bound("Spleeter", segments * one, f"{segments} segments", fp32_only=True)
    if isinstance(separator, RoformerConfig):
        one = _counted(separator, lambda module: module(_zeros(1, separator.n_frames, separator.n_features)))
        return _bound(separator.name, segments * one, f"{segments} chunks", fp32_only=True)
    mix = 1, 2, separator.segment_samples
    spectrum = 1, 4, separator.nfft // 2, -(-separator.segment_samples // (separator.nfft // 4))
    one = _counted(separator, lambda module: module.core(_zeros(*mix), _zeros(*spectrum)))
    return _bound("Demucs", segments * one, f"{segments} segments, {separator.n_models} networks", fp32_only=True)


def _voice_work(preset: Preset, duration_s: float) -> Iterable[Work]:
    svc = preset.svc
    yield _separation(preset.separator, duration_s)

    whisper = _counted(svc.whisper, lambda module: module(_zeros(1, svc.whisper.num_mel_bins, 3000)))
    prompt = round(_default(SVC_SETTINGS, "prompt_s") * MEL_FRAMES_PER_S)
    context = SVC_CONTEXT - prompt
    windows = math.ceil(duration_s * MEL_FRAMES_PER_S / (context - OVERLAP_FRAMES))
    steps, dit = _default(SVC_SETTINGS, "svc_steps"), svc.dit
    velocity = _counted(dit, lambda module: module(
        _zeros(1, SVC_CONTEXT, dit.in_channels), _zeros(1, SVC_CONTEXT, dit.in_channels), _zeros(1, dit.style_dim),
        _zeros(1, SVC_CONTEXT, dit.content_dim), _zeros(1),
    ))  # fmt: skip
    yield _bound(
        "converter", math.ceil(duration_s / 30) * whisper + 2 * steps * windows * velocity,
        f"{windows} window{'s' if windows > 1 else ''} of {steps:.0f} guided steps, Whisper", fp32_only=True,
    )  # fmt: skip
    mel = round(MEL_FRAMES_PER_S)
    vocoder = _counted(svc.vocoder, lambda module: module(_zeros(1, svc.vocoder.num_mels, mel)))
    yield _bound("vocoder", duration_s * vocoder, f"{vocoder / 1e9:.0f} GFLOP a second of audio", fp32_only=True)
    if isinstance(preset.f0, RmvpeConfig):
        f0 = _counted(preset.f0, lambda module: module(_zeros(1, module.sizes.n_mels, 32))) / 32
        yield _bound("F0", duration_s * 100 * f0, f"{f0 * 100 / 1e9:.1f} GFLOP a second of audio", fp32_only=True)


def _bound(name: str, flop: float, amount: str, *, fp32_only: bool = False) -> Work:
    return Work(name, f"{flop / 1e12:.1f} TFLOP: {amount}", flop / BF16_FLOPS, flop / FP32_FLOPS, fp32_only)


def _default(settings: Iterable[Setting], name: str) -> float:
    return next(float(setting.default) for setting in settings if setting.name == name)


def _zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, device="meta")


def _counted(sizes: AnyConfig, call: Callable[[Any], object]) -> float:
    """Count the operations of one call without computing it."""
    module = build_module(sizes).eval()
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(module)
    return float(counter.get_total_flops())


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Format a Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def settings_table(profile: Profile) -> str:
    """Format flags and variables with their reasons."""
    rows = [(f"`--{flag.name}={flag.value}`", flag.why) for flag in profile.flags]
    rows += [(f"`{variable.name}={variable.value}`", variable.why) for variable in profile.variables]
    return table(("set", "why"), rows)


def tables(preset: Preset, profile: Profile) -> dict[str, str]:
    """Return the tables of docs/how-to/gpu.md by their marks."""
    return {
        "settings": settings_table(profile),
        "memory": table(
            ("what", "GB", "how it is known", ""), memory_rows(preset, profile, songs=1, codec="bf16")
        ),
        "totals": table(("songs at once", "codec bf16, GB", "codec fp32, GB"), totals_rows(preset, profile)),
        "times": table(("stage of 30 s in a voice", "work", "bf16, s", "fp32, s"), time_rows(preset, 30.0)),
    }  # fmt: skip


def filled(text: str, made: dict[str, str]) -> str:
    """Return a document with its marked tables replaced."""
    for name, lines in made.items():
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda m, lines=lines: m[1] + lines + m[2], text, flags=re.DOTALL)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"expected one table {name}, found {count}")
    return text


def main() -> None:
    """Print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/how-to/gpu.md")
    arguments = parser.parse_args()
    made = tables(PRESETS["oss-3b"], GB10)
    if arguments.write:
        DOC.write_text(filled(DOC.read_text(encoding="utf-8"), made), encoding="utf-8")
    for name, lines in made.items():
        print(f"{name}\n{lines}")


if __name__ == "__main__":
    main()
