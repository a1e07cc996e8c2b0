"""What a process runs on: clock, randomness, threads per drive, messages between roles."""
