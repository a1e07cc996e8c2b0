"""Wiring: configuration and one module per role."""
