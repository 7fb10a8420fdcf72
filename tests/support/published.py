"""Published weights in miniature: the official names and sharding with a few bytes each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from typer.testing import Result

from heartvoice.weights import catalogue
from heartvoice.weights.catalogue import WeightSet
from tests.fakes.hub import HubServer, sha256
from tests.support.callers import heartvoice

GEN = "HeartMuLa/HeartMuLaGen"
LM = "HeartMuLa/HeartMuLa-oss-3B-happy-new-year"
LM_FILES = {
    "config.json": b'{"model_type": "heartmula"}',
    "model-00001-of-00002.safetensors": bytes(range(256)) * 8,
    "model-00002-of-00002.safetensors": bytes(range(255, -1, -1)) * 8,
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "README.md": b"a card",
    ".gitattributes": b"*.safetensors filter=lfs",
    "assets/logo.safetensors": b"not ours: it lies in a folder",
}
SHARD = "model-00001-of-00002.safetensors"
SHARD_AT = f"HeartMuLa-oss-3B/{SHARD}"
BROKEN = (1000, 0, 0, 0, 0, 0)
"""Bytes of each response on a connection that breaks at every attempt of the library."""
LM_WANTED = sorted(name for name in LM_FILES if name.startswith(("config", "model")))


def pull(hub: HubServer, weights: Path, *only: str, arguments: tuple[str, ...] = ()) -> Result:
    named = [part for name in only for part in ("--only", name)]
    return heartvoice("weights", "pull", "--dir", str(weights), "--mirror", hub.url, *named, *arguments)


def verify(weights: Path) -> Result:
    return heartvoice("weights", "verify", "--dir", str(weights))


def on_disk(weights: Path) -> list[str]:
    """List all files except the lock, hidden ones included."""
    files = (path.relative_to(weights).as_posix() for path in weights.rglob("*") if path.is_file())
    return sorted(path for path in files if path != "weights.lock")


def named(name: str) -> WeightSet:
    return next(each for each in catalogue.WEIGHTS if each.name == name)


def plain_demucs(hub: HubServer, contents: dict[str, bytes]) -> WeightSet:
    """Publish Demucs' set on the fake hub: signature, and the first digits of the content's hash."""
    names = {f"{signature}-{sha256(content)[:8]}.th": content for signature, content in contents.items()}
    hub.plain.update(names)
    known = {name: f"{name[-11:-3]}…" for name in names}
    return replace(named("demucs"), origin=f"{hub.url}/plain/", files=tuple(names), known=known)
