"""An owner's voices by Python: the registry on this machine, and the server that forgets a purged one."""

from __future__ import annotations

import asyncio
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.client import AsyncClient, Client, Voices
from heartvoice.contracts.models import SVC
from heartvoice.errors import EngineError, InvalidRequestError, ModelUnavailableError, QuotaError
from heartvoice.voices.registry import Registry
from tests.fakes.server import FakeServer, error_response, final, input_bytes, input_raw, scripted, stream_response
from tests.support.callers import heartvoice
from tests.support.voices import OWNER, PHRASE, REFERENCE, Says, enrol


def forgotten(server: FakeServer, report: object = None) -> None:
    """Let the server answer requests to `svc` so."""
    told = json.dumps({"forgotten": 2} if report is None else report).encode()
    server.svc = scripted(stream_response({"REPORT": told}, SVC), final())


@pytest.fixture
def folder(registry: Registry, tmp_path: Path) -> Path:
    return tmp_path / "registry"


def test_a_voice_is_enrolled_approved_exported_and_purged(folder: Path, server: FakeServer, tmp_path: Path) -> None:
    forgotten(server)
    (tmp_path / "phrase.wav").write_bytes(PHRASE)
    locales: list[str] = []

    def checks(locale: str) -> Says:
        locales.append(locale)
        return Says(words=True, speaker=None)

    with Client(server.url, registry=folder, owner=OWNER) as client:
        voices = client.voices
        asked = voices.consent(speaker="J. Doe", purpose="demos", locale="de")
        made = voices.enrol(asked.id, tmp_path / "phrase.wav", [REFERENCE, PHRASE], checks)
        voice = made.status.id
        assert (made.status.state, locales, made.record["id"]) == ("unverified", ["de"], asked.id)
        assert voices.approve(voice, by="Op", why="heard it").status.state == "verified"
        assert voices.show(voice).record["approval"]["by"] == "Op"
        assert [each.id for each in voices.list()] == [voice]
        assert voices.export(voice, tmp_path / "mine.zip") == tuple(zipfile.ZipFile(tmp_path / "mine.zip").namelist())
        assert (tmp_path / "mine.zip").stat().st_mode & 0o777 == 0o600
        assert voices.revoke(voice).state == "revoked"
        assert not server.requests
        assert voices.purge(voice).status.state == "purged"
    assert [input_bytes(request, "voice") for request in server.requests] == [REFERENCE, PHRASE]
    assert all(input_raw(request, "forget") == b"\x01" for request in server.requests)
    assert {tensor.name for tensor in server.requests[0].inputs} == {"voice", "forget"}, "no consent, no vocals"
    assert Voices(folder, OWNER).purge(voice).status.state == "purged"
    assert Voices(folder, "somebody").list() == []


def test_a_voice_that_the_server_did_not_forget_is_revoked_and_not_purged(
    folder: Path, registry: Registry, server: FakeServer
) -> None:
    voice = enrol(registry).status.id
    server.svc = scripted(error_response("UNAVAILABLE: svc: too much to do"))
    with Client(server.url, registry=folder, owner=OWNER, retries=0) as client:
        with pytest.raises(ModelUnavailableError, match="too much to do"):
            client.voices.purge(voice)
        assert client.voices.show(voice).status.state == "revoked"
        forgotten(server)
        assert client.voices.purge(voice).status.state == "purged"
        another = enrol(registry).status.id
        server.requests.clear()
        assert client.voices.purge(another, forget=False).status.state == "purged"
    assert not server.requests


def test_mistakes_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voices = Voices(folder, OWNER)
    with pytest.raises(InvalidRequestError, match="consent: there is none 'consent_1'"):
        voices.enrol("consent_1", PHRASE, [REFERENCE], lambda _: Says())
    with pytest.raises(InvalidRequestError, match="phrase: cannot read"):
        voices.enrol("consent_1", tmp_path / "none.wav", [REFERENCE], lambda _: Says())
    with pytest.raises(InvalidRequestError, match=r"expected a name ending in \.zip"):
        voices.export("voice_1", tmp_path / "x.tar")
    asked = voices.consent(speaker="J. Doe", purpose="demos")
    voices.enrol(asked.id, PHRASE, [REFERENCE], lambda _: Says(), tries_per_hour=1)
    asked = voices.consent(speaker="J. Doe", purpose="demos")
    with pytest.raises(QuotaError, match="at most 1 enrolments"):
        voices.enrol(asked.id, PHRASE, [REFERENCE], lambda _: Says(), tries_per_hour=1)
    monkeypatch.setenv("HEARTVOICE_REGISTRY", str(tmp_path / "none"))
    with pytest.raises(InvalidRequestError, match="registry: expected a folder with"):
        Voices().list()


@pytest.mark.parametrize("report", [{}, [], {"forgotten": "2"}])
def test_an_answer_that_says_nothing_is_an_error(server: FakeServer, report: object) -> None:
    forgotten(server, report)
    with Client(server.url) as client, pytest.raises(EngineError, match="REPORT: expected how much was forgotten"):
        client.forget_voice(REFERENCE)


def test_both_clients_have_a_server_forget_samples_and_files(server: FakeServer) -> None:
    forgotten(server)
    samples: Any = (np.full(4 * 44_100, 0.1, np.float32), 44_100)

    async def forget() -> int:
        async with AsyncClient(server.url) as client:
            return await client.forget_voice(samples)

    assert asyncio.run(forget()) == 2
    with Client(server.url) as client:
        assert client.forget_voice(samples) == 2
        server.svc = scripted(final())
        with pytest.raises(EngineError, match="without its report"):
            client.forget_voice(samples)
    assert {tensor.name for tensor in server.requests[0].inputs} == {"voice_audio", "voice_sample_rate", "forget"}


def test_the_command_has_each_server_forget_the_voice(folder: Path, registry: Registry, server: FakeServer) -> None:
    forgotten(server)
    voice = enrol(registry).status.id
    command = ("voice", "purge", voice, "--registry", os.fspath(folder), "--owner", OWNER)
    refused = heartvoice(*command, "--url", "127.0.0.1:1")
    assert refused.exit_code == 3
    assert Voices(folder, OWNER).show(voice).status.state == "revoked"
    done = heartvoice(*command, "--url", server.url, "--url", server.url)
    assert done.exit_code == 0, done.stderr
    assert "signed tombstone: {" in done.stdout
    assert [input_bytes(request, "voice") for request in server.requests] == [REFERENCE] * 2
