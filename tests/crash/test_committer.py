"""Whatever is handed to the committer's thread is answered, also when the store stops before it."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import NoReturn

from appliance.core.errors import Unavailable
from appliance.engine.mirror.committer_thread import Command, Commit, CommitterThread
from appliance.engine.mirror.store import Store
from appliance.runtime.clock import SystemClock
from tests.crash.acts import put
from tests.crash.machine import Machine

ANSWER_S = 30.0


def fail(store: Store) -> NoReturn:
    raise store._state.stop("its last drive failed")


def test_what_was_taken_together_with_what_stopped_the_store_is_answered(machine: Machine) -> None:
    answers: queue.SimpleQueue[tuple[object, object]] = queue.SimpleQueue()
    bugs: list[BaseException] = []

    def deliver(pairs: list[tuple[object, object]]) -> None:
        for pair in pairs:
            answers.put(pair)

    thread = CommitterThread(
        "test",
        SystemClock(),
        open_store=machine.open,
        deliver=deliver,
        changed=lambda store: None,
        mark_after_s=0.01,
        on_bug=bugs.append,
    )
    # Handed over before the thread begins, they are taken in one turn.
    thread.put(Commit(put(b"before", 1), "before"))
    thread.put(Command(fail, lambda value, error: answers.put(("command", error))))
    thread.put(Commit(put(b"behind", 2), "behind"))
    thread.put(Command(fail, lambda value, error: answers.put(("second command", error))))
    thread.start()
    found = dict(answers.get(timeout=ANSWER_S) for _ in range(4))
    assert isinstance(found["before"], int)
    assert all(isinstance(found[name], Unavailable) for name in set(found) - {"before"})
    assert thread.end(ANSWER_S)
    assert not bugs


def test_commits_wait_for_a_drive_that_catches_up_and_commands_do_not(machine: Machine) -> None:
    answers: queue.SimpleQueue[tuple[object, object]] = queue.SimpleQueue()

    def deliver(pairs: list[tuple[object, object]]) -> None:
        for pair in pairs:
            answers.put(pair)

    def command(name: str, work: Callable[[Store], object]) -> None:
        thread.put(Command(work, lambda value, error: answers.put((name, error or value))))

    thread = CommitterThread(
        "test",
        SystemClock(),
        open_store=machine.open,
        deliver=deliver,
        changed=lambda store: None,
        mark_after_s=0.01,
        on_bug=lambda bug: answers.put(("bug", bug)),
    )
    thread.start()
    command("held", lambda store: store._state.brake.hold(1.0))
    assert answers.get(timeout=ANSWER_S)[0] == "held"
    thread.put(Commit(put(b"k", 1), "first"))  # and so there is something to wait for
    assert answers.get(timeout=ANSWER_S)[0] == "first"
    for number in (2, 3):
        thread.put(Commit(put(b"k", number), number))
    command("looked", lambda store: store._state.counts.commits)
    assert answers.get(timeout=ANSWER_S) == ("looked", 1)
    command("released", lambda store: store._state.brake.release())
    found = [answers.get(timeout=ANSWER_S) for _ in range(3)]
    assert [name for name, _ in found] == ["released", 2, 3]
    command("held", lambda store: store._state.brake.hold(1.0))
    thread.put(Commit(put(b"k", 4), 4))
    assert {answers.get(timeout=ANSWER_S)[0] for _ in range(2)} == {"held", 4}
    thread.put(Commit(put(b"k", 5), 5))
    command("failed", fail)
    lost = dict(answers.get(timeout=ANSWER_S) for _ in range(2))
    assert isinstance(lost[5], Unavailable), "whose client tries again"
    assert thread.end(ANSWER_S)
