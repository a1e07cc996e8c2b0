"""The mirror engine: two drives, one log, one index; see DESIGN.md beside this file."""
