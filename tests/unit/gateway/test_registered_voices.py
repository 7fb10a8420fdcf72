"""Registered voices at a gateway: who sings by id, what the server gets, and what nobody learns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from heartvoice.contracts.attribution import consent_record
from heartvoice.contracts.models import MODELS
from heartvoice.contracts.tensors import VOICE
from heartvoice.errors import InvalidRequestError, RegistryError
from heartvoice.gateway.authentication import add_token
from heartvoice.gateway.options import PUBLIC_MODELS, GatewayOptions
from heartvoice.gateway.rate_limits import Limits
from heartvoice.gateway.server import Gateway
from heartvoice.voices import database
from heartvoice.voices.registry import Registry
from heartvoice.voices.vault import Vault
from tests.fakes.server import FakeServer, audio, cover_report, final, input_bytes
from tests.support.callers import AsyncCaller, SyncCaller, heartvoice
from tests.support.gateways import FILE, LYRICS, RunningGateway, Stub, running
from tests.support.raw import request
from tests.support.voices import REFERENCE, enrol
from tests.support.waiting import wait_until

UNKNOWN = "voice_" + "0" * 32
SINGING = tuple(name for name in PUBLIC_MODELS if VOICE in MODELS[name].inputs)
CALLS = [(method, model) for method in ("ModelInfer", "ModelStreamInfer") for model in SINGING]
Arrays = Mapping[str, Any]


def text(content: str | bytes) -> Any:
    return np.array([content if isinstance(content, bytes) else content.encode()], object)


BESIDES: dict[str, Arrays] = {
    "song": LYRICS,
    "render": FILE,
    "cover": {"file": text(b"a song")},
    "svc": {"vocals": np.zeros(44_100, np.float32)},
}
"""What a request has beside its voice."""


@dataclass
class World:
    """A registry with its callers, and a gateway that knows both."""

    url: str
    running: RunningGateway
    folder: Path
    tokens: Mapping[str, str]
    voices: Mapping[str, str]
    consents: Mapping[str, str]

    def call(self, owner: str, method: str, message: Any) -> tuple[str, str, int]:
        """Return status, text and number of answers of a call."""
        headers = (("authorization", f"Bearer {self.tokens[owner]}"),)
        with Stub(self.url) as stub:
            try:
                if method == "ModelInfer":
                    stub.calls.ModelInfer(message, metadata=headers, timeout=60)
                    return "OK", "", 1
                answers = list(stub.calls.ModelStreamInfer(iter([message]), metadata=headers, timeout=60))
            except grpc.RpcError as error:
                return error.code().name, error.details(), 0
        return "OK", "".join(answer.error_message for answer in answers), len(answers)

    def sing(self, owner: str, voice: str, method: str = "ModelInfer", model: str = "render") -> tuple[str, str, int]:
        return self.call(owner, method, request(model, {**BESIDES[model], "voice_id": text(voice)}))


@pytest.fixture
def options(tmp_path: Path, registry: Registry) -> dict[str, Any]:
    """Of a gateway with that registry."""
    return {"tokens": tmp_path / "tokens.txt", "registry": tmp_path / "registry", "limits": Limits(requests_per_s=1e6)}


@pytest.fixture
def world(tmp_path: Path, server: FakeServer, registry: Registry, options: dict[str, Any]) -> Iterator[World]:
    tokens = {name: add_token(tmp_path / "tokens.txt", name) for name in ("alice", "bob")}
    made = {name: enrol(registry, owner).status for name, owner in (("hers", "alice"), ("his", "bob"))}
    made["undecided"] = enrol(registry, "alice", words=None).status
    with running(server.url, **options) as gateway:
        yield World(
            gateway.url, gateway, tmp_path / "registry", tokens, {name: each.id for name, each in made.items()},
            {name: each.consent for name, each in made.items()},
        )  # fmt: skip


def lines(caplog: pytest.LogCaptureFixture, world: World) -> list[Any]:
    """What the access log says."""
    wait_until(lambda: world.running.gateway.n_live == 0, 60.0, "calls live on")
    world.running.settle()
    records = [each.getMessage() for each in caplog.records if each.name == "heartvoice.gateway.access"]
    return [json.loads(line) for line in records]


# ------------------------------------------------------------------------------------------------------- one's own


@pytest.mark.parametrize("model", ["song", "cover"])
def test_the_server_gets_the_reference_and_the_consent_record_of_a_streamed_voice(
    world: World, server: FakeServer, model: str
) -> None:
    status, said, n_answers = world.sing("alice", world.voices["hers"], "ModelStreamInfer", model)
    assert (status, said, n_answers > 2) == ("OK", "", True)
    (seen,) = server.requests
    assert input_bytes(seen, "voice") == REFERENCE
    assert input_bytes(seen, "voice_consent") == f"consent record {world.consents['hers']}".encode()
    assert input_bytes(seen, "caller") == b"alice"
    assert "voice_id" not in {tensor.name for tensor in seen.inputs}
    sent = request(model, BESIDES[model])
    assert list(seen.inputs)[:-3] == list(sent.inputs), "the rest is as it was sent"
    assert list(seen.raw_input_contents)[:-3] == list(sent.raw_input_contents)


def test_a_unary_call_has_the_same_and_contents_may_be_typed(world: World, server: FakeServer) -> None:
    message = service_pb2.ModelInferRequest(model_name="render", id="7")
    for name, content in (("voice_id", world.voices["hers"].encode()), ("format", b"wav"), ("lyrics", b"la")):
        message.inputs.add(name=name, datatype="BYTES", shape=[1]).contents.bytes_contents.append(content)
    server.render = lambda seen, context: context.abort(grpc.StatusCode.ABORTED, "seen")
    assert world.call("alice", "ModelInfer", message)[:2] == ("ABORTED", "seen")
    (seen,) = server.requests
    sent = {tensor.name: tensor.contents.bytes_contents[0] for tensor in seen.inputs}
    assert (seen.id, set(sent)) == ("7", {"format", "lyrics", "voice", "voice_consent", "caller"})
    assert sent["voice"] == REFERENCE
    assert not seen.raw_input_contents


@pytest.mark.parametrize(("model", "method"), [("song", "ModelStreamInfer"), ("render", "ModelInfer")])
def test_a_request_without_a_voice_passes_with_its_callers_name(
    world: World, server: FakeServer, model: str, method: str
) -> None:
    message = request(model, {"render": FILE}.get(model, LYRICS))
    for owner in ("alice", "bob"):
        assert world.call(owner, method, message)[0] == "OK"
        seen = server.requests[-1]
        assert input_bytes(seen, "caller") == owner.encode()
        del seen.inputs[-1], seen.raw_input_contents[-1]
        assert seen.SerializeToString() == message.SerializeToString()


def test_nobody_asks_in_anothers_name(world: World, server: FakeServer) -> None:
    code, said, _ = world.call("alice", "ModelInfer", request("render", {**FILE, "caller": text("bob")}))
    assert (code, said) == ("INVALID_ARGUMENT", "caller: expected nothing, since callers may not set it")
    assert not server.requests


def test_a_model_that_marks_nothing_is_not_told_who_asks(world: World, server: FakeServer) -> None:
    message = request("demucs", {"file": text(b"a song")})
    assert world.call("alice", "ModelStreamInfer", message)[0] == "OK"
    assert server.requests[-1].SerializeToString() == message.SerializeToString()


def test_the_access_log_names_the_record_and_nothing_of_the_voice(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "heartvoice"):
        world.sing("alice", world.voices["hers"], "ModelStreamInfer", "song")
        world.call("alice", "ModelStreamInfer", request("song", LYRICS))
        world.sing("alice", world.voices["undecided"])
        made = lines(caplog, world)
    assert [line["consent_records"] for line in made] == [[world.consents["hers"]], [], []]
    for secret in ("voice of one", "J. Doe", "demos", "Studio Hill", *world.tokens.values()):
        assert secret not in caplog.text
    assert made[0]["bytes_in"] < len(REFERENCE) < 10_000, "what the caller sent, without the reference"


def test_both_clients_and_the_command_sing_by_id_alone(
    world: World, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def song(seen: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield audio(0, 48_000)
        yield cover_report(samples=48_000, voice_consent=input_bytes(seen, "voice_consent").decode())
        yield final()

    server.song = song
    monkeypatch.setenv("HEARTVOICE_TOKEN", world.tokens["alice"])
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for caller in (SyncCaller(), AsyncCaller()):
        made = caller.song(world.url, tags="pop", voice=world.voices["hers"])
        assert consent_record(made.report.raw) == world.consents["hers"]
        for method, arguments in (
            ("song", {"tags": "pop"}),
            ("render", {"tags": "pop"}),
            ("cover", {"recording": b"x"}),
        ):
            with pytest.raises(InvalidRequestError, match=f"voice: there is none '{world.voices['his']}'"):
                caller.call(method, world.url, voice=world.voices["his"], **arguments)
    output = tmp_path / "song.wav"
    options = ("--url", world.url, "--tags", "pop", "--keys", "off", "-o", str(output))
    done = heartvoice("song", "--voice", world.voices["hers"], *options)
    assert (done.exit_code, output.exists()) == (0, True), done.stderr
    done = heartvoice("song", "--voice", world.voices["his"], *options)
    assert (done.exit_code, "there is none" in done.stderr) == (2, True)


# ------------------------------------------------------------------------------------------------------- another's


@pytest.mark.parametrize(("method", "model"), CALLS)
def test_anothers_voice_is_answered_as_one_that_does_not_exist(
    world: World, server: FakeServer, method: str, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "heartvoice"):
        answers = [world.sing("alice", voice, method, model) for voice in (UNKNOWN, world.voices["his"])]
        made = lines(caplog, world)
    known = [(status, said.replace(world.voices["his"], UNKNOWN), n) for status, said, n in answers]
    assert known[0] == known[1]
    assert f"voice: there is none '{UNKNOWN}'" in known[0][1]
    assert not server.requests
    for line in made:
        for field in ("time", "address", "seconds"):
            line.pop(field)
        line["refusal"] = line["refusal"].replace(world.voices["his"], UNKNOWN)
    assert made[0] == made[1]


def test_another_costs_the_work_of_one_that_does_not_exist(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    for name in ("record", "recording", "key", "part", "tombstone"):
        monkeypatch.setattr(Vault, name, lambda self, *arguments: opened.append(arguments))
    assert world.sing("alice", world.voices["his"])[0] == "INVALID_ARGUMENT"
    assert not opened, "nothing of another's voice is read"


@pytest.mark.parametrize("model", sorted(set(PUBLIC_MODELS) - set(SINGING)))
def test_models_without_a_voice_take_no_id(world: World, model: str) -> None:
    answers = [
        world.call("alice", "ModelInfer", request(model, {"voice_id": text(voice)}))
        for voice in (UNKNOWN, world.voices["his"], world.voices["hers"])
    ]
    assert {answer[:2] for answer in answers} == {("INVALID_ARGUMENT", f"'voice_id': {model} has no such input")}


@pytest.mark.parametrize("form", ["", "voice_1", UNKNOWN.upper(), f"{UNKNOWN}\n", "consent_" + "0" * 32, "my secret"])
def test_what_is_no_id_is_not_repeated(world: World, form: str) -> None:
    status, said, _ = world.sing("alice", form)
    assert status == "INVALID_ARGUMENT"
    assert said == f"voice_id: expected voice_ and 32 hexadecimal digits, got {len(form)} characters of another form"


# ------------------------------------------------------------------------------------------------- voices at rest


def test_owners_learn_why_a_voice_does_not_sing(world: World, server: FakeServer, registry: Registry) -> None:
    assert (
        "is unverified and cannot sing: the checks could not decide"
        in world.sing("alice", world.voices["undecided"])[1]
    )
    assert world.sing("alice", world.voices["hers"])[0] == "OK"
    registry.revoke("alice", world.voices["hers"])
    assert "is revoked and cannot sing: its consent was revoked" in world.sing("alice", world.voices["hers"])[1]
    registry.purge("alice", world.voices["hers"])
    assert "is purged and cannot sing: it was purged" in world.sing("alice", world.voices["hers"])[1]
    registry.approve("alice", world.voices["undecided"], by="Op", why="heard it")
    assert world.sing("alice", world.voices["undecided"])[0] == "OK"
    assert len(server.requests) == 2
    for voice in ("hers", "undecided"):
        assert f"there is none '{world.voices[voice]}'" in world.sing("bob", world.voices[voice])[1]


def test_a_registry_that_was_changed_is_named_in_the_log_alone(
    world: World, server: FakeServer, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    registry._database.run("UPDATE sealed SET content = zeroblob(100)")
    status, said, _ = world.sing("alice", world.voices["hers"])
    assert (status, said) == ("INTERNAL", "voice_id: the registry of voices cannot be used; see the gateway's log")
    assert "not what was written here" in caplog.text
    assert not server.requests
    assert world.running.metric("refused_total", reason="registry") == 1


def test_a_busy_registry_may_be_tried_again(
    server: FakeServer, world: World, options: dict[str, Any], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_S", 0.1)
    with running(server.url, **options) as waiting:
        world.url = waiting.url
        registry._database.run("BEGIN EXCLUSIVE")
        status, said, _ = world.sing("alice", world.voices["hers"])
        assert (status, said) == ("UNAVAILABLE", "voice_id: the registry of voices is busy; try again")
        registry._database.run("ROLLBACK")
        assert world.sing("alice", world.voices["hers"])[0] == "OK"


def test_a_reference_counts_as_what_the_caller_sends(server: FakeServer, world: World, options: dict[str, Any]) -> None:
    options["limits"] = Limits(max_message_bytes=1000, bytes_per_minute=1000)
    with running(server.url, **options) as small:
        world.url = small.url
        status, said, _ = world.sing("alice", world.voices["hers"])
    assert status == "RESOURCE_EXHAUSTED"
    assert f"at most 1000 bytes a minute, got more with these {len(REFERENCE)}" in said


# ------------------------------------------------------------------------------------------------ raw references


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("song", {"voice": text(b"x"), "voice_consent": text("me")}),
        ("render", {"voice_audio": np.zeros((1, 9), np.float32), "voice_sample_rate": np.array([3])}),
        ("cover", {"voice": text(b"x")}),
        ("svc", {"voice": text(b"x"), "voice_consent": text("me")}),
        ("svc", {"voice_key": text("0" * 64), "voice_consent": text("me")}),
    ],
)
def test_raw_references_are_refused_where_voices_must_be_registered(
    world: World, server: FakeServer, options: dict[str, Any], model: str, inputs: Arrays
) -> None:
    message = request(model, {**BESIDES[model], **inputs})
    with running(server.url, **options, require_registered_voices=True) as strict:
        world.url = strict.url
        for method in ("ModelInfer", "ModelStreamInfer"):
            said = world.call("alice", method, message)[1]
            assert said.removeprefix("INVALID_ARG: ") == (
                f"{next(iter(inputs))}: expected voice_id in its place, the id of a registered voice of yours: this "
                "gateway takes no others; its operator enrols voices whose owners consent"
            )
        assert not server.requests
        assert world.sing("alice", world.voices["hers"])[0] == "OK"
        assert world.call("alice", "ModelInfer", request("render", FILE))[0] == "OK", "no voice, nothing to register"


def test_raw_references_pass_otherwise_but_not_under_the_name_of_a_record(world: World, server: FakeServer) -> None:
    sung = {**FILE, "voice": text(b"a voice"), "voice_consent": text("me")}
    assert world.call("alice", "ModelInfer", request("render", sung))[0] == "OK"
    assert len(server.requests) == 1
    for consent in (world.consents["hers"], world.consents["his"]):
        forged = sung | {"voice_consent": text(f" consent record {consent} ")}
        status, said, _ = world.call("alice", "ModelInfer", request("render", forged))
        assert (status, said.partition(":")[0]) == ("INVALID_ARGUMENT", "voice_consent")
        assert "the name of a consent record: only a registered voice has one" in said
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["voice", "voice_consent"])
def test_an_id_stands_alone(world: World, name: str) -> None:
    both = {**FILE, "voice_id": text(world.voices["hers"]), name: text("me")}
    said = world.call("alice", "ModelInfer", request("render", both))[1]
    assert said == f"{name}: expected none beside a registered voice, whose record says who consents"


def test_without_a_registry_there_is_no_such_input(gateway: RunningGateway) -> None:
    with Stub(gateway.url) as stub:
        error = stub.refused("ModelInfer", request("render", {**FILE, "voice_id": text(UNKNOWN)}))
    assert error.details() == "'voice_id': render has no such input"


# -------------------------------------------------------------------------------------------------------- options


def test_voices_need_callers_with_names_and_no_way_round(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="--registry: expected --tokens or --client-roots, too"):
        GatewayOptions(registry=tmp_path)
    with pytest.raises(InvalidRequestError, match="--require-registered-voices: expected --registry, too"):
        GatewayOptions(require_registered_voices=True)
    options: Any = {"registry": tmp_path, "tokens": tmp_path, "require_registered_voices": True}
    GatewayOptions(**options)
    with pytest.raises(InvalidRequestError, match=r"expected no native graphs among --models, .* got svc_style"):
        GatewayOptions(**options, models=("song", "svc_style"))


def test_a_gateway_does_not_start_over_a_registry_that_it_cannot_use(
    tmp_path: Path, options: dict[str, Any], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_token(tmp_path / "tokens.txt", "alice")
    options |= {"listen": "127.0.0.1:0", "metrics_port": 0}
    with pytest.raises(InvalidRequestError, match="registry: expected a folder with registry"):
        asyncio.run(Gateway(GatewayOptions(**options | {"registry": tmp_path / "none"})).start())
    with Registry(tmp_path / "other", keys=tmp_path / "other keys", create=True):
        pass
    monkeypatch.setenv("HEARTVOICE_REGISTRY_KEYS", str(tmp_path / "other keys"))
    with pytest.raises(RegistryError, match="made with other keys"):
        asyncio.run(Gateway(GatewayOptions(**options)).start())
