#!/usr/bin/env bash
# The least wait between gRPC's attempts to connect is also the longest that an attempt may take.
#
# Expected: `grpc.min_reconnect_backoff_ms`, described as the least time between attempts, says how soon a client tries
# again. A small value is for who wants to be back soon after a restart; the first attempt does not depend on it.
# Seen with grpcio 1.85.1: each attempt is given up after that time. With 100 ms a server whose answers take 0.3 s more
# in each direction is unavailable at the first call ("connection attempt timed out"); with 2000 ms it answers.
# `grpc.initial_reconnect_backoff_ms` alone makes a client return soon.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.1
cd "$folder"
venv/bin/python - <<'PY'
import asyncio
import sys
import threading
from concurrent import futures

import grpc

DELAY_S = 0.3
print("grpcio", grpc.__version__)
server = grpc.server(futures.ThreadPoolExecutor(2))
handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("service", {"hello": handler}),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()


async def carry(reader, writer):
    loop = asyncio.get_running_loop()
    while block := await reader.read(65536):
        loop.call_later(DELAY_S, writer.write, block)
    loop.call_later(DELAY_S, writer.close)


async def accept(reader, writer):
    there = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(carry(reader, there[1]), carry(there[0], writer), return_exceptions=True)


loop = asyncio.new_event_loop()
listening = loop.run_until_complete(asyncio.start_server(accept, "127.0.0.1", 0))
distant = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
threading.Thread(target=loop.run_forever, daemon=True).start()


def call(least_ms):
    options = [
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", least_ms),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(distant, options) as channel:
        try:
            channel.unary_unary("/service/hello")(b"", timeout=30)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


found = {least_ms: call(least_ms) for least_ms in (100, 2000)}
print(f"the first call over a way of {DELAY_S} s each way, by min_reconnect_backoff_ms: {found}")
server.stop(0)
sys.exit(0 if found == {100: "UNAVAILABLE", 2000: "OK"} else 1)
PY
