"""A random history of commits against a machine, and the oracle that judges what is left.

The oracle keeps what was acknowledged outside the machine. A commit that was under way when the
power went may have happened or not, but never in part.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from appliance.engine.interface import Charge
from appliance.engine.mirror.digest import digest
from appliance.engine.mirror.format import encode_charges
from appliance.engine.mirror.messages import CommitOrder, Order, Staged
from appliance.engine.mirror.reader import MirrorReader
from tests.crash.machine import Machine

PARTITION: Final = "p"
KEYS: Final = [b"key-%02d" % number for number in range(8)]
SIZES: Final = [None, 0, 700, 9_000, 70_000]
STAGED_FROM: Final = 60_000


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as the model has it."""

    value: bytes
    blob: bytes | None
    charge: int


Contents = dict[bytes, Kept]


@dataclass(slots=True)
class Oracle:
    """``acked``: what must be there. ``pending``: what may be there instead, if a commit is under
    way."""

    acked: Contents = field(default_factory=dict)
    pending: list[Contents] = field(default_factory=list)
    request_id: int = 0
    last_order: CommitOrder | None = None

    def check(self, machine: Machine) -> None:
        """Everything that must hold of an open machine. Settles what was pending."""
        store = machine.store
        assert store is not None, "it is open"
        for drive in list(store.members):
            with machine.reader(drive) as reader:
                found = contents_of(reader)
                assert machine.suspects == [], f"{drive}: bad copies {machine.suspects}"
            allowed = [self.acked, *self.pending]
            assert found in allowed, _difference(found, allowed, drive)
            self.acked, self.pending = found, []
        store.step()
        store.sweep_orphans()
        digests = {digest(member) for member in store._state.members.values()}
        assert len(digests) == 1, "the copies differ"
        charged = sum(kept.charge for kept in self.acked.values())
        with machine.reader() as reader:
            assert reader.counters(PARTITION) == ({b"n": charged} if charged else {})


def contents_of(reader: MirrorReader) -> Contents:
    """All records and their bodies, as a reader finds them. Raises ``DataLost``."""
    found: Contents = {}
    for record in reader.scan(PARTITION, b"", b"\xff", 1000, False):
        blob = None
        if record.blob is not None:
            blob = reader.read_blob(record.blob, 0, record.blob.size_bytes)
        charge, _, value = record.value.partition(b":")
        found[record.key] = Kept(value, blob, int(charge))
    return found


def _difference(found: Contents, allowed: list[Contents], drive: str) -> str:
    lines = [f"drive {drive} holds neither of {len(allowed)} allowed states:"]
    for key in sorted(set(found).union(*allowed)):
        values = [found.get(key), *(state.get(key) for state in allowed)]
        if len({repr(value) for value in values}) > 1:
            shown = [
                "-" if v is None else f"{v.value!r}+{'-' if v.blob is None else len(v.blob)}"
                for v in values
            ]
            lines.append(f"  {key!r}: found {shown[0]}, allowed {shown[1:]}")
    return "\n".join(lines)


class History:
    """Makes commits out of a seed. The same seed makes the same commits on the same machine."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"history {seed}")
        self._number = 0

    def commit(self, machine: Machine, oracle: Oracle) -> None:
        """One store call of a few commits. What was acknowledged goes into the oracle when the
        store has answered, and not before."""
        store = machine.store
        assert store is not None, "it is open"
        orders: list[CommitOrder] = []
        states: list[Contents] = []
        contents = dict(oracle.acked)
        for _ in range(self._rng.choice([1, 1, 2, 3])):
            order, contents = self._order(machine, contents, oracle)
            orders.append(order)
            states.append(contents)
        oracle.pending = states
        outcomes = store.commit(orders)
        assert all(isinstance(outcome, int) for outcome in outcomes), outcomes
        oracle.acked, oracle.pending = contents, []
        oracle.last_order = orders[-1]

    def _order(
        self, machine: Machine, contents: Contents, oracle: Oracle
    ) -> tuple[CommitOrder, Contents]:
        after = dict(contents)
        orders: list[Order] = []
        for key in self._rng.sample(KEYS, self._rng.randint(1, 3)):
            if key in after and self._rng.random() < 0.3:
                orders.append(Order(key, None))
                del after[key]
                continue
            orders.append(self._put(machine, key, after))
        oracle.request_id += 1
        request_id = oracle.request_id.to_bytes(16, "big")
        return CommitOrder(PARTITION.encode(), request_id, orders, [], []), after

    def _put(self, machine: Machine, key: bytes, after: Contents) -> Order:
        self._number += 1
        charge = self._rng.randint(0, 5)
        value = b"value %d" % self._number
        charges = encode_charges([Charge(b"n", charge)]) if charge else b""
        before = after.get(key)
        if before is not None and before.blob is not None and self._rng.random() < 0.25:
            after[key] = Kept(value, before.blob, charge)
            return Order(key, b"%d:%s" % (charge, value), charges, keep=key)
        size = self._rng.choice(SIZES)
        data = None if size is None else self._rng.randbytes(size)
        after[key] = Kept(value, data, charge)
        blob: bytes | Staged | None = data
        if data is not None and len(data) >= STAGED_FROM:
            blob = machine.stage(data)
        return Order(key, b"%d:%s" % (charge, value), charges, blob)
