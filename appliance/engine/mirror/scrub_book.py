"""What is remembered of scrubs across restarts of the store: one small file beside the index.

Owns the file ``scrub.json`` and the schedule. Refuses nothing: a file that cannot be read is an
empty one, which costs time and no data. Invariant: the schedule counts time of service, on a clock
that never jumps, so that a wrong wall clock neither starts a scrub nor puts one off.

Crash points of ``save``: (1) before the rename: the older file stands, what was done since is done
again; (2) after it: the new one, whole, for it was flushed before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
from dataclasses import dataclass, field
from typing import Final

from appliance.core.documents import from_document, to_document
from appliance.core.errors import DriveFault, InvalidInput
from appliance.core.ports import Entropy, Volume
from appliance.core.scrubs import ScrubRun, ScrubState
from appliance.engine.mirror.scrub_tally import Cursor, Tally

NAME: Final = "scrub.json"
_NEW: Final = f"{NAME}.new"
BYTES_MAX: Final = 1024 * 1024
JITTER: Final = 0.1
"""A scrub comes this share of the interval early at most: mirrors made together drift apart."""


@dataclass(frozen=True, slots=True)
class Page:
    """The file's content. ``waited_s``: time of service since the last scrub; ``share``: of the
    interval, after which the next is due."""

    waited_s: float = 0.0
    share: float = 1.0
    paused: bool = False
    current: ScrubRun | None = None
    cursor: Cursor = field(default_factory=Cursor)
    last: ScrubRun | None = None


def draw_share(entropy: Entropy) -> float:
    """When within the interval the next scrub is due."""
    return 1.0 - JITTER * int.from_bytes(entropy.token(4), "big") / 2**32


def load(directory: Volume, entropy: Entropy) -> Page:
    """What was remembered, or a first page."""
    with contextlib.suppress(DriveFault, InvalidInput, ValueError):
        if directory.stat(NAME) is not None:
            file = directory.open(NAME)
            try:
                page = from_document(Page, json.loads(file.read_at(0, BYTES_MAX)))
            finally:
                file.close()
            bytes.fromhex(page.cursor.blob)
            if page.waited_s >= 0 and 1 - JITTER <= page.share <= 1:
                return page
    return Page(share=draw_share(entropy))


def save(directory: Volume, page: Page) -> None:
    """Durable on return. Raises ``DriveFault``."""
    data = json.dumps(to_document(page), indent=1).encode()
    try:
        directory.unlink(_NEW)
    except DriveFault as fault:
        if fault.errno != errno.ENOENT:
            raise
    file = directory.open(_NEW, write=True, create=True)
    try:
        file.write_at(0, data)
        file.flush()
    finally:
        file.close()
    directory.rename(_NEW, NAME)
    directory.flush_directory("")


def ended(page: Page, tally: Tally, state: ScrubState, now_ns: int, entropy: Entropy) -> Page:
    """The page after a scrub: it is the last one, and the wait for the next begins."""
    run = dataclasses.replace(tally.report(state, ended_ns=now_ns), eta_s=None)
    return Page(share=draw_share(entropy), last=run)
