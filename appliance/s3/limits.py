"""Every limit of the HTTP front door, by name, with its default.

Owns plain values only. Invariant: each bound a client can reach is here, so that what a connection
may cost is the sum of these and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
ACCEPT_STEP_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """Read-only settings of one ``S3Server``. Sizes in bytes, times in seconds.

    Connections: ``connections`` in all and ``connections_per_client`` from one address (a customer
    behind NAT is one address; 0 turns it off); beyond them a connection gets 503 ``SlowDown``.

    Accepting: a process waits ``accept_step_s`` for each connection it has, ``accept_delay_max_s``
    at most, before it takes a further one that another process might take (0: it is alone).

    Time: ``idle_s`` is how long a connection may wait for its next complete request header;
    ``body_wait_s`` how long one read of a body waits for a byte; a body that lasts longer than
    ``body_grace_s`` must average ``body_min_bytes_per_s``; ``write_stall_s`` how long a client may
    leave an answer unread; ``linger_s`` how long an unread body is drained before the connection is
    closed; ``handshake_s`` bounds the TLS handshake.

    Sizes: ``target_bytes`` of the request target; ``header_bytes`` of one header line and of all
    together; ``header_count`` headers. A refused request keeps its connection only if at most
    ``drain_bytes`` of its body are still to come. ``piece_bytes`` is what a body hands on at a
    time; hashing moves to a thread from ``hash_in_thread_bytes``.

    Keys: a credential is asked for again after ``credential_cache_s``, and used up to
    ``credential_stale_s`` while the key store cannot be reached.
    """

    connections: int = 4096
    connections_per_client: int = 1024
    accept_step_s: float = ACCEPT_STEP_S
    accept_delay_max_s: float = 0.005
    idle_s: float = 60.0
    body_wait_s: float = 30.0
    body_grace_s: float = 60.0
    body_min_bytes_per_s: int = 512
    write_stall_s: float = 60.0
    linger_s: float = 1.5
    handshake_s: float = 10.0
    shutdown_s: float = 5.0
    fresh_connection_s: float = 0.5
    backlog: int = 1024
    target_bytes: int = 8 * KIBIBYTE
    header_bytes: int = 16 * KIBIBYTE
    header_count: int = 128
    drain_bytes: int = 64 * KIBIBYTE
    piece_bytes: int = 256 * KIBIBYTE
    hash_in_thread_bytes: int = 64 * KIBIBYTE
    skew_s: int = 15 * 60
    credential_cache_s: float = 5.0
    credential_stale_s: float = 300.0
    credential_cache_entries: int = 4096
