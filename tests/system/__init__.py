"""Real drives, real device events, real machines."""
