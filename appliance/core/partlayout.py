"""Where the bytes of an object uploaded in parts lie.

Owns the compact form of a part table: runs of parts that are numbered in a row and equally large.
Nearly every upload is one or two runs; a table of more than ``RUNS_MAX`` is not worth keeping and
is rebuilt from the parts' own records. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

RUNS_MAX: Final = 64


class Run(NamedTuple):
    """``parts`` parts from number ``first`` on, of ``size_bytes`` each."""

    first: int
    parts: int
    size_bytes: int


class PartSlice(NamedTuple):
    """``length`` bytes at ``offset`` of part ``number``, which has ``size_bytes``."""

    number: int
    size_bytes: int
    offset: int
    length: int


def build_runs(parts: Iterable[tuple[int, int]]) -> list[Run]:
    """The runs of (number, size in bytes) pairs in ascending order of number."""
    runs: list[Run] = []
    for number, size_bytes in parts:
        if runs:
            first, count, run_size = runs[-1]
            if number == first + count and size_bytes == run_size:
                runs[-1] = Run(first, count + 1, run_size)
                continue
        runs.append(Run(number, 1, size_bytes))
    return runs


def locate(runs: Sequence[Run], offset: int, length: int) -> Iterator[PartSlice]:
    """The pieces of parts that make up a range of the object, in order."""
    start, left = 0, length
    for first, count, size_bytes in runs:
        total = count * size_bytes
        while left > 0 and offset < start + total:
            index, within = divmod(offset - start, size_bytes)
            taken = min(left, size_bytes - within)
            yield PartSlice(first + index, size_bytes, within, taken)
            offset += taken
            left -= taken
        start += total


def part_span(runs: Sequence[Run], number: int) -> tuple[int, int] | None:
    """(offset, size in bytes) of a part within the object; None when it has no such part."""
    start = 0
    for first, count, size_bytes in runs:
        if first <= number < first + count:
            return start + (number - first) * size_bytes, size_bytes
        start += count * size_bytes
    return None
