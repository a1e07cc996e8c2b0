"""The committer's thread when its store cannot be opened, hangs or breaks."""

from __future__ import annotations

import threading
from collections.abc import Callable

from appliance.core.errors import Unavailable
from appliance.engine.mirror.committer_thread import Command, CommitterThread
from appliance.engine.mirror.store import Store
from appliance.runtime.clock import SystemClock

WAIT_S = 20.0


def _thread(open_store: Callable[[], Store], bugs: list[BaseException]) -> CommitterThread:
    return CommitterThread(
        "test",
        SystemClock(),
        open_store=open_store,
        deliver=lambda outcomes: None,
        changed=lambda store: None,
        mark_after_s=0.01,
        on_bug=bugs.append,
    )


def test_an_end_does_not_wait_for_an_opening_that_hangs() -> None:
    hung, over = threading.Event(), threading.Event()
    bugs: list[BaseException] = []

    def opening() -> Store:
        hung.set()
        over.wait(WAIT_S)
        raise Unavailable("it took too long")

    thread = _thread(opening, bugs)
    thread.start()
    assert hung.wait(WAIT_S)
    assert not thread.end(0.05)
    over.set()
    assert thread.end(WAIT_S)
    assert bugs == []


def test_what_is_handed_over_to_a_store_that_does_not_open_is_refused() -> None:
    answered = threading.Event()
    told: list[Exception | None] = []

    def opening() -> Store:
        raise Unavailable("no drive answers")

    def answer(_: object, error: Exception | None) -> None:
        told.append(error)
        answered.set()

    thread = _thread(opening, [])
    thread.start()
    thread.put(Command(lambda store: None, answer))
    assert answered.wait(WAIT_S)
    assert isinstance(told[0], Unavailable)
    assert "no drive answers" in str(told[0])
    assert thread.end(WAIT_S)


def test_a_mistake_of_ours_ends_the_thread_and_is_told() -> None:
    bugs: list[BaseException] = []

    def opening() -> Store:
        raise ZeroDivisionError

    thread = _thread(opening, bugs)
    thread.start()
    assert thread.end(WAIT_S)
    assert [type(bug) for bug in bugs] == [ZeroDivisionError]
