"""Bringing a staged blob to every in-sync drive while commits wait: the last resort, with an end.

Owns the judgement on drives that fail meanwhile. Refuses what cannot be had in time: its client
writes the blob again. Invariant: a drive is let go only for what it was asked to write itself.

Mostly there is nothing to do here: the service copies beforehand, beside the committer. Committer
thread only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from appliance.core.errors import DriveTimeout, MembershipChanged, NoSpace
from appliance.engine.mirror.adoption import BlobKeeper
from appliance.engine.mirror.member import FULL, Member
from appliance.engine.mirror.messages import Staged
from appliance.engine.mirror.state import MirrorState

COPY_LANE: Final = "copy"
"""A lane of its own, for the drive that is read from may be the one that hangs."""


def complete(state: MirrorState, blobs: BlobKeeper, blob: Staged) -> Staged:
    """The blob on every in-sync drive; one that takes no writes any more is let go. Raises
    ``MembershipChanged`` (also when it takes longer than a drive's deadline), ``NoSpace``, or
    ``Stopped``."""
    while True:
        members = state.members
        lacking = blobs.lacking(members, blob)
        if not lacking:
            return blob
        done: list[Staged] = []
        fault = state.calls.within(COPY_LANE, partial(_copy, done, blobs, members, blob))
        if fault is None:
            return done[0]
        if isinstance(fault, DriveTimeout) and fault.drive == COPY_LANE:
            state.probe()  # nobody knows which of the drives the copy hangs in
        if fault.errno in FULL:
            raise NoSpace(f"cannot store: drive {fault.drive} is full") from fault
        if fault.drive not in lacking:
            raise MembershipChanged(f"cannot adopt: {fault}") from fault
        # The client, which may have seen it first, would otherwise write the blob again for as long
        # as the log is quiet.
        state.lose({fault.drive: fault})


def _copy(
    done: list[Staged], blobs: BlobKeeper, members: Mapping[str, Member], blob: Staged
) -> None:
    done.append(blobs.complete(members, blob))
