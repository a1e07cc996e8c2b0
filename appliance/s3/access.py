"""What is remembered of every request, for access reports, metrics and billing.

Owns plain values only. Times are seconds; ``began_ns`` is wall clock. Never holds a secret.
"""

from __future__ import annotations

from typing import NamedTuple


class AccessRecord(NamedTuple):
    """One request, complete or broken off. ``status`` 0: the client left before an answer."""

    request_id: str
    began_ns: int
    duration_s: float
    network: str
    remote_address: str
    secure: bool
    method: str
    operation: str
    raw_target: str
    bucket: str | None
    key: str | None
    access_key: str
    user_id: str
    contract: str
    status: int
    code: str
    bytes_in: int
    bytes_out: int
    user_agent: str
