#!/usr/bin/env bash
# A client that rests takes hundreds of megabytes of a gRPC stream from a distant server ahead of its reader.
#
# Expected: flow control holds the server back as soon as the client stops reading: by the protocol's 64 kB, or by the
# few megabytes that a distant connection needs. So a slow reader needs little memory.
# Seen with grpcio 1.85.1: gRPC measures the connection and enlarges the window by what it finds. Over a way of 50 ms in
# each direction a client that has read some messages of 2 MB and then rests still takes far more than 40 MB. Without the
# measurement (grpc.http2.bdp_probe 0) and with grpc.http2.lookahead_bytes of 4 MB it takes a few messages.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.1
cd "$folder"
venv/bin/python - <<'PY'
import queue
import socket
import sys
import threading
import time
from concurrent import futures

import grpc

DELAY_S, MESSAGE, N_READ, N_SENT = 0.05, bytes(2_000_000), 40, 300
print("grpcio", grpc.__version__)
sent = 0


def stream(request, context):
    global sent
    for _ in range(N_SENT):
        yield MESSAGE
        sent += 1


server = grpc.server(futures.ThreadPoolExecutor(2))
handler = grpc.unary_stream_rpc_method_handler(stream)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("service", {"songs": handler}),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()


def receive(source, blocks):
    while block := source.recv(2**18):
        blocks.put((time.monotonic() + DELAY_S, block))


def send(target, blocks):
    while True:
        due, block = blocks.get()
        time.sleep(max(0.0, due - time.monotonic()))
        target.sendall(block)


def carry(source, target):
    blocks = queue.Queue()
    for work, end in ((receive, source), (send, target)):
        threading.Thread(target=quietly, args=(work, end, blocks), daemon=True).start()


def quietly(work, *arguments):
    try:
        work(*arguments)
    except OSError:
        pass


listener = socket.create_server(("127.0.0.1", 0))


def accept():
    while True:
        caller, _ = listener.accept()
        there = socket.create_connection(("127.0.0.1", port))
        carry(caller, there)
        carry(there, caller)


threading.Thread(target=accept, daemon=True).start()


def ahead_mb(*options):
    global sent
    sent = 0
    options = [("grpc.use_local_subchannel_pool", 1), *options]
    with grpc.insecure_channel(f"127.0.0.1:{listener.getsockname()[1]}", options) as channel:
        call = channel.unary_stream("/service/songs")(b"", timeout=60)
        for _ in range(N_READ):
            next(call)
        time.sleep(3)
        taken = (sent - N_READ) * len(MESSAGE) / 1e6
        call.cancel()
    return taken


default = ahead_mb()
bounded = ahead_mb(("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 4_000_000))
print(f"taken ahead by a client that rests: {default:g} MB; with the probe off and 4 MB of lookahead {bounded:g} MB")
server.stop(0)
sys.exit(not (bounded <= 16 and default > 40))
PY
