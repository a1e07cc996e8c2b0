"""Core rules and small pieces; anywhere, in seconds."""
