"""What becomes of an index that is found damaged while it is used.

Owns the verdict. Invariant: once damage is seen nothing more is read from that index to be written
anywhere; the store stops, and its next start builds the index anew from the log, which is not in
doubt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

from appliance.core.errors import Damaged, DriveFault
from appliance.core.ports import Volume
from appliance.engine.mirror.rebuild import condemn
from appliance.engine.mirror.state import MirrorState, Stopped


class IndexTrust:
    """In the index of one open store. Any thread."""

    def __init__(self, state: MirrorState, directory: Volume) -> None:
        self._state = state
        self._directory = directory

    @contextmanager
    def while_it_holds(self) -> Iterator[None]:
        """Raises ``Stopped`` when the index is found damaged inside."""
        try:
            yield
        except Damaged as damage:
            raise self.end(damage) from damage

    def end(self, damage: Damaged) -> Stopped:
        """It does not verify: it is put aside, and the store stops. Returns what to raise."""
        try:
            condemn(self._directory, PurePath(self._state.index.path).name)
        except DriveFault as fault:
            self._state.callbacks.alert(f"a damaged index cannot be put aside: {fault}")
        return self._state.stop(f"{damage}; it is built anew")
