"""How roles introduce themselves to each other.

Owns the names, so that nobody imports a role's own modules just to know what it is called.
"""

from __future__ import annotations


def store_role(mirror: str) -> str:
    """The store of a mirror."""
    return f"store {mirror}"


def gateway_role(number: int) -> str:
    """A gateway."""
    return f"gateway {number}"
