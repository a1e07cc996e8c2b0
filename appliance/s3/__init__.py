"""The HTTP front door: requests, authentication, routing, one function per S3 operation."""
