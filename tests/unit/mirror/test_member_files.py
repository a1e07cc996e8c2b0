"""What a gateway keeps open of each drive, as its members come, go and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.core.errors import DriveFault, Unavailable
from appliance.engine.mirror.member_files import MemberFiles
from appliance.engine.mirror.messages import MembersView, MemberView


@pytest.fixture
def view(tmp_path: Path) -> MembersView:
    members = []
    for drive in ("drive-a", "drive-b"):
        (tmp_path / drive / "staging").mkdir(parents=True)
        members.append(MemberView(drive, str(tmp_path / drive), 1, True))
    return MembersView(bytes(16), str(tmp_path / "index.db"), 4096, members)


@contextmanager
def opened() -> Iterator[MemberFiles]:
    files = MemberFiles("gateway-1")
    try:
        yield files
    finally:
        files.close()


def _changed(view: MembersView, **changes: object) -> MembersView:
    """The second drive as another one."""
    first, second = view.members
    return replace(view, members=[first, replace(second, **changes)])  # type: ignore[arg-type]


def test_a_drive_is_opened_once_for_each_time_it_joins(view: MembersView, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "staging").mkdir(parents=True)
    with opened() as files:
        first = files.open(view)
        assert files.open(view) == first
        rejoined = files.open(_changed(view, generation=2))
        assert rejoined["drive-a"] is first["drive-a"]
        assert rejoined["drive-b"] is not first["drive-b"]
        moved = files.open(_changed(view, generation=2, path=str(tmp_path / "elsewhere")))
        assert moved["drive-b"] is not rejoined["drive-b"]
        assert moved["drive-b"].path == str(tmp_path / "elsewhere")


def test_one_drive_that_cannot_be_opened_is_left_out_and_without_any_it_is_said(
    view: MembersView, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing")
    with opened() as files:
        assert list(files.open(_changed(view, path=missing))) == ["drive-a"]
        none = replace(view, members=[replace(view.members[1], path=missing)])
        with pytest.raises(DriveFault):
            files.open(none)


def test_an_index_that_is_not_there_is_not_available_yet(view: MembersView) -> None:
    with opened() as files:
        files.open(view)
        with pytest.raises(Unavailable, match="cannot be opened"):
            files.open_index()


def test_who_waits_for_a_drive_that_left_is_told(view: MembersView) -> None:
    """Also when it is back already: what was staged before does not count any more."""

    async def scenario() -> None:
        with opened() as files:
            files.show_staging(view, files.open(view))
            before = files.staging_members()
            assert sorted(before) == ["drive-a", "drive-b"]
            files.show_staging(view, files.open(view))
            assert files.staging_members() == before
            assert not before["drive-b"].gone.done()
            again = _changed(view, generation=2)
            files.show_staging(again, files.open(again))
            assert before["drive-b"].gone.done()
            assert not before["drive-a"].gone.done()
            assert files.staging_members()["drive-b"].generation == 2
            away = _changed(view, generation=2, in_sync=False)
            files.show_staging(away, files.open(away))
            assert list(files.staging_members()) == ["drive-a"]

    asyncio.run(scenario())
