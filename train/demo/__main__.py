r"""Trains the demo preset's networks and measures them.

    python -m train.demo all --folder build/demo

does, in this order and the first side by side with the next two, what these do:

    python -m train.demo lm --state build/demo/lm --output build/demo/weights
    python -m train.demo decoder --state build/demo/decoder
    python -m train.demo flow --decoder build/demo/decoder --state build/demo/flow --output build/demo/weights
    python -m train.demo evaluate-lm --weights build/demo/weights
    python -m train.demo evaluate-codec --weights build/demo/weights --decoder build/demo/decoder

    python -m train.demo separator --state build/demo/separator --output build/demo/weights

trains a separator for songs of the world, and

    python -m train.demo content --state build/demo/content --output build/demo/weights
    python -m train.demo style --state build/demo/style --output build/demo/weights
    python -m train.demo conversion --content build/demo/content --state build/demo/conversion \
        --output build/demo/weights
    python -m train.demo vocoder --state build/demo/vocoder --output build/demo/weights
    python -m train.demo evaluate-converter --weights build/demo/weights

a converter, and measure it. Each command says more by --help.
"""

from __future__ import annotations

import argparse
import sys

from train.demo import codec_commands, everything, separator_command
from train.demo.converter import command as converter
from train.demo.lm import command as lm
from train.frame.command import run


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    made = argparse.ArgumentParser(
        prog="python -m train.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = made.add_subparsers(title="commands", required=True, metavar="COMMAND")
    lm.add(commands)
    codec_commands.add(commands)
    separator_command.add(commands)
    converter.add(commands)
    everything.add(commands)
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    return run(parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
