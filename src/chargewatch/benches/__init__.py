"""Benchmarks: each prints what it measured in the same run."""
