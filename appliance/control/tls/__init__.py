"""The private certificate authority and the certificates the service shows."""
