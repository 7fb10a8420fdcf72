"""Frees responses of other models before a model is unloaded.

Fault (Triton 2.51): a failed job's traceback keeps responses of other models alive in a reference cycle. Freed when the
    interpreter ends, they wait for an answer that the server no longer gives, and block the unload.
Does: collects reference cycles in `finalize`.
Test: `test_a_model_reloaded_under_load_fails_no_job_but_its_own`
Delete when: responses can be freed while their model is being unloaded.
"""

from __future__ import annotations

import gc


def collect() -> None:
    """Collect reference cycles."""
    gc.collect()
