"""Tests of the daemon: configuration, keys, accounts, certificates, processes."""
