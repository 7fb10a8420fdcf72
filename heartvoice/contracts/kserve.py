"""The names in KServe messages that client, gateway and server share."""

from __future__ import annotations

WANT_FINAL = "triton_enable_empty_final_response"
"""Parameter of a streamed request: the last response is marked, even if it is empty."""
FINAL = "triton_final_response"
"""Parameter of a stream's last response."""
ENDED_EARLY = "Internal error from Core"
"""The error text of grpc.aio (1.85) if the other side ended a call before it had the whole request."""
