"""The real Triton server out of a PyPI wheel: find it, start it, watch it, stop it."""

import os

# Every child of a supervisor goes on to `exec` at once. gRPC's own fork handlers, which are for children that stay,
# abort the child now and then if calls are under way (1.85: 30 of 2990 forks, none of 3179 without them). Read by gRPC
# when it is imported, so this comes first: the command imports this package for that.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
