"""Putting one good batch together out of two copies that are bad in different places.

Pure. Refuses nothing: whoever asks for the ways verifies each, and believes only what verifies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final

from appliance.engine.mirror.format import BLOCK_BYTES

MERGED_BLOCKS_MAX: Final = 10
"""Two bad copies are put together when at most this many blocks differ: 1,024 ways to do so."""


def put_together(copies: Sequence[bytes]) -> Iterator[bytes]:
    """Every way to take each block that differs from one of two copies or the other. None for
    copies that differ in one block, or in too many."""
    if len(copies) != 2 or len(copies[0]) != len(copies[1]):
        return
    first, second = copies
    different = [
        at
        for at in range(0, len(first), BLOCK_BYTES)
        if first[at : at + BLOCK_BYTES] != second[at : at + BLOCK_BYTES]
    ]
    if not 2 <= len(different) <= MERGED_BLOCKS_MAX:
        return
    for choice in product((False, True), repeat=len(different)):
        data = bytearray(first)
        for at in (at for at, other in zip(different, choice, strict=True) if other):
            data[at : at + BLOCK_BYTES] = second[at : at + BLOCK_BYTES]
        yield bytes(data)
