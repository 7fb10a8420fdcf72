"""Benchmarks. Each script answers one question; results are kept in `results/`."""
