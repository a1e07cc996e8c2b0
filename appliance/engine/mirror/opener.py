"""Opens the store on real drives: threads per drive, locks of gateways, volumes of an assembly.

Owns what one life of the store needs from the operating system and gives it back when that life
ends. Committer thread only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from appliance.core.ports import Clock, Entropy, Volume
from appliance.engine.mirror.assembled import Orders, Ports
from appliance.engine.mirror.assembly import AssemblyMessage
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
        self._lanes: ThreadLanes | None = None
        self._roots: dict[str, Path] = {}

    def open(self, message: AssemblyMessage, orders: Orders) -> Store:
        """Raises what ``Store.open`` raises, and ``Unavailable`` for drives of no one mirror."""
        lanes = self._fresh_lanes()
        assembly, troubles = message.open(lanes, deadline_s=self._settings.deadline_s)
        for trouble in troubles:
            self._callbacks.alert(trouble)
        self.note(message)
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
        """Where the drives are mounted now. Any thread."""
        self._roots = {one.drive: Path(one.path) for one in message.drives.values()}

    def _sweep(self, volumes: Sequence[Volume], directory: str) -> int:
        roots = self._roots
        return sweep_if_free([roots[v.name] for v in volumes if v.name in roots], directory)

    def _fresh_lanes(self) -> ThreadLanes:
        """A lane that hangs in an earlier life's call is left to it."""
        self.close()
        self._lanes = ThreadLanes(self._clock)
        return self._lanes

    def close(self) -> None:
        """End the lanes. Idempotent."""
        if self._lanes is not None:
            self._lanes.close()
            self._lanes = None


def retire(member: Member) -> None:
    """Closing files of a failed drive may hang: not on the committer's thread."""
    threading.Thread(target=member.close, name=f"retire {member.drive_id}", daemon=True).start()


def discard(volume: Volume) -> None:
    """The same for a drive that was taken away before it counted."""
    threading.Thread(target=volume.close, name=f"discard {volume.name}", daemon=True).start()


def _spawn(call: Callable[[], None]) -> None:
    threading.Thread(target=call, name="segment", daemon=True).start()
