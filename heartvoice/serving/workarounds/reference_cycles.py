"""Frees responses of other models before a model is unloaded.

Fault (Triton 2.51): responses of other models that are freed late, at the interpreter's end, block the unload. A failed
    job's traceback can keep them in a reference cycle.
Does: collects reference cycles in `finalize`.
Test: `test_a_model_reloaded_under_load_fails_no_job_but_its_own`
Delete when: responses can be freed while their model is being unloaded.
"""

from __future__ import annotations

import gc


def collect() -> None:
    """Collect reference cycles."""
    gc.collect()
