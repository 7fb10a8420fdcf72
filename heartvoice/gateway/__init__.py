"""A gRPC proxy between untrusted callers and Triton: checks, authentication, limits (docs/how-to/gateway.md)."""
