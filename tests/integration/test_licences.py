"""Licences of what is installed: `make licences` finds the wrong ones, and the base install is permissive."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path

import piplicenses
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PERMISSIVE = re.compile(r"\b(Apache|BSD|ISC|MIT|PSF)\b")
"""Names of licences that ask for a notice and no more."""


Check = Callable[..., tuple[object, str]]


@pytest.fixture
def check_licences(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """What `make licences` runs, with the lists in pyproject.toml: its exit status and all that it prints."""

    def check(*options: str) -> tuple[object, str]:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["pip-licenses", *options])
        with pytest.raises(SystemExit) as ended:
            sys.exit(piplicenses.main())
        return ended.value.code or 0, "".join(capsys.readouterr())

    return check


def base_install() -> set[str]:
    """Packages that the base install brings, by following what each of them needs."""
    found, waiting = set[tuple[str, str]](), [("heartvoice", "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for needed in map(Requirement, requires(name) or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), each) for each in ("", *needed.extras)]
    return {name for name, _ in found} - {"heartvoice"}


def test_every_installed_package_has_an_allowed_licence(check_licences: Check) -> None:
    code, printed = check_licences()
    assert code == 0, printed
    assert "numpy" in printed


@pytest.mark.parametrize(
    ("metadata", "refused"),
    [
        ("License-Expression: MIT", False),
        ("License-Expression: LGPL-2.1-or-later", False),
        ("License-Expression: GPL-3.0-only", True),
        ("License-Expression: AGPL-3.0-or-later", True),
        ("License-Expression: Apache-2.0 AND GPL-2.0-only", True),
        ("License-Expression: LicenseRef-NVIDIA-Proprietary", True),
        ("License: see LICENSE", True),
        ("Keywords: none", True),
        (
            "Classifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
            True,
        ),
    ],
)
def test_strong_copyleft_and_unknown_licences_are_refused(
    metadata: str, refused: bool, check_licences: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made_up-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: made-up\nVersion: 1.0\n{metadata}\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, printed = check_licences("--packages", "made-up")
    assert (code, "made-up" in printed) == (int(refused), True), printed


def test_the_base_install_is_permissive_and_listed_in_the_documentation(check_licences: Check) -> None:
    names = base_install()
    assert {"numpy", "tritonclient", "grpcio", "protobuf", "soundfile", "cffi", "typer", "rich"} <= names
    assert not {"torch", "onnxruntime", "tokenizers", "scipy"} & names, "the thin client stays thin"
    text = (ROOT / "docs" / "explanation" / "security.md").read_text()
    table = text.split("<!-- table: licences -->")[1].split("<!-- end -->")[0]
    listed = dict(re.findall(r"^\| ([a-z0-9-]+) \| ([^|]+) \|", table, re.MULTILINE))
    assert names <= set(listed)
    code, printed = check_licences("--format=csv", "--packages", *names)
    assert code == 0, printed
    rows = [line.strip('"').split('","') for line in printed.splitlines()[1:]]
    assert {canonicalize_name(name) for name, _, _ in rows} == names
    assert [row for row in rows if not PERMISSIVE.search(row[2]) or "GPL" in row[2]] == []
