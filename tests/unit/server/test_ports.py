"""Unix sockets that other users cannot reach, and what the doctor says of the keys."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from heartvoice.errors import SetupError
from heartvoice.server.doctor import key_visibility
from heartvoice.server.options import ServerOptions
from heartvoice.server.ports import check_address, check_socket


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    private = tmp_path / "run"
    private.mkdir(mode=0o700)
    return private


def test_the_embedded_server_may_listen_on_a_socket_and_its_metrics_on_loopback(folder: Path) -> None:
    check_address(f"unix:{folder}/grpc")
    options = ServerOptions(Path("r"), 9001, 9002, address=f"unix:{folder}/grpc")
    assert options.url == f"unix:{folder}/grpc:9001"
    assert options.metrics_url == "http://127.0.0.1:9002/metrics"


def test_a_folder_that_others_can_enter_is_refused(folder: Path) -> None:
    check_socket(f"unix:{folder}/grpc", 8001)
    folder.chmod(0o711)
    with pytest.raises(SetupError, match=r"must be a folder that you own and nobody else can enter: mkdir .*chmod 700"):
        check_socket(f"unix:{folder}/grpc", 8001)


@pytest.mark.parametrize("path", ["run/grpc", "/" + "x" * 120, "/no/such/folder/grpc"])
def test_a_path_that_cannot_be_a_socket_is_refused(path: str) -> None:
    with pytest.raises(SetupError, match="--address: "):
        check_socket(f"unix:{path}", 8001)


def test_a_socket_in_use_is_refused_and_one_that_was_left_is_not(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/grpc:8001")
        server.listen()
        with pytest.raises(SetupError, match="another server listens on"):
            check_socket(f"unix:{folder}/grpc", 8001)
    check_socket(f"unix:{folder}/grpc", 8001)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("rw,relatime", "every user of this host can read"),
        ("rw,hidepid=invisible", "hidden"),
        ("rw,hidepid=2", "hidden"),
    ],
)
def test_the_doctor_says_who_can_read_the_keys(tmp_path: Path, options: str, said: str) -> None:
    (tmp_path / "mounts").write_text(f"/dev/sda / ext4 rw 0 0\nproc /proc proc {options} 0 0\n")
    assert said in key_visibility(tmp_path / "mounts")
