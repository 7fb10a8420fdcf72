"""Registered voices: an id is sent as it is, or looked up in a registry of the client's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from heartvoice.client import Client, RegisteredVoice, SongRequest
from heartvoice.errors import InvalidRequestError, ModelUnavailableError
from heartvoice.voices.registry import Registry
from tests.fakes.server import FakeServer, abort, error_response, input_bytes
from tests.support.callers import Caller
from tests.support.voices import OWNER, REFERENCE, enrol

VOICE = "voice_" + "0" * 32
JOBS = [("song", {"tags": "pop"}), ("render", {"tags": "pop"}), ("cover", {"recording": b"a song"})]


def names(request: Any) -> set[str]:
    """The inputs that were sent."""
    return {tensor.name for tensor in request.inputs}


@pytest.mark.parametrize(("method", "arguments"), JOBS)
def test_an_id_is_sent_alone(server: FakeServer, caller: Caller, method: str, arguments: dict[str, Any]) -> None:
    for voice in (VOICE, RegisteredVoice(VOICE)):
        server.requests.clear()
        caller.call(method, server.url, **arguments, voice=voice)
        (sent,) = server.requests
        assert input_bytes(sent, "voice_id") == VOICE.encode()
        assert not {"voice", "voice_audio", "voice_consent"} & names(sent)


@pytest.mark.parametrize(("method", "arguments"), JOBS)
def test_an_own_registry_gives_reference_and_record(
    server: FakeServer, caller: Caller, registry: Registry, tmp_path: Path, method: str, arguments: dict[str, Any]
) -> None:
    made = enrol(registry).status
    client = {"registry": tmp_path / "registry", "owner": OWNER}
    caller.call(method, server.url, client, **arguments, voice=made.id)
    (sent,) = server.requests
    assert input_bytes(sent, "voice") == REFERENCE
    assert input_bytes(sent, "voice_consent") == f"consent record {made.consent}".encode()
    assert "voice_id" not in names(sent)


def test_who_may_not_sing_is_refused_before_anything_is_sent(
    server: FakeServer, caller: Caller, registry: Registry, tmp_path: Path
) -> None:
    voice = enrol(registry, words=None).status.id
    client = {"registry": str(tmp_path / "registry"), "owner": OWNER}
    with pytest.raises(InvalidRequestError, match="is unverified and cannot sing"):
        caller.song(server.url, client, tags="pop", voice=voice)
    for owner, wanted in ((OWNER, VOICE), ("thief", voice)):
        with pytest.raises(InvalidRequestError, match=f"voice: there is none '{wanted}'"):
            caller.song(server.url, client | {"owner": owner}, tags="pop", voice=wanted)
    with pytest.raises(InvalidRequestError, match="registry: expected a folder with"):
        caller.song(server.url, {"registry": tmp_path / "none"}, tags="pop", voice=voice)
    assert not server.requests


@pytest.mark.parametrize("own", [True, False])
def test_a_consent_beside_an_id_is_refused(
    server: FakeServer, caller: Caller, registry: Registry, tmp_path: Path, own: bool
) -> None:
    client = {"registry": tmp_path / "registry", "owner": OWNER} if own else None
    with pytest.raises(InvalidRequestError, match=r"^consent: expected none beside a registered voice, whose record"):
        caller.song(server.url, client, tags="pop", voice=VOICE, consent="me")
    assert not server.requests


def test_a_whole_request_may_name_a_voice(server: FakeServer, registry: Registry, tmp_path: Path) -> None:
    request = SongRequest(tags="pop", voice=RegisteredVoice(enrol(registry).status.id))
    with Client(server.url, registry=tmp_path / "registry", owner=OWNER) as client:
        client.song(request)
    assert input_bytes(server.requests[0], "voice") == REFERENCE


def test_a_file_of_that_name_is_a_file(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(VOICE).write_bytes(b"a voice")
    with Client(server.url) as client:
        client.song(tags="pop", voice=VOICE, consent="me")
    assert input_bytes(server.requests[0], "voice") == b"a voice"


def test_a_wrong_id_is_named_as_the_caller_named_it() -> None:
    with Client() as client, pytest.raises(InvalidRequestError, match="expected voice_ and 32 hexadecimal digits"):
        client.song(SongRequest(tags="pop", voice=RegisteredVoice("voice_1")))


@pytest.mark.parametrize(
    "said", ["unexpected inference input 'voice_id' for model 'song'", "'voice_id': song has no such input"]
)
def test_a_server_without_a_registry_is_explained(server: FakeServer, caller: Caller, said: str) -> None:
    refused = abort(grpc.StatusCode.INVALID_ARGUMENT, f"[request id: 7] {said}")
    for server.song in (refused, lambda *_: iter([error_response(f"INVALID_ARG: {said}")])):
        with pytest.raises(InvalidRequestError, match="voice: expected a server that knows registered voices"):
            caller.song(server.url, tags="pop", voice=VOICE)


def test_an_own_registry_needs_its_extra(
    server: FakeServer, caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartvoice.optional_dependencies.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelUnavailableError, match=r"cryptography not installed: .*heartvoice\[trust\]"):
        caller.song(server.url, {"registry": tmp_path}, tags="pop", voice=VOICE)
