"""Three kinds of long work of a running store: how each is begun, and how far it is.

Owns the test's own connection to the store, which starts it, kills it and asks it. Refuses to
guess: work is under way when the store says so.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any, Final, Protocol

from appliance.core.errors import ApplianceError
from appliance.engine.interface import Batch, Engine, Partition, Put
from appliance.engine.mirror.connecting import connect_engine
from appliance.runtime.ipc import connect
from tests.crash.test_kill import Turnstile
from tests.system.drives import until
from tests.system.service import Appliance
from tests.system.surgery import batches

STARTED_S: Final = 60.0
MOVING_S: Final = 0.3
"""Between two looks at what compaction has moved, a batch of moves each quarter of a second."""
SEDIMENT: Final = Partition("sediment")
LAYERS: Final = 24
REPLACED, KEPT = 16, 8
"""Objects of a layer: those the next layer replaces, and those that stay."""
GRAIN_BYTES: Final = 250_000
AWAY: Final = 25
"""Acknowledgements while a drive is away: what a resync has to copy."""


class StoreAtWork:
    """The store's process and its socket."""

    def __init__(self, machine: Appliance, mirror: str) -> None:
        self._machine = machine
        self._mirror = mirror
        self._socket = machine.home / "run/store" / f"{mirror}.sock"
        self.kills = 0

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        process = self._machine.processes[f"store-{self._mirror}"]
        process.kill()
        process.wait()
        self.kills += 1

    def start(self) -> None:
        """As its unit would, after a crash; returns when it takes questions and serves."""
        self._machine.start("store", self._mirror)
        until(
            lambda: self.state() not in {"", "offline"}, "the store to serve", deadline_s=STARTED_S
        )

    def state(self) -> str:
        """The mirror's, by its store's own word; empty while it does not answer."""
        try:
            return str(self.ask("health")["state"])
        except ApplianceError:
            return ""

    def ask(self, method: str, message: object = None) -> Any:
        """Its answer. Raises ``ApplianceError``."""
        return asyncio.run(_ask(self._socket, method, message))

    def lay_sediment(self) -> None:
        """Segments of the log that are partly dead, sooner than S3 clients could write them."""
        asyncio.run(self._lay_sediment())

    async def _lay_sediment(self) -> None:
        engine = await connect_engine(self._socket, role="gateway")
        try:
            await engine.ready(STARTED_S)
            for layer in range(LAYERS):
                names = [b"replaced %d" % n for n in range(REPLACED)]
                names += [b"kept %d %d" % (layer, n) for n in range(KEPT)]
                await asyncio.gather(*(_put(engine, name, layer) for name in names))
        finally:
            await engine.close()

    def check_sediment(self) -> None:
        """All of it is as it was laid."""
        asyncio.run(self._check_sediment())

    async def _check_sediment(self) -> None:
        engine = await connect_engine(self._socket, role="gateway")
        try:
            await engine.ready(STARTED_S)
            last = {b"replaced %d" % n: LAYERS - 1 for n in range(REPLACED)}
            kept = {b"kept %d %d" % (m, n): m for m in range(LAYERS) for n in range(KEPT)}
            for name, layer in (last | kept).items():
                (record,) = await engine.read(SEDIMENT, [name])
                assert record is not None and record.blob is not None, name
                found = b"".join([piece async for piece in engine.blob_read(record.blob)])
                assert found == _body(name, layer), name
        finally:
            await engine.close()

    def assembly(self) -> dict[str, Any]:
        """Control's word on the drives."""
        control = self._machine.home / "run/control.sock"
        return dict(asyncio.run(_ask(control, "assembly", self._mirror)))


async def _ask(socket: Path, method: str, message: object) -> Any:
    peer = await connect(socket, role="operator")
    try:
        return await peer.call(method, message)
    finally:
        peer.abort("it has answered")


async def _put(engine: Engine, name: bytes, layer: int) -> None:
    writer = engine.blob_writer(GRAIN_BYTES)
    await writer.write(_body(name, layer))
    await engine.commit(SEDIMENT, Batch([Put(name, b"", await writer.finish())]))


def _body(name: bytes, layer: int) -> bytes:
    return random.Random(f"{name!r} {layer}").randbytes(GRAIN_BYTES)


class Work(Protocol):
    """A kind of long work. ``seen``: how far it was at each kill."""

    name: str
    seen: list[str]

    def begin(self, turnstile: Turnstile) -> None:
        """It is not under way: see to it."""

    def look(self) -> str:
        """How far it is; empty when it is not under way."""


class Compaction:
    """Begun by the store itself, as clients overwrite."""

    def __init__(self, store: StoreAtWork) -> None:
        self.name = "compaction"
        self.seen: list[str] = []
        self._store = store

    def begin(self, turnstile: Turnstile) -> None:
        """The clients do that."""
        turnstile.wait_for(2)

    def look(self) -> str:
        """Under way while what was moved grows."""
        before = self._store.ask("counters")["moved_bytes"]
        time.sleep(MOVING_S)
        after = self._store.ask("counters")["moved_bytes"]
        return f"{after / 1e6:.1f} MB moved" if after > before else ""


class Resync:
    """Begun by taking one drive away for a while, every other time with the end of its log cut off
    meanwhile, so that it is not believed in when it is back. ``wounds``: how often that was."""

    def __init__(self, store: StoreAtWork, chance: random.Random) -> None:
        self.name = "resync"
        self.seen: list[str] = []
        self.begun = self.wounds = 0
        self._store = store
        self._chance = chance
        self._assembly = store.assembly()

    def begin(self, turnstile: Turnstile) -> None:
        """Once both are in sync."""
        state = self._store.state()
        if state != "in sync":
            turnstile.wait_for(1)
            return
        gone = self._chance.choice(self._assembly["members"])
        left = [each for each in self._assembly["members"] if each is not gone]
        self._store.ask("assembly_changed", {**self._assembly, "members": left})
        until(lambda: self._store.state() == "degraded", "the drive to leave", deadline_s=STARTED_S)
        turnstile.wait_for(AWAY)
        self.begun += 1
        if self.begun % 2:
            # Not the newest file: that one is free, made ahead for what is still to come.
            last = batches(Path(gone["path"]))[-1]
            os.truncate(last.path, last.offset)
            self.wounds += 1
        self._store.ask("assembly_changed", self._assembly)

    def look(self) -> str:
        """By the mirror's health."""
        health = self._store.ask("health")
        if health["state"] != "resyncing" or not health["resync_total"]:
            return ""
        return f"{100 * health['resync_done'] // health['resync_total']} %"


class Scrub:
    """Begun by an order."""

    def __init__(self, store: StoreAtWork) -> None:
        self.name = "scrub"
        self.seen: list[str] = []
        self._store = store

    def begin(self, turnstile: Turnstile) -> None:
        """It begins, or goes on where it was."""
        self._store.ask("scrub", "start")
        turnstile.wait_for(1)

    def look(self) -> str:
        """By its own report."""
        current = self._store.ask("scrub", "look")["current"]
        if current is None or current["state"] != "running" or not current["done_bytes"]:
            return ""
        return f"{100 * current['done_bytes'] // max(current['total_bytes'], 1)} %"
