"""The admin API, its client and the command line."""
