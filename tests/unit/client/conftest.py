"""A fake server for each test, and both clients behind one face."""

from tests.support.callers import caller, certificates, folder, server  # noqa: F401
