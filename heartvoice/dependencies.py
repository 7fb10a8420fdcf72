"""What an installation consists of: versions, licences, and which of them known advisories speak of.

`python -m heartvoice.dependencies licences|inventory|advisories [--extra NAME]...` reads the metadata of what is
installed, without a network. Needs the package `packaging` (in the extra `dev`).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = "heartvoice"
Kind = Literal["permissive", "weak copyleft", "copyleft", "proprietary", "unknown"]
_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("copyleft", re.compile(r"(?<![L])A?GPL|(?<!Lesser )General Public License|SSPL|EUPL", re.IGNORECASE)),
    ("proprietary", re.compile(r"LicenseRef-NVIDIA|proprietary|NVIDIA Software|commercial", re.IGNORECASE)),
    ("weak copyleft", re.compile(r"LGPL|Lesser General|MPL|Mozilla|EPL|CDDL", re.IGNORECASE)),
    (
        "permissive",
        re.compile(r"\b(MIT|BSD|Apache|ISC|PSF|Python|Zlib|HPND|Unlicense|CC0|0BSD|ZPL|Zope|Boost|BSL)", re.IGNORECASE),
    ),
)
"""In the order in which they are looked for: the strictest that a text names is what holds."""
_LONGEST = 80
"""Characters of a licence field that is still a name; some packages put the whole text there."""
_CLASSIFIER = "License :: "
_ECOSYSTEM = "PyPI"


@dataclass(frozen=True)
class Package:
    """An installed package."""

    name: str
    version: str
    licence: str
    """As its metadata says: an SPDX expression, or words."""
    needed_by: str
    """`heartvoice`, or the package through which it came."""

    @property
    def kind(self) -> Kind:
        """What the licence asks of those who pass the package on."""
        return kind_of(self.licence)


@dataclass(frozen=True)
class Finding:
    """An advisory that speaks of an installed version."""

    package: Package
    advisory: str
    summary: str


def kind_of(licence: str) -> Kind:
    """The strictest kind that a licence's name or expression speaks of; of alternatives (OR), the mildest."""
    order = ("permissive", "weak copyleft", "proprietary", "copyleft", "unknown")
    kinds = [_kind_of_one(part) for part in re.split(r"\s+OR\s+", licence)]
    return min(kinds, key=order.index)


def _kind_of_one(licence: str) -> Kind:
    for kind, pattern in _KINDS:
        if pattern.search(licence):
            return kind
    return "unknown"


def installed(extras: Sequence[str] = (), root: str = ROOT) -> list[Package]:
    """All packages that `root` needs, with these extras, and what they need in turn; sorted by name.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    found: dict[str, Package] = {}
    done: set[tuple[str, str]] = set()
    waiting = [(root, extra, "") for extra in ("", *extras)]
    while waiting:
        name, extra, parent = waiting.pop()
        key = canonicalize_name(name)
        if (key, extra) in done:
            continue
        done.add((key, extra))
        metadata = distribution(name)
        if parent and key != canonicalize_name(root):
            found.setdefault(key, Package(key, metadata.version, licence_of(metadata), parent))
        for needed in _needed(metadata, extra):
            waiting += [(needed.name, wanted, name) for wanted in ("", *needed.extras)]
    return sorted(found.values(), key=lambda package: package.name)


def _needed(metadata: Distribution, extra: str) -> Iterator[Requirement]:
    """What a package needs here: with the extra, or without any."""
    for line in metadata.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None:
            if not extra:
                yield requirement
        elif requirement.marker.evaluate({"extra": extra}) and (
            not extra or not requirement.marker.evaluate({"extra": ""})
        ):
            yield requirement


def licence_of(metadata: Distribution) -> str:
    """The licence's name: the SPDX expression, else the classifiers, else a short licence field, else ""."""
    fields: Any = metadata.metadata
    expression = (fields.get("License-Expression") or "").strip()
    if expression:
        return expression
    classifiers = [line.rpartition(" :: ")[2] for line in fields.get_all("Classifier") or () if _is_telling(line)]
    if classifiers:
        return "; ".join(classifiers)
    first = (fields.get("License") or "").strip().partition("\n")[0]
    return first if len(first) <= _LONGEST else ""


def _is_telling(classifier: str) -> bool:
    return classifier.startswith(_CLASSIFIER) and not classifier.endswith("OSI Approved")


# ---------------------------------------------------------------------------------------------------------- advisories


def advisories(path: Path) -> Iterator[dict[str, Any]]:
    """Advisories in the OSV format from a ZIP (osv.dev's export), a folder of .json, or a .json with one or several."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".json"):
                    yield from _listed(json.loads(archive.read(name)))
    elif path.is_dir():
        for file in sorted(path.rglob("*.json")):
            yield from _listed(json.loads(file.read_text()))
    else:
        yield from _listed(json.loads(path.read_text()))


def _listed(value: Any) -> list[dict[str, Any]]:
    return value if isinstance(value, list) else [value]


def matching(packages: Iterable[Package], known: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Which advisories speak of an installed version; one for a flaw that goes by several names."""
    by_name = {package.name: package for package in packages}
    findings, seen = [], set[tuple[str, str]]()
    for advisory in known:
        if advisory.get("withdrawn"):
            continue
        for affected in advisory.get("affected") or ():
            of = affected.get("package") or {}
            package = by_name.get(canonicalize_name(of.get("name", "")))
            if of.get("ecosystem") == _ECOSYSTEM and package is not None and _affects(affected, package.version):
                names = [advisory["id"], *(advisory.get("aliases") or ())]
                if seen.isdisjoint((package.name, name) for name in names):
                    summary = advisory.get("summary") or (advisory.get("details") or "").strip().partition("\n")[0]
                    findings.append(Finding(package, ", ".join(names), summary))
                seen.update((package.name, name) for name in names)
                break
    return findings


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _affects(affected: Mapping[str, Any], text: str) -> bool:
    """Rather once too often: a version that is none is affected by whatever is said of its package."""
    version = _version(text)
    if version is None:
        return True
    public = Version(version.public)  # advisories know no local builds such as +cpu
    ranges = (each for each in affected.get("ranges") or () if each.get("type") == "ECOSYSTEM")
    listed = affected.get("versions") or ()
    return any(_version(each) == public for each in listed) or any(
        _within(each.get("events") or (), public) for each in ranges
    )


_EVENTS = ("fixed", "introduced", "last_affected")
"""In the order in which they count where they name the same version."""


def _within(events: Iterable[Mapping[str, str]], version: Version) -> bool:
    """Whether a version lies in an OSV range: the last event at or before it decides, in whatever order they stand.

    An end that is no version is left out, so that the range stays open; a beginning that is none is before all.
    """
    turns = []
    for kind, text in (item for event in events for item in event.items() if item[1]):
        at = None if text == "0" else _version(text)
        if kind in _EVENTS and (at is not None or kind == "introduced"):
            turns.append((at is not None, at or version, _EVENTS.index(kind)))
    inside = False
    for bounded, at, number in sorted(turns):
        if _EVENTS[number] == "introduced":
            inside = inside or not bounded or version >= at
        elif version > at or (version == at and _EVENTS[number] == "fixed"):
            inside = False
    return inside


# ------------------------------------------------------------------------------------------------------------- command


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exits with 1 where an advisory matches, or a licence is refused by `--fail-on`."""
    parser = argparse.ArgumentParser(prog="python -m heartvoice.dependencies", description=__doc__)
    parser.add_argument("what", choices=["licences", "inventory", "advisories"])
    parser.add_argument("--extra", action="append", default=[], help="also what this extra needs; may be repeated")
    parser.add_argument("--file", type=Path, help="advisories: OSV's PyPI/all.zip, a folder of .json, or one .json")
    parser.add_argument("--fail-on", default="", help="licences: kinds that make it fail, with commas")
    options = parser.parse_args(arguments)
    try:
        packages = installed(options.extra)
    except PackageNotFoundError as error:
        print(f"error: {error.name} is not installed", file=sys.stderr)
        return 2
    if options.what == "inventory":
        print("\n".join(f"{package.name}=={package.version}" for package in packages))
        return 0
    if options.what == "licences":
        return _licences(packages, {kind.strip() for kind in options.fail_on.split(",")})
    if options.file is None:
        parser.error("advisories: expected --file; see docs/explanation/security.md for where to get one")
    try:
        known = list(advisories(options.file))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        print(f"error: --file: expected advisories in the OSV format, got {options.file}: {error}", file=sys.stderr)
        return 2
    if not known:  # no news is not good news
        print(f"error: --file: {options.file} holds no advisory (.json in the OSV format)", file=sys.stderr)
        return 2
    findings = matching(packages, known)
    for finding in findings:
        print(f"{finding.package.name} {finding.package.version}: {finding.advisory}: {finding.summary}")
    newest = max(str(advisory.get("modified", "")) for advisory in known) or "no date"
    print(f"{len(packages)} packages, {len(known)} advisories (the newest of {newest}): {len(findings)} match")
    return 1 if findings else 0


def _licences(packages: list[Package], refused: set[str]) -> int:
    print("| package | version | licence | kind | needed by |\n|---|---|---|---|---|")
    for package in packages:
        cells = (package.name, package.version, package.licence or "not said", package.kind, package.needed_by)
        print(f"| {' | '.join(cells)} |")
    bad = [package for package in packages if package.kind in refused]
    for package in bad:
        print(f"error: {package.name}: {package.kind}: {package.licence!r}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
