"""Frees responses after they were read.

Fault (Triton 2.51): the responses of the last eight streams, up to a whole song each, stay allocated for reuse.
Does: sets the size of that pool to 0.
Test: `test_one_stalled_client_among_eight_delays_nobody_and_is_counted`
Delete when: the pool keeps no response contents.
"""

FLAGS = ("--grpc-infer-allocation-pool-size=0",)
"""Arguments of tritonserver."""
