"""Style as tests."""
