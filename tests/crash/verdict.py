"""The verdict: switch a machine on in a scene, and hold it to everything that was promised.

Owns what must hold after every fault: nothing acknowledged is lost; old or new, never mixed;
nothing deleted returns; both drives read equal; listing and counters equal the model; a retry finds
its earlier outcome; the copies converge once both drives are back; a double fault names what it
cost and costs nothing else; what is served stays served over another commit and another start.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.core.errors import (
    ApplianceError,
    Damaged,
    DataLost,
    EngineError,
    Refused,
    Unavailable,
)
from appliance.engine.interface import Charge
from appliance.engine.mirror.assembled import Orders
from appliance.engine.mirror.digest import digest
from appliance.engine.mirror.format import encode_charges
from appliance.engine.mirror.messages import CommitOrder, Order
from appliance.engine.mirror.reader import DriveReader, MirrorReader
from appliance.engine.mirror.scrub import PROVEN
from appliance.engine.mirror.state import Stopped
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.suspects import index_damage
from tests.crash.history import PARTITION, Contents, Kept, contents_of
from tests.crash.machine import MIRROR_ID, Machine
from tests.crash.moments import Moment, RecordedLanes, Recorder
from tests.crash.scenes import Scene
from tests.crash.scrubbing import scrub
from tests.crash.simulated import Power, SerialLanes, SimulatedClock, SimulatedDisk
from tests.crash.world import write_files

_LOST_BATCHES: Final = re.compile(r"\(batches (\d+) to (\d+|unknown)\)")
_LATER_KEY: Final = b"written later"
_LATER: Final = Kept(b"later", b"y" * 3000, 1)


class Failed(AssertionError):
    """A promise was broken."""


@dataclass(slots=True)
class Verdict:
    """What a start did and led to. ``work``: what recovery had to do."""

    served: bool = False
    work: set[str] = field(default_factory=set)
    moments: list[Moment] = field(default_factory=list)
    copies_compared: bool = False
    losses_told: bool = False


class Trial:
    """One machine in one scene."""

    def __init__(self, scene: Scene, seed: str, directory: Path, *, record: bool) -> None:
        self._scene = scene
        self._directory = directory
        clock = SimulatedClock(scene.note.now_ns + 1_000_000_000)
        write_files(directory / "index", scene.index)
        self.machine = Machine.holding(seed, directory, scene.images, clock)
        self._recorder: Recorder | None = None
        self._went_on = False
        self._index_is_bad = scene.index_rots
        """Whether somebody may still meet a bad page, once."""
        if record:
            disks = {**self.machine.disks, "witness": self.machine.witness}
            self._recorder = Recorder(disks, lambda: scene.note)
        if scene.fails:
            self.machine.disks[scene.fails].fail_at(scene.fails_at, errno.EIO, persistent=True)

    def run(self, *, go_on: bool) -> Verdict:
        """Start, and judge. ``go_on``: also write, start again and judge once more. Raises
        ``Failed``."""
        try:
            return self._run(go_on=go_on)
        except (Unavailable, Damaged) as trouble:
            if not self._index_is_bad:
                raise
            self._condemn_index(trouble)
            return self._run(go_on=go_on)
        finally:
            self.machine.drop_store()

    def _condemn_index(self, trouble: ApplianceError) -> None:
        """Somebody met a bad page: the service proves it and starts anew, without that index."""
        self._index_is_bad = False
        if self._went_on:
            self._recorder = None  # a crash from here on is none of the scene that was asked for
        store = self.machine.store
        if store is not None and not isinstance(trouble, Stopped):
            damage = index_damage(store._state.index.path)
            _demand(damage is not None, f"a bad index cannot be proven: {trouble}")
            assert damage is not None, "demanded"
            store.condemn_index(damage)
        self.machine.drop_store()

    def _run(self, *, go_on: bool) -> Verdict:
        verdict, scene = Verdict(), self._scene
        try:
            store = self._open()
        except EngineError as error:
            if self._index_is_bad and isinstance(error, Stopped | Damaged):
                raise  # a page that nobody had read before: the next start does without
            return self._refused(verdict, error)
        except Refused as error:
            return self._refused(verdict, error)
        finally:
            if self._recorder is not None:
                verdict.moments = self._recorder.moments
                self.machine.power.observer = None
        self.machine.power.observer = None
        if scene.fails:
            self.machine.disks[scene.fails].hook = None  # it failed while starting, or not at all
        _demand("must refuse" not in scene.extra, "a clone was served")
        verdict.served = True
        verdict.work = work_of(store)
        named: set[bytes] = set()
        if store.losses:
            _demand(bool(scene.victims), f"a loss was told that is none: {store.losses}")
            verdict.losses_told = True
            # What compaction had moved lies in a later batch than the one that wrote it.
            named = self._named(store.losses) | {one.key for one in store.lost}
            self.machine.drop_store()
            store = self._open(Orders(waited=True, accept_losses=True))
            _demand(not store.losses, "accepted losses are told again")
        found = self._judge_contents(store, named)
        if not scene.victims:
            self._judge_retry(store)
            self._bring_back(store)
            verdict.copies_compared = self._judge_copies(store, found)
            if go_on:
                self._go_on(store, found)
        return verdict

    def _open(self, orders: Orders | None = None) -> Store:
        scene, machine = self._scene, self.machine
        lanes = SerialLanes(machine.rng)
        if self._recorder is not None:
            self._recorder.start()
            lanes = RecordedLanes(machine.rng, self._recorder)
        beside = []
        for name, image in scene.beside:
            disk = SimulatedDisk(name, Power())
            disk.restore_image(image)
            beside.append(disk.mount())
        return machine.open(
            *scene.present, orders=orders, witness=scene.has_witness, lanes=lanes, beside=beside
        )

    def _refused(self, verdict: Verdict, error: ApplianceError) -> Verdict:
        _demand(not self._scene.must_serve, f"it must serve, but refuses: {error}")
        verdict.work.add("refused")
        return verdict

    def _named(self, losses: Sequence[str]) -> set[bytes]:
        """Keys that lie in the batches a report names."""
        ranges = []
        for first, last in (found for loss in losses for found in _LOST_BATCHES.findall(loss)):
            ranges.append((int(first), int(last) if last != "unknown" else 1 << 62))
        _demand(bool(ranges), f"a report names no batches: {losses}")
        written_by = self._scene.note.written_by
        named = {k for k, at in written_by.items() if any(a <= at <= b for a, b in ranges)}
        return named

    # -- contents ------------------------------------------------------------------------------

    def _judge_contents(self, store: Store, named: set[bytes]) -> Contents:
        """What is there, from every in-sync drive. ``named``: keys a report of losses covers."""
        scene, machine = self._scene, self.machine
        with machine.reader() as reader:
            if scene.victims:
                return self._judge_victims(reader, named)
            found = _contents(reader)
            self._heal(store, reader)
            for drive, volume in store.members.items():
                reader.use({drive: DriveReader(drive, volume, bytes.fromhex(MIRROR_ID))})
                own = _contents(reader)
                if own != found:
                    raise Failed(f"the drives read differently\n{difference(own, [found])}")
            _demand(not machine.suspects, f"bad copies on sound drives: {machine.suspects}")
            allowed = [scene.note.acked, *scene.note.pending]
            if self._went_on:
                allowed += [{**state, _LATER_KEY: _LATER} for state in allowed]
            if found not in allowed:
                raise Failed(difference(found, allowed))
            charged = sum(kept.charge for kept in found.values())
            counted = reader.counters(PARTITION)
            _demand(
                counted == ({b"n": charged} if charged else {}),
                f"counters {counted}, not {charged}",
            )
        return found

    def _heal(self, store: Store, reader: MirrorReader) -> None:
        """Each body is read from each drive that may be rotten, and a reader's complaints go to the
        store, as a gateway's do."""
        for drive in self._scene.rotten & set(store.members):
            reader.use({drive: DriveReader(drive, store.members[drive], bytes.fromhex(MIRROR_ID))})
            for record in reader.scan(PARTITION, b"", b"\xff", 1000, False):
                if record.blob is not None:
                    with contextlib.suppress(DataLost):
                        reader.read_blob(record.blob, 0, record.blob.size_bytes)
        suspects, self.machine.suspects = self.machine.suspects, []
        for drive, place in suspects:
            _demand(drive in self._scene.rotten, f"a bad copy on {drive}, which is sound")
            store.repair(drive, place)

    def _judge_victims(self, reader: MirrorReader, named: set[bytes]) -> Contents:
        """Everything but what was struck on both drives is as it was, and that is not served."""
        note = self._scene.note
        records = {
            record.key: record for record in reader.scan(PARTITION, b"", b"\xff", 1000, False)
        }
        for key in {*records, *note.acked} - named - self._scene.victims:
            kept, record = note.acked.get(key), records.get(key)
            if record is None or kept is None:
                raise Failed(f"{key!r} of batch {note.written_by.get(key)} went, or came, untold")
            data = None
            if record.blob is not None:
                data = reader.read_blob(record.blob, 0, record.blob.size_bytes)
            _demand(
                (record.value, data) == (b"%d:%s" % (kept.charge, kept.value), kept.blob),
                f"{key!r} of batch {note.written_by[key]} is not what it was: "
                f"{record.value!r} for {kept.value!r}; reported are {named}",
            )
        for key in self._scene.victims & set(records):
            record = records[key]
            if record.blob is None:
                continue
            try:
                data = reader.read_blob(record.blob, 0, record.blob.size_bytes)
            except DataLost:
                continue
            _demand(key in named, f"{key!r} was struck on both drives and is served: {data[:9]!r}")
        return {}

    def _judge_retry(self, store: Store) -> None:
        """A commit that was acknowledged is known again by its request id."""
        last = self._scene.note.last_order
        if last is not None and not store.stopped:
            (outcome,) = store.commit([last])
            _demand(isinstance(outcome, int), f"a retry is not known: {outcome}")

    # -- copies --------------------------------------------------------------------------------

    def _bring_back(self, store: Store) -> None:
        """Whoever is present and not in sync is brought back, if it may."""
        self.machine.power.observer = None
        for drive in list(store.outsiders()):
            if self._scene.beside or drive == self._scene.fails:
                continue
            try:
                resync = store.begin_resync(drive)
            except Refused:
                continue
            resync.copy()
            while not store.finish_resync(resync):
                resync.copy()

    def _judge_copies(self, store: Store, found: Contents) -> bool:
        """Both drives hold the same, byte for byte, as far as anything counts there."""
        members = store._state.members
        if len(members) < 2:
            return False
        if self._scene.rotten:
            if self.machine.rng.random() < 0.85:
                return False
            proven = scrub(self.machine).tally.index
            if self._index_is_bad and not proven:
                raise Stopped("the scrub met the bad page and put the index aside")
            _demand(proven == PROVEN, f"a scrub after a fault that costs nothing says: {proven}")
        disks = [self.machine.disks[drive] for drive in members]
        different = _differing(*disks)
        if any(path.startswith("blob/") for path in different):
            store.step()  # what was released is unlinked again, on both
            store.sweep_orphans()
        if different and len({digest(member) for member in members.values()}) > 1:
            raise Failed(f"the copies differ: {_differing(*disks)}")
        return True

    def _go_on(self, store: Store, found: Contents) -> None:
        """Another commit, upkeep, another start, perhaps without the index: all is still there."""
        machine = self.machine
        charges = encode_charges([Charge(b"n", 1)])
        order = Order(_LATER_KEY, b"1:" + _LATER.value, charges, _LATER.blob)
        self._went_on = True
        (outcome,) = store.commit([CommitOrder(PARTITION.encode(), b"\xff" * 16, [order], [], [])])
        _demand(isinstance(outcome, int), f"a commit is refused: {outcome}")
        store.checkpoint()
        store.step()
        expected = {**found, _LATER_KEY: _LATER}
        before = set(store.members)
        machine.drop_store()
        if machine.rng.random() < 0.5:
            write_files(machine.index_directory, {})
        if not self._scene.fails:
            store = machine.open(*self._scene.present, witness=self._scene.has_witness)
            _demand(not store.losses, f"losses after a commit: {store.losses}")
            _demand(before <= set(store.members), f"{before} became {set(store.members)}")
            with machine.reader() as reader:
                own = _contents(reader)
                if own != expected:
                    raise Failed(difference(own, [expected]))


def work_of(store: Store) -> set[str]:
    """What recovery had to do."""
    recovery = store.recovery
    work = {
        "repaired": bool(recovery.repaired),
        "copied": bool(recovery.copied_batches),
        "replayed": bool(recovery.replayed_batches),
        "dropped a tail": bool(recovery.torn),
        "aligned segments": bool(recovery.aligned_segments),
        "rebuilt": recovery.rebuilt_index,
        "left a drive out": len(store.members) < 2,
    }
    return {name for name, done in work.items() if done}


def _contents(reader: MirrorReader) -> Contents:
    try:
        return contents_of(reader)
    except DataLost as lost:
        raise Failed(f"acknowledged bytes cannot be read: {lost}") from lost


def _files(disk: SimulatedDisk) -> dict[str, bytes | bytearray]:
    """Log and blobs, as a reader sees them."""
    return {
        path: inode.live
        for path, inode in disk.tree.items()
        if inode is not None and path.startswith(("log/", "blob/"))
    }


def _differing(one: SimulatedDisk, two: SimulatedDisk) -> list[str]:
    """Files of log and blobs in which two drives differ; none is enough, but not needed, to be
    equal."""
    first, second = _files(one), _files(two)
    return [path for path in sorted({*first, *second}) if first.get(path) != second.get(path)]


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


def difference(found: Contents, allowed: Sequence[Contents]) -> str:
    """What of a found state is in none of the allowed ones."""
    lines = [f"what is there is none of {len(allowed)} allowed states:"]
    for key in sorted(set(found).union(*allowed)):
        values = [found.get(key), *(state.get(key) for state in allowed)]
        if len({repr(value) for value in values}) > 1:
            shown = [
                "-" if v is None else f"{v.value!r}+{'-' if v.blob is None else len(v.blob)}"
                for v in values
            ]
            lines.append(f"  {key!r}: found {shown[0]}, allowed {shown[1:]}")
    return "\n".join(lines)
