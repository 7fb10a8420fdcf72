"""Writes what README.md and docs say of models, settings, weights and words, from the code that decides it.

python -m docs.scripts.reference           # says which file differs; ends with 1 if one does
python -m docs.scripts.reference --write   # writes them
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from heartvoice.contracts.models import COVER, MODELS, RENDER, SONG
from heartvoice.contracts.types import ModelSpec, Setting, TensorSpec
from heartvoice.export.wheel_files import MEMBERS
from heartvoice.weights.catalogue import WEIGHTS
from train.demo import words

ROOT = Path(__file__).resolve().parents[2]
README, SETTINGS, MODEL_PAGE, WEIGHTS_PAGE, DEMO_PAGE = (
    "README.md",
    "docs/reference/settings.md",
    "docs/reference/models.md",
    "docs/how-to/weights.md",
    "docs/explanation/demo-world.md",
)
END = "<!-- end -->"
JUDGED = {
    "resemblyzer": "Resemblyzer",
    "swift-f0": "swift-f0",
    "spleeter": "Spleeter, two stems",
    "dnsmos": "DNSMOS",
    "whisper-tiny.en model.bin": "Whisper tiny.en",
}
"""Published networks that come out of PyPI wheels."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in (head, ["---"] * len(head), *rows))


def wrapped(text: str) -> str:
    """Prose in lines that a diff can show."""
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def default_of(setting: Setting) -> str:
    """The default as a reader writes it."""
    return str(setting.default).lower() if setting.dtype == "BOOL" else f"{setting.default:g}"


def settings_table() -> str:
    """Every setting of the three models that callers use, once."""
    users: dict[Setting, list[str]] = {}
    for model in (SONG, COVER, RENDER):
        for setting in model.settings:
            users.setdefault(setting, []).append(f"`{model.name}`")
    rows = [
        [f"`{each.name}`", each.dtype, default_of(each), each.describe(), each.doc, ", ".join(of)]
        for each, of in users.items()
    ]
    return table(("setting", "type", "default", "range", "meaning", "models"), rows)


def _shape(tensor: TensorSpec) -> str:
    return tensor.describe().removeprefix(tensor.dtype).strip()


def _tensors(kind: str, tensors: Sequence[TensorSpec]) -> str:
    required = kind == "input"
    rows = [
        [
            f"`{each.name}`",
            each.dtype,
            f"`{_shape(each)}`",
            f"{each.doc} Required." if required and not each.optional else each.doc,
        ]
        for each in tensors
    ]
    return table((kind, "type", "shape", "meaning"), rows)


def _kind(model: ModelSpec) -> str:
    if model.backend == "python":
        text = "streamed" if model.decoupled else "unary"
        parameters = ", ".join(f"`{name}` {value}" for name, value in model.parameters.items())
        return f"Python model, {text}. Parameters in `config.pbtxt`: {parameters}."
    batch = f"at most {model.max_batch_size} rows, a leading axis" if model.max_batch_size else "no batch axis"
    where = "; opened by the model that loops over it, loaded by Triton only on request" if model.local else ""
    return f"Graph, {batch}{where}."


def model_sections() -> str:
    """Every model with its tensors."""
    sections = []
    for model in MODELS.values():
        parts = [f"## {model.name}", wrapped(f"{model.doc} {_kind(model)}")]
        if model.inputs:
            parts.append(_tensors("input", model.inputs))
        parts.append(_tensors("output", model.outputs))
        if model.settings:
            names = ", ".join(f"`{setting.name}`" for setting in model.settings)
            parts.append(wrapped(f"Settings: {names}."))
        sections.append("\n\n".join(parts))
    return "\n\n".join(sections)


def licences_table() -> str:
    """Licences of all weights, as their publishers state them."""
    merged: dict[str, list[str]] = {}
    for each in WEIGHTS:
        merged.setdefault(each.licence, []).append(f"`{each.name}`")
    for name, title in JUDGED.items():
        merged.setdefault(MEMBERS[name].licence, []).append(title)
    return table(("weights", "licence"), [[", ".join(names), licence] for licence, names in merged.items()])


def weights_table() -> str:
    """Where the official weights come from."""
    rows = [
        [
            f"`{each.name}`",
            each.title,
            "the folder itself" if each.folder == "." else f"`{each.folder}/`",
            each.size,
            each.needed_by,
        ]
        for each in WEIGHTS
    ]
    return table(("set", "from", "to", "size", "needed by"), rows)


def demo_words() -> str:
    """The words that the demo world can sing."""
    known = sorted(words.phonemes())
    return f"{len(known)} English words:\n\n{wrapped(', '.join(known) + '.')}"


def tables() -> Mapping[tuple[str, str], str]:
    """Each generated part by its file and its mark."""
    return {
        (README, "licences"): licences_table(),
        (SETTINGS, "settings"): settings_table(),
        (MODEL_PAGE, "models"): model_sections(),
        (WEIGHTS_PAGE, "weights"): weights_table(),
        (DEMO_PAGE, "demo words"): demo_words(),
    }


def replaced(text: str, mark: str, content: str) -> str:
    """The text with `content` between the mark and the next end.

    Raises:
        ValueError: the mark is not there.
    """
    pattern = re.compile(rf"(<!-- generated: {re.escape(mark)} -->\n).*?({re.escape(END)})", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no mark {mark!r}")
    return pattern.sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", text, count=1)


def outdated(write: bool = False) -> list[str]:
    """The files that differ from the code; `write` puts them right."""
    changed = []
    for (file, mark), content in tables().items():
        path = ROOT / file
        text = path.read_text(encoding="utf-8")
        new = replaced(text, mark, content)
        if new == text:
            continue
        changed.append(file)
        if write:
            path.write_text(new, encoding="utf-8")
    return changed


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="docs.scripts.reference", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the files")
    options = parser.parse_args(arguments)
    changed = outdated(options.write)
    print("\n".join(f"{'written' if options.write else 'differs'}: {file}" for file in changed) or "current")
    sys.exit(bool(changed) and not options.write)


if __name__ == "__main__":
    main()
