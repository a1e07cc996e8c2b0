"""What an operator should know although nobody asked.

Owns the shape. The store keeps its latest alerts and writes each to the journal at once; the report
of a mirror carries them to people.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alert:
    """``text``: what happened, to what, and what to do next. ``when_ns``: since 1970, UTC."""

    when_ns: int
    text: str
