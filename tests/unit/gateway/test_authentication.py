"""Tokens, certificates, and what is asked of the files that hold them."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest

from heartvoice.client import AsyncClient
from heartvoice.errors import (
    HeartvoiceError,
    InvalidRequestError,
    ModelMissingError,
    ModelUnavailableError,
    UnauthenticatedError,
)
from heartvoice.gateway.authentication import Tokens, add_token, certificate_name
from tests.fakes.server import FakeServer
from tests.support.callers import AsyncCaller, Caller, Certificates, SyncCaller
from tests.support.gateways import running
from tests.support.waiting import wait_until


@pytest.fixture(params=[SyncCaller(), AsyncCaller()], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Caller:
    chosen: Caller = request.param
    return chosen


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.txt"


def bearer(token: str) -> Sequence[tuple[str, str]]:
    return (("x-other", "1"), ("authorization", f"Bearer {token}"))


def test_a_token_is_known_by_its_hash_alone(file: Path) -> None:
    tokens = {name: add_token(file, name) for name in ("alice", "bob")}
    assert file.stat().st_mode & 0o777 == 0o600
    assert not any(token in file.read_text() for token in tokens.values())
    assert hashlib.sha256(tokens["bob"].encode()).hexdigest() in file.read_text()
    known = Tokens(file)
    assert [known.caller(bearer(tokens[name])) for name in ("bob", "alice")] == ["bob", "alice"]


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", "Basic YWxpY2U6c2VjcmV0"),),
        (("authorization", "Bearer wrong"),),
        (("authorization", b"Bearer \xff"),),
    ],
)
def test_other_headers_name_nobody(file: Path, metadata: Sequence[tuple[str, str | bytes]]) -> None:
    add_token(file, "alice")
    with pytest.raises(UnauthenticatedError, match=r"^authorization: ") as caught:
        Tokens(file).caller(metadata)
    assert "wrong" not in str(caught.value)


def test_two_tokens_at_once_name_nobody(file: Path) -> None:
    token = add_token(file, "alice")
    with pytest.raises(UnauthenticatedError, match="expected one header"):
        Tokens(file).caller((*bearer(token), *bearer(token)))


@pytest.mark.parametrize(
    "text", ["alice", "alice token", "alice " + "0" * 63, "al\x01ce " + "0" * 64, "# nobody\n", ""]
)
def test_wrong_files_are_refused_without_quoting_them(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(InvalidRequestError, match=r"tokens: .*tokens\.txt") as caught:
        Tokens(file)
    assert "alice" not in str(caught.value)


def test_a_file_that_others_may_write_is_refused(file: Path) -> None:
    add_token(file, "alice")
    file.chmod(0o664)
    with pytest.raises(InvalidRequestError, match="writable by its owner alone, got mode 664; chmod go-w it"):
        Tokens(file)
    file.chmod(0o644)
    assert Tokens(file).names == ["alice"], "hashes may be read"


def test_a_line_is_added_even_to_a_file_without_a_last_line_break(file: Path) -> None:
    add_token(file, "alice")
    file.write_text(file.read_text().rstrip("\n"))
    add_token(file, "bob")
    assert Tokens(file).names == ["alice", "bob"]
    with pytest.raises(InvalidRequestError, match="name: expected 1 to 64 letters"):
        add_token(file, "al ice")


def test_a_changed_file_is_read_again_and_a_wrong_one_changes_nothing(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = add_token(file, "alice")
    tokens = Tokens(file)
    second = add_token(file, "bob")
    tokens.reload()
    assert tokens.caller(bearer(second)) == "bob"
    file.write_text("nonsense\n")
    tokens.reload()
    assert tokens.caller(bearer(first)) == "alice"
    assert "callers stay as they were" in caplog.text
    file.unlink()
    tokens.reload(forced=True)
    assert tokens.names == ["alice", "bob"]


def test_certificates_name_their_callers() -> None:
    names = {"x509_common_name": [b"cn"], "x509_subject_alternative_name": [b"a.example", b"b.example"]}
    assert certificate_name(names | {"x509_uri": [b"spiffe://example/alice"]}) == "spiffe://example/alice"
    assert certificate_name(names) == "cn"
    assert certificate_name({"x509_subject_alternative_name": [b"a.example"]}) == "a.example"
    for nobody in ({}, {"x509_common_name": [b""]}, {"x509_common_name": [b"a\nb"]}):
        with pytest.raises(UnauthenticatedError):
            certificate_name(nobody)


def test_clients_send_their_token_from_a_file_or_the_environment(
    server: FakeServer, file: Path, tmp_path: Path, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = add_token(file, "alice")
    own = tmp_path / "alice.token"
    own.write_text(f"{token}\n")
    with running(server.url, tokens=file) as gateway:
        with pytest.raises(ModelMissingError, match="authorization: expected one header"):
            caller.song(gateway.url, lyrics="la")
        assert caller.ready(gateway.url), "probes need no name"
        assert not caller.ready(gateway.url, "song")
        assert caller.song(gateway.url, client={"token_file": own}, lyrics="la").duration_s == 1.6
        monkeypatch.setenv("HEARTVOICE_TOKEN", token)
        assert caller.song(gateway.url, lyrics="la").duration_s == 1.6
        labels = {"caller": "alice", "method": "ModelStreamInfer", "model": "song", "code": "OK"}
        wait_until(lambda: gateway.metric("calls_total", **labels) == 2, 60.0, "calls of alice")
        assert gateway.metric("refused_total", reason="authentication") == 2
    assert not any(key == "authorization" for key, _ in server.metadata)


def test_refused_streams_end_with_their_reason_even_for_asyncio(server: FakeServer, file: Path) -> None:
    add_token(file, "alice")

    async def refusals(url: str) -> set[str]:
        async with AsyncClient(url, retries=0) as client:
            said = set()
            for _ in range(30):
                with pytest.raises(ModelMissingError) as caught:
                    await client.song(lyrics="la")
                said.add(str(caught.value))
            return said

    with running(server.url, tokens=file) as gateway:
        (said,) = asyncio.run(refusals(gateway.url))
        assert said.startswith(
            f"{gateway.url}: authorization: expected one header, Bearer and a token; give your token"
        )


def test_a_removed_token_ends_at_the_next_call(server: FakeServer, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heartvoice.gateway.server.TOKENS_POLL_S", 0.05)
    monkeypatch.setenv("HEARTVOICE_TOKEN", add_token(file, "alice"))
    with running(server.url, tokens=file) as gateway:
        assert SyncCaller().ready(gateway.url, "song")
        file.write_text(f"bob {'0' * 64}\n")
        wait_until(lambda: not SyncCaller().ready(gateway.url, "song"), 60.0, "alice is still let in")


def test_a_token_never_crosses_the_network_in_plain_text(
    caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTVOICE_TOKEN", "secret")
    with pytest.raises(InvalidRequestError, match=r"token: expected TLS on the way to far\.example:8443") as caught:
        caller.ready("far.example:8443")
    assert "secret" not in str(caught.value)
    for text in ("", "two words", "umläut"):
        (tmp_path / "token").write_text(text, encoding="utf-8")
        with pytest.raises(InvalidRequestError, match=r"expected (one word|a token)"):
            caller.call("server_ready", "127.0.0.1:1", {"token_file": tmp_path / "token"})
    with pytest.raises(InvalidRequestError, match="token_file: cannot read"):
        caller.call("server_ready", "127.0.0.1:1", {"token_file": tmp_path / "missing"})


def tls(certificates: Certificates, **more: object) -> dict[str, object]:
    return {"certificate": certificates.server, "private_key": certificates.server_key, **more}


def test_a_client_certificate_is_a_name(server: FakeServer, certificates: Certificates, caller: Caller) -> None:
    shown = {
        "root_certificates": certificates.root,
        "private_key": certificates.client_key,
        "certificate_chain": certificates.client,
    }
    with running(server.url, **tls(certificates, client_roots=certificates.root)) as gateway:
        assert caller.song(gateway.url, client=shown, lyrics="la").duration_s == 1.6
        labels = {"caller": "client", "method": "ModelStreamInfer", "model": "song", "code": "OK"}
        wait_until(lambda: gateway.metric("calls_total", **labels) == 1, 60.0, "the call of `client`")
        with pytest.raises(ModelUnavailableError):
            caller.song(gateway.url, client={"root_certificates": certificates.root, "retries": 0}, lyrics="la")


def test_tokens_go_over_tls(
    server: FakeServer, certificates: Certificates, file: Path, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTVOICE_TOKEN", add_token(file, "alice"))
    with running(server.url, tokens=file, **tls(certificates)) as gateway:
        client = {"root_certificates": certificates.root}
        assert caller.song(gateway.url, client=client, lyrics="la").duration_s == 1.6
        with pytest.raises(HeartvoiceError):
            caller.song(gateway.url, client={"retries": 0}, lyrics="la", timeout_s=5)


def test_a_renewed_certificate_is_taken_for_the_next_connection(
    server: FakeServer, certificates: Certificates, tmp_path: Path
) -> None:
    pair = {"certificate": tmp_path / "gateway.pem", "private_key": tmp_path / "gateway.key"}
    shutil.copy(certificates.client, pair["certificate"])
    shutil.copy(certificates.client_key, pair["private_key"])
    with running(server.url, **pair) as gateway:
        before = served_certificate(gateway.url)
        for target, source in (("certificate", certificates.server), ("private_key", certificates.server_key)):
            shutil.copy(source, tmp_path / "new")
            (tmp_path / "new").replace(pair[target])
        assert served_certificate(gateway.url) != before
        assert SyncCaller().call("server_ready", gateway.url, {"root_certificates": certificates.root})


def served_certificate(url: str) -> str:
    host, port = url.split(":")
    return ssl.get_server_certificate((host, int(port)))


def test_the_wrong_kind_of_certificate_is_named(certificates: Certificates, tmp_path: Path, server: FakeServer) -> None:
    with (
        pytest.raises(InvalidRequestError, match=r"certificate: cannot read .*missing\.pem"),
        running(server.url, certificate=tmp_path / "missing.pem", private_key=certificates.server_key),
    ):
        pass
