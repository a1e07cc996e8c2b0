"""Unit tests of the mirror engine and the rules of its membership."""
