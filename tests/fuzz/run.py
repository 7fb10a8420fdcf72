"""`python -m tests.fuzz.run TARGET|all --seconds 30`: fuzz, and keep what fails.

By atheris where it is installed (`pip install atheris`, Linux on x86-64, CPython 3.11 and later), guided by coverage;
elsewhere by hypothesis. What fails is written to build/fuzz/TARGET/crash-*; once mended, it moves to
tests/fuzz/corpus/TARGET, which every test run replays.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sys
import time
import traceback
from pathlib import Path

from tests.fuzz.names import NAMES
from tests.fuzz.seeds import FOLDER

CORPUS = Path("build/fuzz")
_MAX_BYTES = 65_536
_SLOWEST_S = 20
"""Of one input; more is a hang."""
_MEMORY_MIB = 3000


def main() -> int:
    """The command; exits with 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("target", choices=["all", *NAMES])
    parser.add_argument("--seconds", type=float, default=30.0, help="for each target (default 30)")
    parser.add_argument("--engine", choices=["auto", "atheris", "hypothesis"], default="auto")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help=f"what was found (default {CORPUS})")
    options = parser.parse_args()
    engine = options.engine
    if engine == "auto":
        engine = "atheris" if importlib.util.find_spec("atheris") else "hypothesis"
    run = {"atheris": with_atheris, "hypothesis": with_hypothesis}[engine]
    failed = []
    for target in NAMES if options.target == "all" else [options.target]:
        began = time.monotonic()
        good = run(target, options.seconds, options.corpus)
        print(f"{target}: {'nothing found' if good else 'FAILED'} by {engine} in {time.monotonic() - began:.0f} s")
        failed += [] if good else [target]
    return 1 if failed else 0


def with_atheris(target: str, seconds: float, corpus: Path) -> bool:
    """In a process of its own, since libFuzzer ends the one it runs in; a crash of C code is found, too."""
    folder = corpus / target
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "tests.fuzz.atheris_target", target,
        f"-max_total_time={max(1, round(seconds))}", f"-max_len={_MAX_BYTES}", f"-timeout={_SLOWEST_S}",
        f"-rss_limit_mb={_MEMORY_MIB}", f"-artifact_prefix={folder}/", "-print_final_stats=1", "-verbosity=0",
        str(folder), str(FOLDER / target),
    ]  # fmt: skip
    return subprocess.run(command, check=False).returncode == 0


def with_hypothesis(target: str, seconds: float, corpus: Path) -> bool:
    """By mutated seeds, until the time is over."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    from tests.fuzz.mutate import mutated
    from tests.fuzz.targets import TARGETS

    seeds = [path.read_bytes() for path in sorted((FOLDER / target).iterdir())]
    last = b""
    deadline = time.monotonic() + seconds

    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def some(data: st.DataObject) -> None:
        nonlocal last
        last = data.draw(mutated(seeds))
        TARGETS[target](last)

    n_runs = 0
    try:
        while n_runs == 0 or time.monotonic() < deadline:
            some()
            n_runs += 1
    except Exception:
        traceback.print_exc()
        folder = corpus / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"crash-{hashlib.sha256(last).hexdigest()[:16]}").write_bytes(last)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
