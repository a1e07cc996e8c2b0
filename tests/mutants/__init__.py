"""Mutants of the engine: each has one safeguard disabled, and the tests must notice every one."""
