#!/usr/bin/env bash
# limits 5.8.0: the moving window stores one entry for each unit of a hit's cost.
#
# Expected: `hit(item, key, cost=1_000_000)` stores one entry with its cost, so that a limit in bytes costs as little as
# a limit in requests. The fixed window of the same library does so: it stores a counter.
# Seen: the moving window in memory stores a million entries for that one hit: 8 to 16 MB.
# Exits with 0 while that is so, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet limits==5.8.0
cat > "$folder/run.py" <<'PYTHON'
import sys
import tracemalloc
from importlib.metadata import version

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

COST = 1_000_000
grown = {}
for strategy in (FixedWindowRateLimiter, MovingWindowRateLimiter):
    limiter = strategy(MemoryStorage())
    item = RateLimitItemPerMinute(2 * COST)
    tracemalloc.start()
    if not limiter.hit(item, "caller", cost=COST):
        sys.exit("the hit was refused, though the limit is twice its cost")
    grown[strategy.__name__] = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
print(f"limits {version('limits')}, Python {sys.version.split()[0]}: one hit of cost {COST} keeps")
for name, size in grown.items():
    print(f"  {name}: {size:,} bytes")
moving, fixed = grown["MovingWindowRateLimiter"], grown["FixedWindowRateLimiter"]
if fixed < 1_000_000 and moving > 4 * COST:
    print("as described: the moving window's memory grows with the cost")
else:
    sys.exit("changed: the moving window keeps no entry for each unit any more")
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
