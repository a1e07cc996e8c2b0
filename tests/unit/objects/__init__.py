"""The object layer over the simulated engine."""
