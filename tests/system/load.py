"""aws-cli as load: whole processes, one operation each, with its own three attempts.

Owns the threads and what they saw: every acknowledged object's digest, every failed operation with
its words, and how long the slowest one took.
"""

from __future__ import annotations

import hashlib
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.system.service import PROGRAMS

SIZES_BYTES: Final = (0, 700, 40_000, 400_000, 3_000_000)
"""Below and above what travels inside the log."""
OPERATION_S_MAX: Final = 150.0


@dataclass(slots=True)
class Load:
    """Workers that put an object, read it back and compare, until told to stop."""

    environment: Mapping[str, str]
    bucket: str
    folder: Path
    seed: int
    operations: int = 0
    longest_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    stored: dict[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def aws(self, *arguments: str) -> bool:
        """One operation; False and a noted failure when aws-cli gives up."""
        began = time.monotonic()
        try:
            finished = subprocess.run(
                [PROGRAMS / "aws", "s3api", *arguments],
                check=False,
                capture_output=True,
                text=True,
                env=dict(self.environment),
                timeout=OPERATION_S_MAX,
            )
            complaint = finished.stderr.strip() if finished.returncode else ""
        except subprocess.TimeoutExpired:
            complaint = f"not back after {OPERATION_S_MAX:g} s"
        took_s = time.monotonic() - began
        with self._lock:
            self.operations += 1
            self.longest_s = max(self.longest_s, took_s)
            if complaint:
                self.failures.append(f"{arguments[0]} {arguments[-2:]}: {complaint}")
        return not complaint

    def work(self, worker: int) -> None:
        """One worker's loop."""
        chance = Random(self.seed * 31 + worker)
        number = 0
        while not self._stop.is_set():
            number += 1
            key = f"w{worker}/{number:05d}"
            body = chance.randbytes(chance.choice(SIZES_BYTES))
            source, back = self.folder / f"up{worker}", self.folder / f"down{worker}"
            source.write_bytes(body)
            where = ("--bucket", self.bucket, "--key", key)
            if not self.aws("put-object", *where, "--body", str(source)):
                continue
            with self._lock:
                self.stored[key] = hashlib.sha256(body).hexdigest()
            if self.aws("get-object", *where, str(back)) and back.read_bytes() != body:
                with self._lock:
                    self.failures.append(f"{key} came back different")

    def verify(self) -> None:
        """Every acknowledged object reads back equal."""
        back = self.folder / "verify"
        for key, digest in sorted(self.stored.items()):
            assert self.aws("get-object", "--bucket", self.bucket, "--key", key, str(back)), key
            assert hashlib.sha256(back.read_bytes()).hexdigest() == digest, key


@contextmanager
def running(load: Load, *, workers: int) -> Iterator[Load]:
    """The load runs inside the block."""
    threads = [threading.Thread(target=load.work, args=(each,)) for each in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load._stop.set()
        for thread in threads:
            thread.join()
