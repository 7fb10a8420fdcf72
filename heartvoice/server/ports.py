"""Addresses and ports that a server may listen on."""

from __future__ import annotations

import socket

from heartvoice.server.triton_wheel import SetupError

LOOPBACK, ANY = "127.0.0.1", "0.0.0.0"


def check_address(address: str) -> None:
    """Refuse to open the wheel's old server to the network.

    Raises:
        SetupError: the address is not loopback.
    """
    if address != LOOPBACK:
        raise SetupError(
            f"--address: the embedded server listens on {LOOPBACK} alone, got {address}: it is an old version with "
            "known crashes; put `heartvoice gateway` in front, or give a newer one with --server PATH"
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
