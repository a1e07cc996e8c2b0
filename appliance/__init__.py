"""A storage appliance: S3 over HTTPS on mirrored drives, operated through systemd."""

__version__ = "0.1.0"
