"""A gRPC proxy in front of Triton that may face callers: checks, authentication, limits (docs/how-to/gateway.md)."""
