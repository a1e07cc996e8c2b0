"""Opens the store on real drives: threads per drive, locks of gateways, volumes of an assembly.

Owns what the lives of the store need from the operating system. Invariant: a drive's lane, and the
witness's, outlives them, and is made anew for a fresh mount alone, so that nobody uses a mount on
which a call of an earlier life is still out: what it writes when it comes back would meet what was
written since. Committer thread only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.core.epochs import WITNESS
from appliance.core.ports import Clock, Entropy, Volume
from appliance.engine.mirror.assembled import Orders, Ports
from appliance.engine.mirror.assembly import AssembledDrive, AssemblyMessage
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.staging_lock import sweep_if_free
from appliance.engine.mirror.state import Callbacks, StoreSettings
from appliance.engine.mirror.store import Store
from appliance.runtime.lanes import ThreadLanes


class StoreOpener:
    """Opens one life of the store after the other."""

    def __init__(
        self, clock: Clock, entropy: Entropy, settings: StoreSettings, callbacks: Callbacks
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self._settings = settings
        self._callbacks = callbacks
        self._lanes = ThreadLanes(clock)
        self._mounts: dict[str, _Mount] = {}
        self._mounts_of_lanes: dict[str, _Mount] = {}

    def open(self, message: AssemblyMessage, orders: Orders) -> Store:
        """Raises what ``Store.open`` raises, and ``Unavailable`` for drives of no one mirror."""
        lanes = self._lanes
        lanes.keep([WITNESS, *self._mounts])
        for drive, mount in self._mounts.items():
            if self._mounts_of_lanes.get(drive) is not mount:
                self.renew(drive)
        assembly, troubles = message.open(lanes, deadline_s=self._settings.deadline_s)
        for trouble in troubles:
            self._callbacks.alert(trouble)
        try:
            return Store.open(
                assembly,
                Ports(self._clock, self._entropy, lanes),
                self._settings,
                callbacks=self._callbacks,
                orders=orders,
                spawn=_spawn,
                sweep=self._sweep,
            )
        except BaseException:
            assembly.close()
            raise

    def note(self, message: AssemblyMessage) -> None:
        """Where the drives are mounted now: every message, also while no store is open. One thread,
        which may be another than the committer's."""
        known = self._mounts
        mounts = {}
        for drive, one in message.drives.items():
            before = known.get(drive)
            mounts[drive] = before if before is not None and before.drive == one else _Mount(one)
        self._mounts = mounts

    def renew(self, drive: str) -> None:
        """A drive is on a fresh mount: what may still hang on the old one is left behind."""
        self._lanes.drop(drive)
        if drive in self._mounts:
            self._mounts_of_lanes[drive] = self._mounts[drive]

    def _sweep(self, volumes: Sequence[Volume], directory: str) -> int:
        mounts = self._mounts
        roots = [Path(mounts[v.name].drive.path) for v in volumes if v.name in mounts]
        return sweep_if_free(roots, directory)

    def close(self) -> None:
        """End the lanes. Idempotent."""
        self._lanes.close()


@dataclass(eq=False, frozen=True, slots=True)
class _Mount:
    """One drive as long as every message named it alike; the same again later is another mount."""

    drive: AssembledDrive


def retire(member: Member) -> None:
    """Closing files of a failed drive may hang: not on the committer's thread."""
    threading.Thread(target=member.close, name=f"retire {member.drive_id}", daemon=True).start()


def discard(volume: Volume) -> None:
    """The same for a drive that was taken away before it counted."""
    threading.Thread(target=volume.close, name=f"discard {volume.name}", daemon=True).start()


def _spawn(call: Callable[[], None]) -> None:
    threading.Thread(target=call, name="segment", daemon=True).start()
