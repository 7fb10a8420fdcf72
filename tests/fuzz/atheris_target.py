"""One target under atheris: our own modules are imported with instrumentation, so that new paths are noticed."""

from __future__ import annotations

import os
import sys

OURS = ["heartvoice", "tests.fuzz.targets"]


def main() -> None:
    """`python -m tests.fuzz.atheris_target TARGET [libFuzzer's options and folders]`."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import atheris

    with atheris.instrument_imports(include=OURS):
        from tests.fuzz.targets import TARGETS

    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
