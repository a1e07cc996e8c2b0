"""Tools for drives that nobody uses."""
