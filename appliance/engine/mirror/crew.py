"""Doing many small pieces of one work side by side, so that two drives and their flushes overlap.

Owns nothing that lasts. Invariant: when a crew returns, or raises the first error of a piece, no
piece is under way any more; pieces that were not begun by then are not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeAlias

Piece: TypeAlias = Callable[[], None]
Crew: TypeAlias = Callable[[Iterable[Piece]], None]
"""Does all pieces. The iterable is advanced by one thread at a time."""


def in_turn(pieces: Iterable[Piece]) -> None:
    """The ``Crew`` of simulations, and of work on a thread that must do it itself."""
    for piece in pieces:
        piece()


def crew_of(count: int) -> Crew:
    """A ``Crew`` of so many threads: daemons, for one stuck in a dead drive must not hold up the
    exit."""

    def work_on(pieces: Iterable[Piece]) -> None:
        feed = iter(pieces)
        taking = threading.Lock()
        errors: list[BaseException] = []

        def work() -> None:
            try:
                while not errors:
                    with taking:
                        piece = next(feed, None)
                    if piece is None:
                        return
                    piece()
            except BaseException as error:  # noqa: BLE001 - handed to the caller and raised there
                errors.append(error)

        threads = [
            threading.Thread(target=work, name=f"crew {number}", daemon=True)
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    return work_on
