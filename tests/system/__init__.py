"""Real loop devices, a real systemd-udevd, real XFS, the whole service as root."""
