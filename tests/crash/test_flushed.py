"""What the store has done is flushed by the time it says so: bytes, and names in every directory.

The simulated drives keep changes of names in one journal, as XFS does, where the flush of one
directory also keeps what was done in others before. A promise must not rest on that: here each
directory in which a name was made has to be flushed itself, and every file that is no scratch.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.deeds import lawful
from tests.crash.machine import DRIVES, Machine
from tests.crash.simulated import SimulatedDisk
from tests.crash.simulated_volume import Inode, parent
from tests.crash.world import World

SCRATCH = "staging"
DEEDS = 14


class Names:
    """Watches one drive: the directories in which a name was made, or a segment removed, since they
    were flushed."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.unflushed: dict[str, str] = {}
        """Directory → what was last done in it."""
        self._change, self._flush = disk.change, disk.flush_names
        vars(disk).update(change=self.change, flush_names=self.flush)

    def change(self, kind: str, source: str, target: str, inode: Inode | None) -> None:
        made = target or source
        if kind != "unlink" or made.startswith("log/"):
            self.unflushed[parent(made)] = f"{kind} {made}"
        self._change(kind, source, target, inode)

    def flush(self, directory: str) -> None:
        self.unflushed.pop(directory, None)
        self._flush(directory)

    def waiting(self) -> list[str]:
        """What a power cut could take, but for scratch."""
        files = self.disk.frozen().tree.items()
        bytes_of = [path for path, file in files if file is not None and file.waiting]
        names = [f"{what} (in {directory or '/'})" for directory, what in self.unflushed.items()]
        return [
            each
            for each in (*names, *bytes_of)
            if not each.partition(" ")[2].startswith(SCRATCH) and not each.startswith(SCRATCH)
        ]


@pytest.mark.parametrize("number", range(8))
def test_nothing_waits_in_a_cache_when_a_deed_is_done(number: int, scratch: Path) -> None:
    world = World(f"flushed {number}", scratch)
    watched = [Names(disk) for disk in world.machine.disks.values()]
    world.open()
    for count in range(DEEDS):
        choices = lawful(world, plain=False)
        deed = world.rng.choice(choices)
        world.deed = deed.name
        deed.act(world)
        for names in watched:
            if names.disk.name == world.away:
                names.unflushed.clear()  # it left in the midst of whatever it was
            else:
                assert names.waiting() == [], f"{names.disk.name} after deed {count}, {deed.name}"


def test_a_new_mirror_is_flushed_when_it_is_made(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[Names] = []
    make = SimulatedDisk.__init__

    def watching(disk: SimulatedDisk, *arguments: object, **named: object) -> None:
        make(disk, *arguments, **named)  # type: ignore[arg-type]
        watched.append(Names(disk))

    monkeypatch.setattr(SimulatedDisk, "__init__", watching)
    Machine(1, scratch)
    assert {names.disk.name for names in watched} > set(DRIVES)
    for names in watched:
        assert names.waiting() == []
