"""Benchmark programs; never timed assertions."""
