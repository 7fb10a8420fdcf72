#!/usr/bin/env bash
# A new gRPC channel waits out the failures of another channel of its process.
#
# Expected: a channel that has just been made connects at once to a server that listens.
# Seen with grpcio 1.85.1: channels of one process to one address share their connections, and with them the wait after
# failed attempts, which grows up to two minutes. A new channel to a server that has just come back waits for seconds
# beside an old one. With its own pool (grpc.use_local_subchannel_pool) it connects at once. A supervisor that asks a
# restarted server over a new channel takes it for dead.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.1
cd "$folder"
venv/bin/python - <<'PY'
import socket
import sys
import time
from concurrent import futures

import grpc

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
url = f"127.0.0.1:{port}"
print("grpcio", grpc.__version__)

old = grpc.insecure_channel(url)
waiting = old.unary_unary("/service/hello").future(b"", timeout=120, wait_for_ready=True)
time.sleep(12)  # attempts after about 0, 1, 2.6, 5 and 9 s; the next one is due after about 16 s

server = grpc.server(futures.ThreadPoolExecutor(2))
handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("service", {"hello": handler}),))
server.add_insecure_port(url)
server.start()


def seconds(*options):
    began = time.monotonic()
    with grpc.insecure_channel(url, options) as channel:
        channel.unary_unary("/service/hello")(b"", timeout=60, wait_for_ready=True)
    return time.monotonic() - began


own = seconds(("grpc.use_local_subchannel_pool", 1))
shared = seconds()
print(f"a new channel with its own pool is answered after {own:.2f} s, one without after {shared:.2f} s")
waiting.result()
old.close()
server.stop(0)
sys.exit(not (own < 1.0 < shared))
PY
