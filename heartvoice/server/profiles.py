"""Profiles of machines: flags of the server and settings of its processes, each with its reason.

docs/how-to/gpu.md shows these tables; a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from heartvoice.errors import SetupError


@dataclass(frozen=True)
class Setting:
    """One flag or variable."""

    name: str
    value: str
    why: str


@dataclass(frozen=True)
class Profile:
    """Settings for one kind of machine."""

    name: str
    doc: str
    flags: tuple[Setting, ...]
    """Of tritonserver, without the two dashes."""
    variables: tuple[Setting, ...]
    """Of the server's environment, which the models' processes inherit; what is set already stays."""
    drop_page_cache: bool
    """True if files are dropped from the page cache once they are loaded."""
    compute_capability: tuple[int, int]
    min_driver: int
    """Major version."""
    min_cuda: tuple[int, int]
    """That the driver supports."""
    memory_bytes: int
    """Of the machine, for the whole of it."""
    shm_bytes: int
    """Of /dev/shm: tensors between the server and its processes."""

    @property
    def arguments(self) -> list[str]:
        """Flags for the command line."""
        return [f"--{flag.name}={flag.value}" for flag in self.flags]

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with the profile's variables, which give way to those that are set there."""
        return {variable.name: variable.value for variable in self.variables} | dict(base)

    @property
    def pool_bytes(self) -> int:
        """Of Triton's memory pools, which are taken at the start."""
        return sum(int(flag.value.rpartition(":")[2]) for flag in self.flags if flag.name.endswith("pool-byte-size"))


GB10 = Profile(
    "gb10",
    "NVIDIA GB10 (DGX Spark): 20 Arm cores and a Blackwell GPU over one memory of 128 GB.",
    flags=(
        Setting(
            "pinned-memory-pool-byte-size", str(64 * 2**20),
            "Default 256 MiB, taken at the start. CPU and GPU read the same memory, so staging wins nothing; "
            "64 MiB hold the inputs of the largest joined call of a native graph (four segments of htdemucs).",
        ),
        Setting(
            "cuda-memory-pool-byte-size", f"0:{128 * 2**20}",
            "Default 64 MiB. Twice that call: one batch is gathered while the one before it runs. Responses do not "
            "pass here, since every inner call asks for them on the CPU.",
        ),
        Setting(
            "model-load-thread-count", "1",
            "Default 4. A load holds its file and its weights at the same time, here in the same memory: one after the "
            "other, the peak is what is loaded and one file more, not four.",
        ),
    ),
    variables=(
        Setting(
            "HEARTVOICE_DEVICE", "cuda",
            "The graphs in loops (codec, converter) run on the GPU; if they cannot, the model does not load.",
        ),
        Setting(
            "PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True",
            "PyTorch's reserve grows in place; fragments of it would be lost to every other process here.",
        ),
        Setting(
            "CUDA_MODULE_LOADING", "LAZY",
            "Four processes have a CUDA context each; kernels that are never called are not loaded into them.",
        ),
    ),
    drop_page_cache=True,
    compute_capability=(12, 1),
    min_driver=580,
    min_cuda=(13, 0),
    memory_bytes=128 * 10**9,
    shm_bytes=4 * 2**30,  # eight Python models, each up to four times its largest tensor, a file of 100 MB
)  # fmt: skip

PROFILES: Mapping[str, Profile] = MappingProxyType({GB10.name: GB10})


def find(name: str, option: str) -> Profile:
    """The profile of that name.

    Raises:
        SetupError: there is none; names the option and those there are.
    """
    if name not in PROFILES:
        raise SetupError(f"{option}: expected one of {', '.join(PROFILES)}, got {name!r}")
    return PROFILES[name]
