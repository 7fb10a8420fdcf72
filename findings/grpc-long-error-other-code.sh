#!/usr/bin/env bash
# An error with a long text reaches a gRPC client with another status code.
#
# Expected: the server's code, with its text or the beginning of it.
# Seen with grpcio 1.85.1: NOT_FOUND with 20,000 characters arrives as RESOURCE_EXHAUSTED, and the text is lost. Between 8 and
# 16 KB it happens now and then. A client that retries on one code and not on the other does the wrong thing: cut texts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.1
cd "$folder"
venv/bin/python - <<'PY'
import sys
from concurrent import futures

import grpc


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "x" * int(request))


handlers = {"fail": grpc.unary_unary_rpc_method_handler(fail)}
server = grpc.server(futures.ThreadPoolExecutor(1))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("service", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print("grpcio", grpc.__version__)
codes = {}
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    for length in (1_000, 20_000):
        try:
            channel.unary_unary("/service/fail")(str(length).encode(), timeout=10)
        except grpc.RpcError as error:
            codes[length] = error.code().name
            print(f"NOT_FOUND with {length:,} characters arrives as {error.code().name}: {error.details()[:60]}")
server.stop(0)
sys.exit(not (codes[1_000] == "NOT_FOUND" and codes[20_000] != "NOT_FOUND"))
PY
