"""The engines the suite runs against, each opened once and kept on its own event loop.

A rig gives every test a partition of its own, so that tests share an engine and not their state.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from appliance.engine.interface import Engine, Partition
from appliance.engine.sim import SimulatedEngine
from tests.conformance.mirrors import open_in_process, open_over_ipc

T = TypeVar("T")
Opener: TypeAlias = Callable[[Path], AbstractAsyncContextManager[Engine]]
Scenario: TypeAlias = Callable[[Engine, Partition], Awaitable[T]]


class Rig:
    """One engine, open, on one event loop."""

    def __init__(self, opener: Opener, directory: Path) -> None:
        self._runner = asyncio.Runner()
        self._context = opener(directory)
        self.engine: Final = self._runner.run(self._context.__aenter__())
        self._numbers = itertools.count(1)

    def partition(self) -> Partition:
        """A partition nothing else in this run uses."""
        return Partition(f"test-{next(self._numbers)}")

    def run(self, scenario: Scenario[T]) -> T:
        """Run ``scenario`` against the engine in a fresh partition."""
        return self.run_in(self.partition(), scenario)

    def run_in(self, partition: Partition, scenario: Scenario[T]) -> T:
        """Run ``scenario`` against the engine in ``partition``."""

        async def main() -> T:
            return await scenario(self.engine, partition)

        return self._runner.run(main())

    def close(self) -> None:
        """Close the engine and its loop."""
        self._runner.run(self._context.__aexit__(None, None, None))
        self._runner.close()


@asynccontextmanager
async def open_simulated(directory: Path) -> AsyncIterator[Engine]:
    """The engine in memory; it has no use for the directory."""
    engine = SimulatedEngine()
    try:
        yield engine
    finally:
        await engine.close()


OPENERS: Final[dict[str, Opener]] = {
    "simulated": open_simulated,
    "mirror": open_in_process,
    "mirror-over-ipc": open_over_ipc,
}
