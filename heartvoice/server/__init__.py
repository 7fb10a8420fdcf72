"""The supervised Triton server: found, started, made ready, restarted, stopped."""
