"""Deeds: what a machine does while its moments are recorded, and where new ones plug in.

Owns the registry. A deed is one thing the service does in a normal life; the explorer strings them
together at random and crashes the machine in the midst of each. **A new kind of work of the engine
is added here, in one function under ``@deed``**: it is then swept by every fault, and counts as a
fault class of its own (``cut in <name>``) when ``is_counted``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from appliance.engine.mirror.segment import segment_path
from tests.crash.machine import DRIVES
from tests.crash.rot import spoilt_part
from tests.crash.scrubbing import scrub
from tests.crash.world import World

Act: TypeAlias = Callable[[World], None]


@dataclass(frozen=True, slots=True)
class Deed:
    """``weight``: how often it is drawn. ``needs``: how many members, 0 for any. ``is_counted``:
    its cuts are a fault class that must have its share. ``is_plain``: no member comes or goes.
    ``variants``: how many crashes of each of its moments are tried."""

    name: str
    act: Act
    weight: int
    needs: int
    is_counted: bool
    is_plain: bool
    variants: int


DEEDS: Final[dict[str, Deed]] = {}


def deed(
    name: str,
    weight: int,
    *,
    needs: int = 0,
    is_counted: bool = False,
    is_plain: bool = True,
    variants: int = 2,
) -> Callable[[Act], Act]:
    """Put a deed into the registry."""

    def register(act: Act) -> Act:
        assert name not in DEEDS, f"there is a deed {name} already"
        DEEDS[name] = Deed(name, act, weight, needs, is_counted, is_plain, variants)
        return act

    return register


def lawful(world: World, *, plain: bool) -> list[Deed]:
    """The deeds that can be done now."""
    store = world.machine.store
    count = 0 if store is None else len(store.members)
    return [
        each for each in DEEDS.values() if each.needs in {0, count} and (each.is_plain or not plain)
    ]


@deed("commit", 14, variants=3)
def _commit(world: World) -> None:
    world.commit(world.rng.choice((1, 1, 2, 3)))


@deed("mark", 2)
def _mark(world: World) -> None:
    assert world.machine.store is not None, "it is open"
    world.machine.store.mark()


@deed("upkeep", 3)
def _upkeep(world: World) -> None:
    """Room made ahead, segments recycled, released blobs unlinked."""
    assert world.machine.store is not None, "it is open"
    world.machine.store.checkpoint()
    world.machine.store.step()


@deed("heartbeat", 3, variants=4)
def _heartbeat(world: World) -> None:
    """An hour goes by."""
    assert world.machine.store is not None, "it is open"
    world.machine.clock.sleep_s(4000)
    world.machine.store.step()


@deed("roll over", 3)
def _roll_over(world: World) -> None:
    """Fill log segments with what is replaced at once, then free them."""
    store = world.machine.store
    assert store is not None, "it is open"
    for _ in range(4):
        world.fill(20_000)
    store.checkpoint()
    store.step()


@deed("compaction", 3, is_counted=True, variants=1)
def _compaction(world: World) -> None:
    """What lives in a log segment that is partly dead is moved, and the segment freed."""
    store = world.machine.store
    assert store is not None, "it is open"
    world.commit(2)
    for _ in range(8):
        world.fill(20_000)
    store.compact()


@deed("delete all", 1)
def _delete_all(world: World) -> None:
    world.delete_all()


@deed("abandon an upload", 1)
def _abandon(world: World) -> None:
    """A gateway stages a blob and goes away; its staging directory is swept."""
    assert world.machine.store is not None, "it is open"
    world.machine.stage(world.rng.randbytes(30_000))
    world.machine.clock.sleep_s(60)
    world.machine.store.step()


@deed("scrub", 5, needs=2, is_counted=True, variants=8)
def _scrub(world: World) -> None:
    """Both copies are read and compared, after some of one rotted, and what is bad is mended."""
    if not world.under_fire:
        spoil_a_drive(world)
    scrub(world.machine)
    if not world.under_fire:
        world.rotten = frozenset()


def spoil_a_drive(world: World) -> None:
    """Some of one drive rots, where the store has something: not in a segment that it has prepared
    and not taken into its table yet."""
    store = world.machine.store
    assert store is not None, "it is open"
    known = {segment_path(state.segment) for state in store._state.planner.table.states()}
    drive = world.rng.choice(DRIVES)
    disk = world.machine.disks[drive]
    for _ in range(3):
        image = disk.frozen().everything()
        inside = {p: c for p, c in image.items() if p in known or p.startswith("blob/")}
        path, at, data = spoilt_part(inside, world.rng)
        disk.overwrite(path, at, data)
    world.rotten = frozenset({drive})


@deed("restart", 2, is_counted=True)
def _restart(world: World) -> None:
    """The process is killed and started again; nothing of what the drives' caches hold is lost."""
    world.is_quiet = False
    world.machine.drop_store()
    world.open()


@deed("leave", 5, needs=2, is_counted=True, is_plain=False, variants=12)
def _leave(world: World) -> None:
    world.leave(world.rng.choice(DRIVES), pulled=world.rng.random() < 0.5)


@deed("resync", 9, needs=1, is_counted=True, is_plain=False, variants=4)
def _resync(world: World) -> None:
    """The drive that is away comes back."""
    if world.away:
        world.come_back()


@deed("replacement", 4, needs=1, is_counted=True, is_plain=False)
def _replacement(world: World) -> None:
    """A blank drive takes the place of the one that is away."""
    if world.away:
        world.come_back(blank=True)
