"""Desired state and the managers that make it real."""
