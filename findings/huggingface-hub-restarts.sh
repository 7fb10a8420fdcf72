#!/usr/bin/env bash
# huggingface_hub 2.4.0: a download that failed is not resumed by the next call.
#
# Expected: a second `hf_hub_download` of the same revision asks for the bytes that are missing, since the first one had
# most of them on disk.
# Seen: the partial file is deleted when the download fails, and the second call starts at byte 0.
# Exits with 0 while that is so, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet huggingface_hub==2.4.0
export HF_HOME=$folder/home HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HUB_DISABLE_TELEMETRY=1
cat > "$folder/run.py" <<'PYTHON'
import hashlib
import logging
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, hf_hub_download

SIZE, CUT, COMMIT = 64 * 2**20, 48 * 2**20, "0" * 40
ETAG = hashlib.sha256(bytes(SIZE)).hexdigest()
broken, starts = True, []


class Hub(BaseHTTPRequestHandler):
    """One file of one repository; while `broken`, its first answer ends after CUT bytes and others at once."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(200, 0, body=False)

    def do_GET(self):
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        starts.append(start)
        self.answer(206 if found else 200, start, body=True)

    def answer(self, status, start, body):
        self.send_response(status)
        self.send_header("ETag", f'"{ETAG}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(SIZE - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{SIZE - 1}/{SIZE}")
        self.end_headers()
        if body:
            end = max(start, CUT) if broken else SIZE
            try:
                self.wfile.write(bytes(end - start))
            except OSError:
                pass
            self.close_connection = broken


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
folder = Path(sys.argv[1])


def download():
    return hf_hub_download(
        "owner/name", "model.bin", revision=COMMIT, local_dir=folder,
        endpoint=f"http://127.0.0.1:{server.server_address[1]}",
    )


print("huggingface_hub", huggingface_hub.__version__, "python", sys.version.split()[0])
try:
    download()
    sys.exit("the first call should have failed")
except Exception as error:
    print(f"first call: {type(error).__name__}; asked for bytes from {starts}")
kept = [path.stat().st_size for path in folder.rglob("*.incomplete")]
broken, first = False, list(starts)
starts.clear()
assert Path(download()).stat().st_size == SIZE
print(f"partial files left: {kept}; second call asked for bytes from {starts}, the file has {SIZE}")
sys.exit(0 if starts[0] == 0 and not kept and max(first) > 0 else 1)
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder/model"
