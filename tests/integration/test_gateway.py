"""A gateway in front of the real server: what passes, what does not, and what the server does without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

import heartvoice
from heartvoice.client import Client
from heartvoice.contracts.models import SONG
from heartvoice.contracts.tensors import LATENT_HALF
from heartvoice.errors import DeadlineError, InvalidRequestError
from heartvoice.gateway.authentication import add_token
from heartvoice.server.server import EmbeddedServer
from heartvoice.voices.registry import Registry
from tests.fakes.networks import text
from tests.integration.test_endings import LONG, LONG_WORDS, assert_all_ends, n_finished
from tests.support.gateways import RunningGateway, running
from tests.support.raw import Metrics, Raw, request
from tests.support.voices import PHRASE, Says, ask

VOICE = Path(heartvoice.__file__).parent / "examples" / "voice.flac"
SHORT: dict[str, Any] = {"lyrics": "la", "duration_s": 1.0, "codec_steps": 1}
SHORT_TENSORS = {"lyrics": text("la"), "duration_s": np.array([1.0], np.float32), "codec_steps": np.array([1])}


@pytest.fixture
def gateway(server: EmbeddedServer) -> Iterator[RunningGateway]:
    with running(server.url) as made:
        yield made


def test_songs_are_the_same_through_it(gateway: RunningGateway, client: Client) -> None:
    with Client(gateway.url) as through:
        assert through.server_ready()
        assert through.model_ready()
        song = through.song(**SHORT, seed=3)
    np.testing.assert_array_equal(song.audio, client.song(**SHORT, seed=3).audio)


def test_several_requests_share_a_stream(gateway: RunningGateway) -> None:
    with Raw(gateway.url) as raw:
        answers = list(raw.stub.ModelStreamInfer(iter([_request(SHORT_TENSORS, f"r{n}") for n in range(3)])))
    finals = {answer.infer_response.id for answer in answers if _is_report(answer)}
    assert finals == {"r0", "r1", "r2"}


def _request(inputs: dict[str, np.ndarray], request_id: str) -> Any:
    message = request(SONG.name, inputs)
    message.id = request_id
    return message


def _is_report(answer: Any) -> bool:
    assert not answer.error_message, answer.error_message
    return any(output.name == "REPORT" for output in answer.infer_response.outputs)


def test_deadlines_and_cancellation_reach_the_models(gateway: RunningGateway, metrics: Metrics) -> None:
    finished = n_finished(metrics)
    with Client(gateway.url) as client:
        with pytest.raises(DeadlineError):
            client.song(**LONG_WORDS, timeout_s=1.0)  # type: ignore[arg-type]
        assert_all_ends(metrics, finished)
        stream = client.stream(**LONG_WORDS)  # type: ignore[arg-type]
        next(stream)
        stream.close()
        assert_all_ends(metrics, finished)


def test_health_and_metadata_are_the_servers_own(gateway: RunningGateway, server: EmbeddedServer) -> None:
    with Raw(gateway.url) as through, Raw(server.url) as direct:
        check = "/grpc.health.v1.Health/Check"
        assert through.channel.unary_unary(check)(b"") == direct.channel.unary_unary(check)(b"") == b"\x08\x01"
        for method, message in (
            ("ServerLive", service_pb2.ServerLiveRequest()),
            ("ModelMetadata", service_pb2.ModelMetadataRequest(name="song")),
        ):
            assert getattr(through.stub, method)(message) == getattr(direct.stub, method)(message)


def test_models_refuse_with_the_same_words(gateway: RunningGateway, client: Client) -> None:
    said = []
    with Client(gateway.url) as through:
        for caller in (through, client):
            with pytest.raises(InvalidRequestError) as caught:
                caller.embed(b"RIFF of nothing")
            said.append(str(caught.value))
    assert said[0] == said[1]


def test_neither_server_nor_gateway_knows_voices_without_a_registry(gateway: RunningGateway, client: Client) -> None:
    with Client(gateway.url) as through:
        for caller in (through, client):
            with pytest.raises(InvalidRequestError, match="voice: expected a server that knows registered voices"):
                caller.song(**SHORT, voice="voice_" + "0" * 32)


def test_a_registered_voice_sings_as_its_reference_does(
    server: EmbeddedServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTVOICE_REGISTRY_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("HEARTVOICE_TOKEN", add_token(tmp_path / "tokens", "alice"))
    reference = VOICE.read_bytes()
    with Registry(tmp_path / "registry", create=True) as registry:
        voice = registry.enrol("alice", ask(registry, "alice").id, PHRASE, [reference], Says()).status
    options: dict[str, Any] = {"registry": tmp_path / "registry", "require_registered_voices": True}
    with running(server.url, tokens=tmp_path / "tokens", **options) as strict, Client(strict.url) as through:
        sung = through.song(**SHORT, seed=3, voice=voice.id, no_vocals="convert")
        with pytest.raises(InvalidRequestError, match="voice: expected voice_id in its place"):
            through.song(**SHORT, voice=reference, consent="me")
    consent = f"consent record {voice.consent}"
    direct = client.song(**SHORT, seed=3, voice=reference, consent=consent, no_vocals="convert")
    np.testing.assert_array_equal(sung.audio, direct.audio)
    assert sung.report.raw["voice_consent"] == consent
    assert f"by {consent}" in sung.report.raw["attribution"]


def test_a_shape_above_the_contract_does_not_get_past_it(server: EmbeddedServer) -> None:
    pids = server.stub_pids()
    above = service_pb2.ModelInferRequest(model_name="heartcodec_decoder")
    above.inputs.add(name="latents", datatype="FP32", shape=[1, LATENT_HALF.max + 1, 10])
    above.raw_input_contents.append(b"")
    with running(server.url, models=("heartcodec_decoder",)) as gateway, Raw(gateway.url) as raw:
        with pytest.raises(grpc.RpcError) as caught:
            raw.stub.ModelInfer(above, timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details().startswith("latents: expected FP32 [batch of 1 to 8, ")
    assert server.stub_pids() == pids


def test_the_admin_key_is_on_no_stub_and_in_no_log(server: EmbeddedServer) -> None:
    """It is on the server's own command line, for every user of the host to read: see docs/explanation/security.md."""
    for pid in server.stub_pids().values():
        for kind in ("environ", "cmdline"):
            assert server._secret.encode() not in Path(f"/proc/{pid}/{kind}").read_bytes(), "a model's process has it"
    assert server.options.log_path is not None
    assert server._secret not in server.options.log_path.read_text()
    with Raw(server.url) as raw, pytest.raises(grpc.RpcError, match="restricted"):
        raw.stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name="song"), timeout=60)


@pytest.mark.parametrize("name", ["cancel", "owner_pid"])
def test_one_caller_cannot_reach_anothers_job(gateway: RunningGateway, name: str) -> None:
    inputs = {"cancel": text(""), "owner_pid": np.array([1])}
    with Raw(gateway.url) as raw:
        (answer,) = raw.stream("heartmula", {name: inputs[name]})
    assert answer["error"].startswith(f"INVALID_ARG: {name}: expected nothing")


def test_a_cancel_without_a_name_ends_no_job(server: EmbeddedServer, metrics: Metrics) -> None:
    finished = n_finished(metrics)
    with Raw(server.url) as raw:
        call = raw.call("heartmula", {name: value for name, value in LONG.items() if name != "codec_window"})
        next(call)
        list(raw.call("heartmula", {"cancel": text("")}))
        assert next(call).infer_response.outputs, "the job of a caller that gave no name was ended by another"
        assert metrics.value("heartvoice_jobs_live") == 1
        call.cancel()
    assert_all_ends(metrics, finished)
