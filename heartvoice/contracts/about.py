"""The model `heartvoice`: it says what a server is, and is loaded as long as the server takes jobs.

Triton 2.51 knows neither: its metadata have its own version alone, and it counts as ready while it is drained. The
supervisor adds this model at the start, and unloads it when a stop begins.
"""

from __future__ import annotations

ABOUT = "heartvoice"
"""Name of the model, and of the server in its metadata."""
FACTS = "FACTS"
"""Its output: BYTES [1], a JSON object with the names below."""
ASK = "ask"
"""Its only input: BOOL [1], without effect; Triton wants one."""
NAMES = ("version", "preset", "contract", "weights", "random_weights")
"""What it says; also the parameters of its configuration, as text."""
EXTENSION = "heartvoice:"
"""Prefix of the gateway's server extensions: `heartvoice:preset=tiny` and so on."""
