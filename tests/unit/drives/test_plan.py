"""What is mounted and unmounted when drives come, go, fail and are doubled."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from appliance.control.disks.bay import Mounted
from appliance.control.disks.plan import Plan, decide, doubtful
from appliance.core.drives import Drive, DriveKind


def drive(node: str, drive_id: str = "", **more: object) -> Drive:
    return Drive(f"id-{node}", DriveKind.DISK, node, 10**12, drive_id=drive_id, **more)  # type: ignore[arg-type]


def mounted(**places: str) -> dict[str, Mounted]:
    return {each: Mounted(each, node, Path("/run/x") / each) for each, node in places.items()}


def plan(
    drives: list[Drive],
    places: dict[str, Mounted],
    *,
    dead: tuple[str, ...] = (),
    reported: dict[str, str] | None = None,
) -> Plan:
    answering = {each.node for each in doubtful(drives, places)} - set(dead)
    return decide(drives, places, answering, reported or {})


def test_a_new_drive_of_ours_is_mounted_and_a_stranger_left_alone() -> None:
    ours, stranger = drive("sdb", "A"), drive("sdc")
    assert plan([ours, stranger], {}) == Plan(mounts=(ours,))


def test_a_settled_drive_is_neither_touched_nor_read() -> None:
    settled = drive("sdb", "A", busy=True, mounts=("/run/x/A",))
    assert doubtful([settled], mounted(A="sdb")) == []
    assert plan([settled], mounted(A="sdb")) == Plan()


def test_a_drive_whose_device_went_is_unmounted() -> None:
    (unmount,) = plan([], mounted(A="sdb")).unmounts
    assert (unmount.drive_id, unmount.why) == ("A", "its device is gone")


def test_a_node_that_now_carries_another_drive_is_unmounted() -> None:
    assert plan([drive("sdb", "B")], mounted(A="sdb")).unmounts[0].drive_id == "A"


def test_a_drive_that_came_back_as_another_device_replaces_its_dead_self() -> None:
    drives = [drive("sdb", "A", busy=True), drive("sdd", "A")]
    first = plan(drives, mounted(A="sdb"), dead=("sdb",))
    assert [each.drive_id for each in first.unmounts] == ["A"]
    second = plan(drives, {}, dead=("sdb",))
    assert second.mounts == (drives[1],)
    assert [(each.node, each.clone) for each in second.troubles] == [("sdb", False)]


def test_a_copy_of_a_drive_in_service_is_refused_and_the_service_goes_on() -> None:
    drives = [drive("sdb", "A", busy=True), drive("sdd", "A")]
    result = plan(drives, mounted(A="sdb"))
    assert not result.unmounts
    assert not result.mounts
    assert [(each.node, each.clone) for each in result.troubles] == [("sdd", True)]


def test_of_two_clones_at_start_neither_is_mounted() -> None:
    result = plan([drive("sdb", "A"), drive("sdd", "A")], {})
    assert not result.mounts
    assert {each.node for each in result.troubles if each.clone} == {"sdb", "sdd"}


def test_a_reported_drive_is_unmounted_and_waits_for_its_last_user() -> None:
    held = drive("sdb", "A", busy=True)
    assert plan([held], mounted(A="sdb"), reported={"A": "EIO"}).unmounts[0].why == "EIO"
    waiting = plan([held], {})
    assert not waiting.mounts
    assert waiting.troubles[0].retry
    assert plan([drive("sdb", "A")], {}).mounts


def test_a_silent_drive_and_one_mounted_elsewhere_are_left_alone_and_tried_again() -> None:
    silent = plan([drive("sdb", "A")], {}, dead=("sdb",))
    elsewhere = plan([drive("sdb", "A", mounts=("/mnt",))], {})
    for result in (silent, elsewhere):
        assert not result.mounts
        assert result.troubles[0].retry
    assert "/mnt" in elsewhere.troubles[0].why


NODES = ("sda", "sdb", "sdc", "sdd")
IDS = ("", "A", "B")


@given(
    carried=st.dictionaries(st.sampled_from(NODES), st.sampled_from(IDS)),
    held=st.sets(st.sampled_from(NODES)),
    places=st.dictionaries(st.sampled_from(IDS[1:]), st.sampled_from(NODES)),
    dead=st.sets(st.sampled_from(NODES)),
    reported=st.sets(st.sampled_from(IDS[1:])),
)
def test_never_two_mounts_of_one_id_and_only_from_what_answered(
    carried: dict[str, str],
    held: set[str],
    places: dict[str, str],
    dead: set[str],
    reported: set[str],
) -> None:
    drives = [drive(node, each, busy=node in held) for node, each in sorted(carried.items())]
    now = mounted(**places)
    result = plan(drives, now, dead=tuple(dead), reported=dict.fromkeys(reported, "EIO"))
    ids = [each.drive_id for each in result.mounts]
    assert len(ids) == len(set(ids))
    assert not set(ids) & set(now)
    assert not {each.node for each in result.mounts} & (dead | held)
    assert not (result.unmounts and result.mounts)
    assert {each.drive_id for each in result.unmounts} <= set(now)
    for each in ids:
        bearers = [node for node, there in carried.items() if there == each and node not in dead]
        assert len(bearers) == 1
