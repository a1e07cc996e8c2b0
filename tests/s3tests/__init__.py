"""Runs a third-party S3 conformance suite, which stays outside the project, against the service."""
