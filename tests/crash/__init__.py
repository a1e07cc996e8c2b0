"""Simulated drives and faults under the real engine."""
