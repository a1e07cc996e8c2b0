"""What a client does about drives that hang or leave, on real directories."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from appliance.engine.interface import Batch, Engine, Partition, Put, Record
from appliance.engine.mirror import client
from appliance.engine.mirror.client import ClientSettings, MirrorEngine
from appliance.engine.mirror.launch import local_engine, open_store
from appliance.engine.mirror.reader import DriveReader
from appliance.system.files import DirectoryFile, DirectoryVolume
from tests.conformance.deeds import pattern, read_blob, write_blob
from tests.conformance.mirrors import MIRROR_ID, SETTINGS, lay_out

PARTITION = Partition("drives")
READS = 40


class HungVolume(DirectoryVolume):
    """Opening a file on it does not come back before ``over`` is set."""

    over: threading.Event

    def open(self, path: str, **options: bool) -> DirectoryFile:
        self.over.wait(50)
        return super().open(path, **options)


async def _fill(engine: Engine) -> list[tuple[Record, bytes]]:
    wanted = []
    for number, size in enumerate((5_000, 700_000)):
        data, key = pattern(size, number), b"%d" % number
        blob = await write_blob(engine, data)
        await engine.commit(PARTITION, Batch([Put(key, b"", blob)]))
        (record,) = await engine.read(PARTITION, [key])
        assert record is not None
        wanted.append((record, data))
    return wanted


@pytest.mark.timeout(60)
@pytest.mark.parametrize("hung", ["drive-a", "drive-b"])
def test_a_hung_drive_holds_up_no_read(tmp_path: Path, hung: str) -> None:
    """Many at once, more than there are threads, and they go on afterwards."""

    async def scenario() -> None:
        store = await open_store(tmp_path / "s", lay_out(tmp_path), settings=SETTINGS)
        settings = ClientSettings(hedge_s=0.05, reader_threads=3)
        engine = await local_engine(store.service, settings=settings)
        await engine.ready(20)
        wanted = await _fill(engine)
        volume = HungVolume(tmp_path / hung, hung)
        volume.over = threading.Event()
        drives = dict(engine._reader._sources.drives)
        drives[hung] = DriveReader(hung, volume, bytes.fromhex(MIRROR_ID))
        engine._reader.use(drives)
        try:
            async with asyncio.timeout(20):
                for _ in range(2):
                    got = await asyncio.gather(
                        *(read_blob(engine, wanted[n % 2][0].blob) for n in range(READS))
                    )
                    assert all(data == wanted[n % 2][1] for n, data in enumerate(got))
                    assert len(await engine.scan(PARTITION, b"", b"\xff", 10)) == 2
        finally:
            volume.over.set()
            await engine.close()
            await store.close()
            volume.close()

    asyncio.run(scenario())


def test_a_stored_blob_can_be_written_by_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await open_store(tmp_path / "s", lay_out(tmp_path), settings=SETTINGS)
        engine = await local_engine(store.service)
        await engine.ready(20)
        await _fill(engine)
        files = list(tmp_path.glob("drive-*/blob/*/*"))
        assert len(files) == 2
        assert {file.stat().st_mode & 0o777 for file in files} == {0o440}
        await engine.close()
        await store.close()

    asyncio.run(scenario())


def _open_below(path: Path) -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
        if target.startswith(str(path)):
            found.append(target)
    return found


def test_nothing_stays_open_on_a_drive_that_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its dead mount would be held until the gateway ends."""
    monkeypatch.setattr(client, "TIDY_EVERY_S", 0.02)

    async def scenario() -> None:
        message = lay_out(tmp_path)
        store = await open_store(tmp_path / "s", message, settings=SETTINGS)
        engine: MirrorEngine = await local_engine(store.service)
        await engine.ready(20)
        wanted = await _fill(engine)
        for record, data in wanted * 2:
            assert await read_blob(engine, record.blob) == data
        assert _open_below(tmp_path / "drive-b")
        members = [m for m in message["members"] if m["drive"] != "drive-b"]
        store.service.assembly_changed({**message, "members": members})
        async with asyncio.timeout(20):
            while _open_below(tmp_path / "drive-b"):  # noqa: ASYNC110 - threads tell nobody
                await asyncio.sleep(0.02)
        for record, data in wanted:
            assert await read_blob(engine, record.blob) == data
        await engine.close()
        await store.close()

    asyncio.run(scenario())
