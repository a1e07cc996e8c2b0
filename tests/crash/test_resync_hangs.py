"""State transfers in which one call of a source or of the target does not come back.

Real threads over simulated drives; the clock of the driver moves by hand. Every call of a drive
that the transfer makes is swept: the N-th hangs, once or with all that follow, and what hung takes
its effect at the worst moment, long after it was left behind. Nothing here rests on how long
anything takes but for calls that hang while commits wait, which cost ``DEADLINE_S`` of real time.
"""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.engine.mirror.digest import digest
from appliance.engine.mirror.member import Member
from appliance.engine.mirror.resync_driver import (
    LEFT_BEHIND_MAX,
    RETRY_AFTER_MAX_S,
    RETRY_AFTER_S,
    ResyncDriver,
)
from appliance.engine.mirror.store import Store
from appliance.engine.mirror.throttle import Activity
from appliance.runtime.clock import SystemClock
from appliance.runtime.lanes import ThreadLanes
from tests.crash.acts import commit, put, put_staged
from tests.crash.machine import SETTINGS, Machine
from tests.crash.stuck import Stuck

SOURCE, TARGET, NEW = "drive-a", "drive-b", "drive-c"
DEADLINE_S = 0.5
JOIN_S = 30.0
READS = frozenset({"read", "open", "stat", "names"})
SHORT = 4
LONG = 60

pytestmark = pytest.mark.timeout(300)


class _Clock:
    """The driver's: moved by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now_ns(self) -> int:
        return int(self.now_s * 1e9)

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep_s(self, seconds: float) -> None:
        self.now_s += seconds


class Rig:
    """A mirror of which one drive is away and about to be brought back, or is to be replaced."""

    def __init__(self, directory: Path, seed: int, *, replacing: bool = False) -> None:
        self.machine = Machine(seed, directory)
        self.lanes = ThreadLanes(SystemClock())
        self.store = self.machine.open(
            lanes=self.lanes, settings=replace(SETTINGS, deadline_s=DEADLINE_S)
        )
        self.number = 0
        for _ in range(3):
            self.write(90_000)
        if replacing:
            self.store.replacing({NEW: TARGET})
            self.store.add_outsider(self.machine.add_disk(NEW).mount())
        else:
            self.store.lose(TARGET, "pulled")
            self.machine.disks[TARGET].restore_image({"": None})
            self.store.add_outsider(self.machine.disks[TARGET].mount())
        for _ in range(2):
            self.write(70_000)
        self.clock = _Clock()
        self._turn = threading.Lock()
        settings = replace(SETTINGS, deadline_s=DEADLINE_S, resync_threads=1)
        self.driver = ResyncDriver(self.clock, self.command, Activity(self.clock), settings)
        self.driver.use(self.store)

    def write(self, size_bytes: int) -> None:
        """A blob in a file, and a record."""
        self.number += 1
        data = self.machine.rng.randbytes(size_bytes)
        put_staged(self.machine, b"blob %d" % self.number, 2 * self.number, data)
        commit(self.store, put(b"key %d" % self.number, 2 * self.number + 1))

    def command(self, work: Callable[[Store], object]) -> object:
        with self._turn:
            return work(self.store)

    def attempt(self) -> threading.Thread:
        """Begin one, which must be due."""
        before = self.driver.latest
        self.driver.step()
        thread = self.driver.latest
        assert thread is not None and thread is not before, "nothing began"
        return thread

    def finish(self) -> None:
        """An attempt that meets nothing more."""
        thread = self.attempt()
        thread.join(JOIN_S)
        assert not thread.is_alive()
        assert len(self.store.members) == 2, self.machine.alerts

    def get_stuck(self, stuck: Stuck) -> threading.Thread:
        """An attempt that hangs, and is left behind within the deadline, and everything that waits
        for a transfer goes on."""
        stuck.set()
        thread = self.attempt()
        assert stuck.struck.wait(JOIN_S)
        self.leave_behind()
        return thread

    def leave_behind(self) -> None:
        self.driver.step()
        self.clock.now_s += DEADLINE_S
        self.driver.step()
        thread = self.driver.running
        if thread is not None:  # the call hangs on a lane while commits wait, which has its own end
            thread.join(JOIN_S)
            assert not thread.is_alive()
        assert not self.store.transferring
        assert self.store._state.dropped_blobs is None, "what compaction and giving back go by"

    def come_back(self, drive: str = TARGET) -> None:
        """As control does: a fresh mount, told with the assembly."""
        self.store.add_outsider(self.machine.disks[drive].mount())
        self.driver.try_again([drive])

    def check(self) -> None:
        """Both copies are equal, and take what is written."""
        self.write(80_000)
        assert self.store.stopped == ""
        members = self.store._state.members
        assert len(members) == 2, self.machine.alerts
        assert len({digest(member) for member in members.values()}) == 1

    def close(self) -> None:
        self.driver.use(None)
        self.lanes.close()
        self.machine.drop_store()


@pytest.fixture
def rig(scratch: Path) -> Iterator[Rig]:
    made = Rig(scratch, 7)
    yield made
    made.close()


def _calls(directory: Path, drive: str, kinds: frozenset[str] | None) -> int:
    """How many calls a transfer makes on a drive, before the vote that makes it a member: for that
    one, and later ones, a member's rules hold."""
    rig = Rig(directory, 7)
    counting = Stuck(rig.machine.disks[drive], 0, kinds=kinds)
    votes, counts = rig.store._state.votes, []
    join = votes.join

    def counted_join(members: Mapping[str, Member], joiner: str) -> None:
        counts.append(counting.count)
        join(members, joiner)

    votes.join = counted_join  # type: ignore[method-assign]
    counting.set()
    rig.finish()
    counting.stop()
    rig.check()
    rig.close()
    shutil.rmtree(directory)
    (count,) = counts
    return count


def _sample(total: int, count: int) -> list[int]:
    """The first, the last, and some between; all where there are no more."""
    if total <= count:
        return list(range(1, total + 1))
    chosen = random.Random(total).sample(range(2, total), count - 2)
    return [1, *sorted(chosen), total]


def _sweep(
    directory: Path,
    drive: str,
    kinds: frozenset[str] | None,
    count: int,
    survive: Callable[[Rig, Stuck], None],
) -> None:
    total = _calls(directory / "clean", drive, kinds)
    for number in _sample(total, count):
        rig = Rig(directory / f"{number}", 7)
        stuck = Stuck(rig.machine.disks[drive], number, kinds=kinds)
        try:
            survive(rig, stuck)
        except BaseException as error:
            raise AssertionError(f"call {number} of {total} on {drive}: {error}") from error
        finally:
            stuck.release()
            rig.close()
        shutil.rmtree(directory / f"{number}")


def _source_once(rig: Rig, stuck: Stuck) -> None:
    left = rig.get_stuck(stuck)
    rig.write(60_000)
    assert list(rig.store.members) == [SOURCE], "it takes its vote"
    assert rig.store.health().members[0].read_errors >= 1
    rig.driver.step()
    assert not rig.store.transferring, "not before its time"
    rig.clock.now_s += RETRY_AFTER_S
    rig.finish()
    stuck.release()
    left.join(JOIN_S)
    rig.check()


def _target_once(rig: Rig, stuck: Stuck) -> None:
    left = rig.get_stuck(stuck)
    rig.write(60_000)
    rig.clock.now_s += RETRY_AFTER_MAX_S
    rig.driver.step()
    assert rig.store.outsiders() == {}, "only a fresh mount brings it back"
    away = {member.drive_id: member for member in rig.store.health().members}[TARGET]
    assert not away.present and "did not come back" in away.reason
    stuck.release()  # and so control finds that nobody holds the old mount any more
    left.join(JOIN_S)
    rig.come_back()
    rig.finish()
    rig.check()


def _target_pulled(rig: Rig, stuck: Stuck) -> None:
    """While the call hangs, and goes on to; the driver has not even noticed."""
    stuck.pulled = stuck.for_ever = True
    stuck.set()
    left = rig.attempt()
    assert stuck.struck.wait(JOIN_S)
    stuck.stop()
    rig.command(lambda store: store.lose(TARGET, "pulled"))
    disk = rig.machine.disks[TARGET]
    disk.pull()
    rig.driver.try_again()
    rig.write(60_000)
    assert not rig.store.transferring
    disk.insert(rig.machine.rng)
    rig.come_back()
    rig.finish()
    stuck.release()
    left.join(JOIN_S)
    rig.check()


SURVIVORS = {
    "source once": (SOURCE, READS, _source_once),
    "target once": (TARGET, None, _target_once),
    "target pulled": (TARGET, None, _target_pulled),
}


@pytest.mark.parametrize("what", SURVIVORS)
def test_a_call_that_hangs_ends_the_attempt_alone(scratch: Path, what: str) -> None:
    drive, kinds, survive = SURVIVORS[what]
    _sweep(scratch, drive, kinds, SHORT, survive)


@pytest.mark.long
@pytest.mark.parametrize("what", SURVIVORS)
def test_many_calls_that_hang_end_the_attempt_alone(scratch: Path, what: str) -> None:
    drive, kinds, survive = SURVIVORS[what]
    _sweep(scratch, drive, kinds, LONG, survive)


def test_a_source_that_hangs_for_ever_is_asked_ever_more_rarely(rig: Rig) -> None:
    """So that threads do not pile up; once it answers again, the drive comes in."""
    stuck = Stuck(rig.machine.disks[SOURCE], 20, kinds=READS)
    stuck.for_ever = True
    left = [rig.get_stuck(stuck)]
    pause_s = RETRY_AFTER_S
    while len(left) < LEFT_BEHIND_MAX:
        rig.clock.now_s += pause_s - 1.0
        rig.driver.step()
        assert not rig.store.transferring, "not before its time"
        rig.clock.now_s += 1.0
        stuck.struck.clear()
        left.append(rig.attempt())
        assert stuck.struck.wait(JOIN_S)
        rig.leave_behind()
        pause_s = min(2 * pause_s, RETRY_AFTER_MAX_S)
    rig.clock.now_s += RETRY_AFTER_MAX_S
    rig.driver.step()
    assert rig.driver.running is None, "as many threads hang as may"
    assert any("waits" in alert for alert in rig.machine.alerts)
    stuck.release()
    for thread in left:
        thread.join(JOIN_S)
    rig.finish()
    rig.check()


def test_a_source_that_hangs_altogether_leaves_the_rest_to_the_other(scratch: Path) -> None:
    """As in a replacement: it takes no vote while the other one does."""
    rig = Rig(scratch, 9, replacing=True)
    stuck = Stuck(rig.machine.disks[SOURCE], 12, kinds=None)
    stuck.for_ever = True
    left = rig.get_stuck(stuck)
    assert list(rig.store.members) == [TARGET]
    rig.clock.now_s += RETRY_AFTER_S
    rig.finish()
    assert sorted(rig.store.members) == [TARGET, NEW]
    stuck.release()
    left.join(JOIN_S)
    rig.check()
    rig.close()


def test_a_source_that_once_hung_is_read_from_last(scratch: Path) -> None:
    """It takes its vote, and goes on hanging in reads: what it has the other one has too."""
    rig = Rig(scratch, 9, replacing=True)
    stuck = Stuck(rig.machine.disks[SOURCE], 12, kinds=READS)
    stuck.for_ever = True
    left = rig.get_stuck(stuck)
    assert sorted(rig.store.members) == [SOURCE, TARGET]
    rig.clock.now_s += RETRY_AFTER_S
    rig.finish()
    assert sorted(rig.store.members) == [SOURCE, NEW]
    stuck.release()
    left.join(JOIN_S)
    rig.check()
    rig.close()


def test_a_drive_is_not_written_to_while_an_earlier_attempt_s_call_is_out(rig: Rig) -> None:
    """Not by the next life of the store either, which finds the drive on the same mount."""
    stuck = Stuck(rig.machine.disks[TARGET], 30, kinds=None)
    stuck.set()
    left = rig.attempt()
    assert stuck.struck.wait(JOIN_S)
    stuck.stop()
    rig.driver.use(None)
    rig.driver.use(rig.store)
    assert rig.store.candidates() == [TARGET]
    rig.clock.now_s += RETRY_AFTER_MAX_S
    rig.driver.step()
    assert rig.driver.running is None
    stuck.release()
    left.join(JOIN_S)
    rig.finish()
    rig.check()
