"""Drives: rules, plans, assembly and the manager over a fake bay."""
