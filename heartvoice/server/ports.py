"""Addresses, ports and sockets that a server may listen on."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from heartvoice.errors import SetupError

LOOPBACK, ANY = "127.0.0.1", "0.0.0.0"  # noqa: S104 (refused for the embedded server)
UNIX = "unix:"
_MAX_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""


def check_address(address: str) -> None:
    """Refuse to open the wheel's old server to the network.

    Raises:
        SetupError: the address is neither loopback nor a Unix socket.
    """
    if address != LOOPBACK and not address.startswith(UNIX):
        raise SetupError(
            f"--address: the embedded server listens on {LOOPBACK} or a Unix socket (unix:/FOLDER/NAME) alone, got "
            f"{address}: it is an old version with known crashes; put `heartvoice gateway` in front, or give a newer "
            "one with --server PATH"
        )


def check_port(option: str, port: int, address: str = LOOPBACK) -> None:
    """Refuse a port that another process holds.

    Raises:
        SetupError: names the option and the port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise SetupError(f"{option}: port {port} is not free ({error.strerror}); choose another") from error


def socket_path(address: str, port: int) -> Path:
    """Return the Unix socket of an address `unix:/FOLDER/NAME`: Triton appends the port to the name."""
    return Path(f"{address.removeprefix(UNIX)}:{port}")


def check_socket(address: str, port: int) -> None:
    """Refuse a Unix socket that other users could reach, or that another server holds.

    Raises:
        SetupError: names the folder or the socket.
    """
    path = socket_path(address, port)
    if not path.is_absolute() or len(os.fsencode(path)) > _MAX_PATH:
        raise SetupError(f"--address: expected unix: and an absolute path of at most {_MAX_PATH} bytes, got {path}")
    folder = path.parent
    if not folder.is_dir() or folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise SetupError(
            f"--address: {folder} must be a folder that you own and nobody else can enter: "
            f"mkdir -p {folder}; chmod 700 {folder}"
        )
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        probe.connect(str(path))
        raise SetupError(f"--address: another server listens on {path}; choose another name or --grpc-port")
