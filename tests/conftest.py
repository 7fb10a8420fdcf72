"""Settings of the whole suite."""

from __future__ import annotations

import os

# Tiny networks on a busy machine: a second thread costs more than it gives, and spinning starves the other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
