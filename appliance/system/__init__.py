"""One adapter per foreign thing: files, drives, mounts, programs, the service manager."""
