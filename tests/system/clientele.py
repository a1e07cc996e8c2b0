"""Real clients at work on a whole appliance, and what a fault costs them.

aws-cli and boto3, each with three attempts per operation. Owns the threads, an oracle for what was
acknowledged, and the toll of each fault: operations, failures, longest wait.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.crash.oracle import Writer, verify
from tests.system.drives import until
from tests.system.load import Load, running
from tests.system.service import Appliance

AWS_WORKERS: Final = 1
WRITERS: Final = 2
CALM_S: Final = 240.0
BUCKET: Final = "boto"


@dataclass(frozen=True, slots=True)
class Toll:
    """What the clients noticed of one fault, from its beginning until all was well again."""

    operations: int
    failed: int
    longest_s: float
    took_s: float

    def words(self) -> str:
        """For people."""
        return (
            f"{self.operations} operations, {self.failed} failed, longest wait "
            f"{self.longest_s:.1f} s, over after {self.took_s:.1f} s"
        )


class Clientele:
    """See the module. ``running`` first."""

    def __init__(
        self, machine: Appliance, account: dict[str, Any], folder: Path, seed: int
    ) -> None:
        self.client: Final = machine.client(account, read_timeout=90)
        self.client.create_bucket(Bucket=BUCKET)
        self.load: Final = Load(machine.environment(account), account["bucket"], folder, seed)
        self.writers: Final = [
            Writer(n, seed, partial(machine.client, account, read_timeout=90), BUCKET, self)
            for n in range(WRITERS)
        ]
        self.tolls: Final[dict[str, Toll]] = {}

    def acknowledged(self) -> None:
        """The writers report here; they count for themselves."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, all clients work."""
        for writer in self.writers:
            writer.start()
        try:
            with running(self.load, workers=AWS_WORKERS):
                yield
        finally:
            for writer in self.writers:
                writer.stopping.set()
            for writer in self.writers:
                writer.join(CALM_S)
        assert not any(writer.is_alive() for writer in self.writers), "a writer is stuck"

    def calm(self) -> None:
        """Wait until every client has had several operations from now on."""
        before = self._counts()
        until(
            lambda: all(now >= then + 3 for now, then in zip(self._counts(), before, strict=True)),
            "every client to go on",
            deadline_s=CALM_S,
        )

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """One fault, all of whose consequences are over at the end of the block."""
        self.calm()
        operations, failed = self._operations(), self._failed()
        self.load.longest_s = 0.0
        for writer in self.writers:
            writer.longest_s = 0.0
        began_s = time.monotonic()
        yield
        took_s = time.monotonic() - began_s
        self.calm()
        longest_s = max(self.load.longest_s, *(writer.longest_s for writer in self.writers))
        toll = Toll(self._operations() - operations, self._failed() - failed, longest_s, took_s)
        self.tolls[name] = toll
        print(f"{name}: {toll.words()}")

    def check(self) -> int:
        """Everything acknowledged is there, of every client; how many objects."""
        memory = {key: known for writer in self.writers for key, known in writer.memory.items()}
        objects = verify(self.client, BUCKET, memory)
        for key, digest in self.load.stored.items():
            body = self.client.get_object(Bucket=self.load.bucket, Key=key)["Body"].read()
            assert hashlib.sha256(body).hexdigest() == digest, key
        return objects + len(self.load.stored)

    def _counts(self) -> list[int]:
        return [self.load.operations, *(w.acknowledgements + w.unanswered for w in self.writers)]

    def _operations(self) -> int:
        return sum(self._counts())

    def _failed(self) -> int:
        return len(self.load.failures) + sum(writer.unanswered for writer in self.writers)
