"""A real mirror of two directories with everything a customer may store, and nobody running."""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import json
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from appliance.control.accounts.accounts import Accounts
from appliance.control.keys.vault import Vault
from appliance.core.keywrap import MasterKey, RecoveryPrivate
from appliance.daemon.local_keys import LocalKeys, bucket_maker
from appliance.daemon.offline import Telling
from appliance.engine.interface import Engine
from appliance.engine.mirror.format import BATCH_MAGIC, BLOCK_BYTES
from appliance.objects.limits import ObjectLimits
from appliance.objects.model import Attributes, Caller, CompletedPart
from appliance.objects.store import ObjectStore
from appliance.runtime.clock import SystemClock, SystemEntropy
from tests.conformance.mirrors import open_in_process
from tests.unit.objects.world import BytesBody

T = TypeVar("T")
MASTER: Final = MasterKey(b"m" * 32)
RECOVERY: Final = RecoveryPrivate(b"r" * 32)
LIMITS: Final = ObjectLimits(part_min_bytes=1000)
ODD_KEYS: Final = (
    *("a", "a/b", "a/", "a//b", "/", "//", "/lead", ".", "..", "../../etc/passwd", "%", "100%25"),
    *("tab\tand\nline", "nul\0nul", "日本語/ファイル", "e\u0301", "é", "x" * 1024, "y" * 255),
    *("z" * 240, "z" * 241, "%_", "a%=", "-rf", "~", "con", "\u202eoverride", "😀" * 100),
)


@dataclass(slots=True)
class House:
    """Where it is, and what must be found there: (bucket, key) → bytes."""

    home: Path
    contents: dict[tuple[str, str], bytes] = field(default_factory=dict)
    metadata: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    part_bytes: int = 300_000

    @property
    def drives(self) -> tuple[Path, Path]:
        return self.home / "drive-a", self.home / "drive-b"

    def copied(self, home: Path) -> House:
        """The same to be broken."""
        shutil.copytree(self.home, home)
        return House(home, self.contents, self.metadata)

    def keys(self, folder: Path) -> tuple[Path, Path]:
        """Files with the master key and the recovery key."""
        master, recovery = folder / "master.key", folder / "recovery.txt"
        if not master.exists():
            master.write_text(f"appliance-master-key-1 {MASTER.secret.hex()}\n")
            master.chmod(0o600)
            recovery.write_text(RECOVERY.text() + "\n")
        return master, recovery


def build(home: Path, seed: int, *, part_bytes: int = 300_000) -> House:
    """Make it and stop the store in good order. Drives may be mounted below ``home`` already."""
    house = House(home, part_bytes=part_bytes)
    home.mkdir(exist_ok=True)
    asyncio.run(_fill(house, random.Random(seed)))
    return house


async def _fill(house: House, rng: random.Random) -> None:
    async with open_in_process(house.home) as engine:
        with ThreadPoolExecutor(1) as hashing:
            await _store(house, engine, hashing, rng)


async def _store(
    house: House, engine: Engine, hashing: ThreadPoolExecutor, rng: random.Random
) -> None:
    clock, entropy = SystemClock(), SystemEntropy()
    vault = Vault(engine, MASTER, entropy, RECOVERY.public)
    await vault.open()
    await vault.keep_master_key()
    make_bucket = bucket_maker(engine, vault, clock, entropy, hashing)
    accounts = Accounts(engine, vault, clock, entropy, make_bucket)
    keys = LocalKeys(accounts, vault)
    store = ObjectStore(engine, keys, clock, entropy, LIMITS, hashing)
    for name in ("acme", "zeta"):
        made = await accounts.create(name)
        credential = await accounts.credential(made.access_key)
        assert credential is not None
        caller = Caller(credential.user_id, name, credential.contract, credential.bucket_prefix)
        sizes = {key: rng.randrange(3000) for key in ODD_KEYS}
        sizes |= {"empty": 0, "frame": 65536, "large": 1_500_000, "replaced": 10, "gone": 20}
        for key, size_bytes in sizes.items():
            await _put(house, store, caller, made.bucket, key, rng.randbytes(size_bytes))
        await _put(house, store, caller, made.bucket, "replaced", rng.randbytes(700_000))
        await store.objects.delete(caller, made.bucket, "gone")
        del house.contents[made.bucket, "gone"]
        await _put_parts(house, store, caller, made.bucket, rng)
        await store.uploads.create(caller, made.bucket, "never finished")


async def _put(
    house: House, store: ObjectStore, caller: Caller, bucket: str, key: str, data: bytes
) -> None:
    metadata = {"who": caller.display_name, "digest": hashlib.sha256(data).hexdigest()}
    attributes = Attributes("text/x-odd", {"cache-control": "no-cache"}, metadata, {"tag": "1"})
    await store.objects.put(caller, bucket, key, BytesBody(data), attributes)
    house.contents[bucket, key] = data
    house.metadata[bucket, key] = metadata


async def _put_parts(
    house: House, store: ObjectStore, caller: Caller, bucket: str, rng: random.Random
) -> None:
    attributes = Attributes(metadata={"in": "parts"})
    upload = await store.uploads.create(caller, bucket, "in/parts", attributes)
    pieces = [rng.randbytes(size) for size in (house.part_bytes, house.part_bytes, 5)]
    done = []
    for number, piece in enumerate(pieces, 1):
        part = await store.uploads.put_part(
            caller, bucket, "in/parts", upload.upload_id, number, BytesBody(piece)
        )
        done.append(CompletedPart(number, part.etag))
    await store.uploads.complete(caller, bucket, "in/parts", upload.upload_id, done)
    house.contents[bucket, "in/parts"] = b"".join(pieces)
    house.metadata[bucket, "in/parts"] = {"in": "parts"}


def digest(drive: Path) -> str:
    """One hash over names, contents, modes and times of everything on a drive."""
    found = hashlib.sha256()
    for path in sorted(drive.rglob("*")):
        stat = path.stat()
        found.update(f"{path} {stat.st_mode} {stat.st_mtime_ns} {stat.st_size};".encode())
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()


def batch_at(drive: Path, number: int) -> int:
    """Where the so many-th batch begins in the drive's first log segment."""
    data = (drive / "log" / "00000001").read_bytes()
    starts = (
        offset
        for offset in range(BLOCK_BYTES, len(data), BLOCK_BYTES)
        if data.startswith(BATCH_MAGIC, offset)
    )
    return next(itertools.islice(starts, number - 1, None))


def quiet(call: Callable[[Telling], T]) -> tuple[T, list[dict[str, Any]]]:
    """What a tool found, and what it told meanwhile."""
    stream = io.StringIO()
    seconds = iter(range(1_000_000))
    found = call(Telling(stream, lambda: float(next(seconds))))
    return found, [json.loads(line) for line in stream.getvalue().splitlines()]
