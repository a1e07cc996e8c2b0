"""Writers that remember every acknowledgement, and a judge that reads everything back.

The oracle lives in the test's own memory, outside the service and its drives. A key's acceptable
values are its last acknowledged one and every one attempted after that: a request whose answer was
lost may or may not have happened, but never halfway.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

ABSENT: Final = "absent"
SIZES_BYTES: Final = (0, 100, 4096, 60_000, 300_000, 1_500_000)
KEYS_PER_WRITER: Final = 60
ClientFactory = Callable[[], Any]


class Judge(Protocol):
    """What ``Writer`` reports to after each acknowledgement."""

    def acknowledged(self) -> None: ...


@dataclass(slots=True)
class Memory:
    """What one key may hold: digests of bodies, or ``ABSENT``."""

    acceptable: set[str] = field(default_factory=lambda: {ABSENT})


class Writer(threading.Thread):
    """Puts, replaces and deletes its own keys until told to stop. Owns its memory."""

    def __init__(
        self,
        number: int,
        seed: int,
        client: ClientFactory,
        bucket: str,
        judge: Judge,
        *,
        sizes_bytes: Sequence[int] = SIZES_BYTES,
        keys: int = KEYS_PER_WRITER,
    ) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self.memory: dict[str, Memory] = {}
        self.acknowledgements = 0
        self.unanswered = 0
        self.longest_s = 0.0
        """Of its requests, retries included. Whoever measures may set it back."""
        self.stopping = threading.Event()
        self._number = number
        self._chance = random.Random(f"{seed}-{number}")
        self._client = client()
        self._bucket = bucket
        self._judge = judge
        self._sizes_bytes = sizes_bytes
        self._keys = keys

    def run(self) -> None:
        """Work until ``stopping`` is set. Only lost answers are forgiven, wrong ones are not."""
        while not self.stopping.is_set():
            key = f"writer {self._number}/{self._chance.randrange(self._keys)}"
            memory = self.memory.setdefault(key, Memory())
            if self._chance.random() < 0.15:
                self._attempt(memory, ABSENT, lambda key=key: self._send_delete(key))  # type: ignore[misc]
            else:
                body = self._chance.randbytes(self._chance.choice(self._sizes_bytes))
                digest = hashlib.sha256(body).hexdigest()
                self._attempt(memory, digest, lambda k=key, b=body: self._send_put(k, b))  # type: ignore[misc]

    def _attempt(self, memory: Memory, value: str, send: Callable[[], None]) -> None:
        memory.acceptable.add(value)
        began_s = time.monotonic()
        try:
            send()
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            assert status >= 500, f"a lawful request was refused: {error}"
            self.unanswered += 1
        except BotoCoreError:
            self.unanswered += 1
        else:
            memory.acceptable = {value}
            self.acknowledgements += 1
            self._judge.acknowledged()
        finally:
            self.longest_s = max(self.longest_s, time.monotonic() - began_s)

    def _send_put(self, key: str, body: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=key, Body=body)

    def _send_delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=key)


def verify(client: Any, bucket: str, memory: dict[str, Memory]) -> int:
    """Every key holds something acceptable, and listing agrees with reading.

    Returns how many objects were read. Settles each key's memory on what was found, because what
    was once visible must stay.
    """
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    listed = {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", ())}
    assert set(listed) <= set(memory), "a key appeared that nobody wrote"
    for key, known in memory.items():
        found = ABSENT
        if key in listed:
            body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
            assert len(body) == listed[key], f"{key}: listed size differs from what is read"
            found = hashlib.sha256(body).hexdigest()
        assert found in known.acceptable, f"{key}: {found} is neither acknowledged nor attempted"
        known.acceptable = {found}
    return len(listed)
