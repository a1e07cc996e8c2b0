"""boto3 and raw sockets against the real daemon over HTTPS."""
