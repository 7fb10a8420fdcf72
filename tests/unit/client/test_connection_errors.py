"""Connections that cannot be made, against real servers and gateways: what the user is told, and the exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import soundfile

from heartvoice.errors import HeartvoiceError, InvalidRequestError, ModelMissingError, ModelUnavailableError, codes_of
from heartvoice.gateway.authentication import add_token
from heartvoice.loadtest.target import Target, running_server
from tests.fakes.server import FakeServer
from tests.support.callers import Caller, Certificates, heartvoice
from tests.support.gateways import running
from tests.support.music import speaker

Servers = dict[str, str]
UNAVAILABLE, MISSING, INVALID = ModelUnavailableError, ModelMissingError, InvalidRequestError


@pytest.fixture(scope="module")
def servers(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Addresses: a server in plain text, gateways with TLS, with mutual TLS and with tokens, and nobody."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    add_token(tokens, "alice")
    tls: dict[str, Any] = {"certificate": certificates.server, "private_key": certificates.server_key}
    pair = (certificates.client_key.read_bytes(), certificates.client_elsewhere.read_bytes())
    with ExitStack() as stack:
        server = FakeServer().start()
        stack.callback(server.stop)
        elsewhere = FakeServer().start(grpc.ssl_server_credentials([pair]))
        stack.callback(elsewhere.stop)
        made = {
            "tls": stack.enter_context(running(server.url, **tls)),
            "mutual": stack.enter_context(running(server.url, client_roots=certificates.root, **tls)),
            "tokens": stack.enter_context(running(server.url, tokens=tokens)),
            "expired": stack.enter_context(running(server.url, **{**tls, "certificate": certificates.server_expired})),
        }
        yield {"plain": server.url, "elsewhere": elsewhere.url, "nobody": "127.0.0.1:1"} | {
            name: gateway.url for name, gateway in made.items()
        }


CASES: dict[str, tuple[str, dict[str, str], type[HeartvoiceError], str]] = {
    "refused": ("nobody", {}, UNAVAILABLE, "nothing listens there: start a server with `heartvoice serve`"),
    "plain to TLS": ("tls", {}, UNAVAILABLE, "it probably speaks TLS, use --tls"),
    "TLS to plain": ("plain", {"root_certificates": "root"}, MISSING, "the server speaks plain text, not TLS"),
    "self-signed": ("tls", {"tls": ""}, MISSING, "signed by itself or by an authority that is not trusted here"),
    "other roots": ("tls", {"root_certificates": "other_root"}, MISSING, "give that authority's certificate"),
    "other name": ("elsewhere", {"root_certificates": "root"}, MISSING, "the server's certificate is for another name"),
    "no certificate": ("mutual", {"root_certificates": "root"}, UNAVAILABLE, "it may ask for a client's certificate"),
    "swapped": (
        "mutual", {"root_certificates": "root", "private_key": "client", "certificate_chain": "client_key"}, INVALID,
        "private_key: expected .*, got '.*client.pem', one of CERTIFICATE; .* may be swapped",
    ),
    "of two pairs": (
        "mutual", {"root_certificates": "root", "private_key": "server_key", "certificate_chain": "client"}, INVALID,
        "private_key: '.*server.key' does not belong to '.*client.pem'",
    ),
    "a key as roots": ("tls", {"root_certificates": "server_key"}, INVALID, "root_certificates: expected a PEM"),
    "roots missing": ("tls", {"root_certificates": "missing"}, INVALID, "root_certificates: cannot read"),
    "roots empty": ("tls", {"root_certificates": "empty"}, INVALID, "got '.*empty', 0 bytes without a PEM block"),
    "expired": ("expired", {"root_certificates": "root"}, MISSING, "has expired or is not valid yet: renew it"),
    "refused certificate": (
        "mutual", {"root_certificates": "root", "private_key": "server_key", "certificate_chain": "server_expired"},
        UNAVAILABLE, "or refuse yours, if it has expired",
    ),
    "no token": ("tokens", {}, MISSING, "give your token by HEARTVOICE_TOKEN, or --token-file FILE"),
    "wrong token": ("tokens", {"token_file": "wrong"}, MISSING, "the token is not known here; give your token by"),
    "empty token": ("tokens", {"token_file": "empty"}, INVALID, "token_file: '.*empty': expected a token, got an em"),
    "no token file": ("tokens", {"token_file": "missing"}, INVALID, "token_file: cannot read '.*missing': No such"),
    "binary token": ("tokens", {"token_file": "binary"}, INVALID, "token_file: '.*binary': expected one word, got 3"),
    "no name": ("nosuchhost.invalid:8001", {}, UNAVAILABLE, "the host's name is not known"),
    "no socket": ("unix:/nonexistent/socket", {}, UNAVAILABLE, "there is no such socket"),
    "no port": ("127.0.0.1", {}, INVALID, "url: expected host:port .*, got '127.0.0.1' without a port"),
}  # fmt: skip


def options_of(case: str, certificates: Certificates, folder: Path) -> dict[str, Any]:
    """The options of a case with the paths of their files."""
    (folder / "empty").touch()
    (folder / "wrong").write_text("hv_wrong")
    (folder / "binary").write_bytes(b"\xff\x00\xfe")
    files = {name: folder / name for name in ("missing", "empty", "wrong", "binary")} | vars(certificates)
    return {name: files[value] if value else True for name, value in CASES[case][1].items()}


@pytest.mark.parametrize("case", CASES)
def test_the_error_says_what_is_wrong_and_what_to_do(
    servers: Servers, certificates: Certificates, caller: Caller, folder: Path, case: str
) -> None:
    server, _, kind, message = CASES[case]
    url = servers.get(server, server)
    with pytest.raises(HeartvoiceError, match=message) as caught:
        caller.song(url, client={"retries": 0, **options_of(case, certificates, folder)}, lyrics="la", timeout_s=60)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert "TSI_" not in str(caught.value)


def in_options(field: re.Match[str]) -> str:
    return f"^error: --{field[1].replace('_', '-')}:"


@pytest.mark.parametrize("case", CASES)
def test_the_command_prints_one_line_and_exits_by_the_class(
    servers: Servers, certificates: Certificates, folder: Path, case: str
) -> None:
    server, _, kind, message = CASES[case]
    given = options_of(case, certificates, folder)
    options = [
        text
        for name, value in given.items()
        for text in ([f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)]))
    ]
    (folder / "song.wav").write_bytes(b"RIFF")
    url = servers.get(server, server)
    result = heartvoice("song", "--lyrics", "la", "--url", url, "--timeout", "60", *options, "--output", "made.wav")
    assert result.exit_code == codes_of(kind).exit_code
    assert re.search(re.sub("^(private_key|root_certificates|token_file):", in_options, message), result.stderr)
    assert result.stderr.count("\n") == 1
    assert not (folder / "made.wav").exists()


@pytest.mark.parametrize(
    "case", ["refused", "plain to TLS", "TLS to plain", "self-signed", "other roots", "other name"]
)
def test_the_health_check_says_the_same(servers: Servers, certificates: Certificates, folder: Path, case: str) -> None:
    server, _, kind, message = CASES[case]
    given = options_of(case, certificates, folder)
    options = (
        ["--tls"]
        if "tls" in given
        else [text for path in given.values() for text in ("--root-certificates", str(path))]
    )
    result = heartvoice("health", "--url", servers[server], "--timeout", "60", *options)
    assert result.exit_code == codes_of(kind).exit_code
    assert message in result.stderr


JOBS = {
    "cover": ("cover", "sung.wav", "--voice", "voice.wav", "--consent", "me", "--output", "made.wav"),
    "separate": ("separate", "sung.wav", "--output", "made"),
    "similarity": ("similarity", "sung.wav", "voice.wav"),
}
REACHED = ["refused", "plain to TLS", "TLS to plain", "other roots", "no token", "no name"]


@pytest.mark.parametrize("case", REACHED)
@pytest.mark.parametrize("job", JOBS)
def test_every_command_that_calls_a_server_says_the_same(
    servers: Servers, certificates: Certificates, folder: Path, job: str, case: str
) -> None:
    server, _, kind, message = CASES[case]
    for name in ("sung.wav", "voice.wav"):
        soundfile.write(folder / name, speaker(4, 16_000), 16_000)
    given = options_of(case, certificates, folder)
    options = [text for path in given.values() for text in ("--root-certificates", str(path))]
    result = heartvoice(*JOBS[job], "--url", servers.get(server, server), *options)
    assert result.exit_code == codes_of(kind).exit_code, result.output
    assert re.search(message, result.stderr), result.output
    assert not (folder / "made.wav").exists()
    assert not (folder / "made").exists()


@pytest.mark.parametrize("case", REACHED)
def test_a_load_test_begins_with_a_server_that_answers(
    servers: Servers, certificates: Certificates, folder: Path, case: str
) -> None:
    server, options, kind, message = CASES[case]
    security: Any = {name: vars(certificates)[value] for name, value in options.items()}
    target = Target(servers.get(server, server), None, None, security=security)
    with pytest.raises(kind, match=message), running_server(target):
        raise AssertionError("measured nothing")
    with running_server(Target(servers["plain"], None, None)):
        pass
