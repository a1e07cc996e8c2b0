"""Drives: discovery, claim, mirrors and their assembly."""
