"""Everything comes back from one drive, byte by byte, and nothing on it changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.core.contracts import CONTRACT_KEY
from appliance.core.errors import ApplianceError, InvalidInput, NotFound, Refused
from appliance.core.exportnames import key_of_path
from appliance.core.offline import EXIT_LOST, Export
from appliance.core.recordkeys import after_prefix, bucket_key
from appliance.daemon import export_directory
from appliance.daemon.offline_export import check_target, export
from appliance.engine.interface import SYSTEM, Batch, Delete, Partition, Put
from appliance.objects.content import OpenObject
from appliance.objects.export import StoredObject
from tests.conformance.mirrors import open_in_process
from tests.unit.offline.house import House, digest, quiet


def _export(house: House, drive: Path, to: Path, *, recovery: bool = False) -> Export:
    master_file, recovery_file = house.keys(to.parent)
    scratch = to.parent / f"scratch-{to.name}-{len(list(to.parent.iterdir()))}"
    scratch.mkdir()
    found, _ = quiet(
        lambda telling: export(
            drive,
            str(to),
            scratch,
            telling,
            master_key=None if recovery else master_file,
            recovery_key=str(recovery_file) if recovery else None,
        )
    )
    return found


def _manifest(to: Path) -> Iterator[dict[str, object]]:
    for line in (to / "manifest.jsonl").read_text().splitlines():
        yield json.loads(line)


def _files(to: Path) -> dict[tuple[str, str], bytes]:
    root = to / "buckets"
    found = {}
    for path in root.rglob("*"):
        if path.is_file():
            bucket, _, name = str(path.relative_to(root)).partition("/")
            found[bucket, key_of_path(name)] = path.read_bytes()
    return found


@pytest.mark.parametrize("recovery", [False, True], ids=["master key", "recovery key"])
@pytest.mark.parametrize("number", [0, 1])
def test_one_drive_gives_every_object_back(
    house: House, tmp_path: Path, number: int, *, recovery: bool
) -> None:
    drive = house.drives[number]
    before = digest(drive)
    found = _export(house, drive, tmp_path / "out", recovery=recovery)
    assert digest(drive) == before
    assert _files(tmp_path / "out") == house.contents
    assert found.exit_code == 0
    assert (found.contracts, found.buckets) == (2, 2)
    assert found.copied == len(house.contents)
    assert found.copied_bytes == sum(map(len, house.contents.values()))
    assert not (tmp_path / "out" / "unreadable.jsonl").exists()


def test_the_manifest_tells_what_a_file_cannot(house: House, tmp_path: Path) -> None:
    to = tmp_path / "out"
    _export(house, house.drives[0], to)
    lines = {(line["bucket"], line["key"]): line for line in _manifest(to)}
    assert lines.keys() == house.contents.keys()
    for name, data in house.contents.items():
        line = lines[name]
        path = to / "buckets" / str(line["path"])
        assert path.read_bytes() == data
        assert line["size"] == len(data)
        assert line["metadata"] == house.metadata[name]
        assert path.stat().st_mtime_ns == line["modified_ns"]
    bucket = next(iter(house.contents))[0]
    odd = lines[bucket, "a"]
    assert odd["tags"] == {"tag": "1"}
    assert odd["headers"] == {"cache-control": "no-cache"}
    assert odd["content_type"] == "text/x-odd"
    assert lines[bucket, "in/parts"]["parts"] == 3
    assert str(lines[bucket, "in/parts"]["etag"]).endswith("-3")


def test_a_second_run_copies_only_what_is_missing_or_changed(house: House, tmp_path: Path) -> None:
    to = tmp_path / "out"
    _export(house, house.drives[0], to)
    files = sorted(path for path in (to / "buckets").rglob("*") if path.is_file())
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes() + b"more")
    files[2].write_bytes(bytes(files[2].stat().st_size))  # as large as before
    found = _export(house, house.drives[1], to)
    assert found.copied == 3
    assert found.present == len(house.contents) - 3
    assert _files(to) == house.contents


def test_an_interrupted_run_leaves_whole_files_and_goes_on(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "out"
    stored = 0
    original = export_directory.ExportDirectory.has

    async def fail(
        self: export_directory.ExportDirectory, found: StoredObject, opened: OpenObject
    ) -> bool:
        nonlocal stored
        stored += 1
        if stored == 20:
            raise KeyboardInterrupt
        return await original(self, found, opened)

    with monkeypatch.context() as patch:
        patch.setattr(export_directory.ExportDirectory, "has", fail)
        with pytest.raises(KeyboardInterrupt):
            _export(house, house.drives[0], to)
    begun = _files(to)
    assert 0 < len(begun) < 20
    assert begun.items() <= house.contents.items()
    assert not (to / "manifest.jsonl").exists()
    found = _export(house, house.drives[0], to)
    assert found.present == len(begun)
    assert _files(to) == house.contents


def test_what_cannot_be_read_is_named_and_all_else_is_copied(house: House, tmp_path: Path) -> None:
    broken = house.copied(tmp_path / "broken")
    drive = broken.drives[0]
    for blob in (drive / "blob").rglob("*"):
        if blob.is_file() and blob.stat().st_size > 1_000_000:
            data = bytearray(blob.read_bytes())
            data[100_000] ^= 1
            blob.chmod(0o640)
            blob.write_bytes(data)
    to = tmp_path / "out"
    found = _export(broken, drive, to)
    assert found.exit_code == EXIT_LOST
    assert found.unreadable_count == 2
    assert {each.key for each in found.unreadable} == {"large"}
    named = [json.loads(line) for line in (to / "unreadable.jsonl").read_text().splitlines()]
    assert len({int(line["record"], 16) for line in named} - {0}) == 2, "as others call them"
    assert [line["key"] for line in named] == ["large", "large"]
    left = {name: data for name, data in house.contents.items() if name[1] != "large"}
    assert _files(to) == left
    healed = _export(broken, broken.drives[1], to)
    assert healed.exit_code == 0
    assert _files(to) == house.contents
    assert not (to / "unreadable.jsonl").exists()


def test_a_bucket_whose_own_record_is_bad_or_gone_gives_its_objects(
    house: House, tmp_path: Path
) -> None:
    broken = house.copied(tmp_path / "broken")
    names = sorted({bucket for bucket, _ in house.contents})

    async def break_records() -> None:
        async with open_in_process(broken.home) as engine:
            keys = await engine.scan(SYSTEM, CONTRACT_KEY, after_prefix(CONTRACT_KEY), 10)
            for contract in (Partition(key.key[len(CONTRACT_KEY) :].decode()) for key in keys):
                (bucket,) = await engine.scan(contract, b"b/", b"b0", 10)
                is_first = bucket.key == bucket_key(names[0])
                change = Put(bucket.key, b"\xc1 no record") if is_first else Delete(bucket.key)
                await engine.commit(contract, Batch([change]))

    asyncio.run(break_records())
    found = _export(house, broken.drives[0], tmp_path / "out")
    assert _files(tmp_path / "out") == house.contents
    assert (found.buckets, found.unreadable_count) == (2, 0)
    lines = (tmp_path / "out" / "buckets.jsonl").read_text().splitlines()
    told = sorted(map(json.loads, lines), key=lambda line: str(line["bucket"]))
    assert [line["bucket"] for line in told] == names
    assert "cannot be read" in told[0]["trouble"]
    assert "is lost" in told[1]["trouble"]


def test_a_key_of_another_appliance_is_refused_before_anything_is_written(
    house: House, tmp_path: Path
) -> None:
    other = tmp_path / "other.key"
    other.write_text(f"appliance-master-key-1 {'ab' * 32}\n")
    other.chmod(0o600)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(Refused, match="put the right master key back"):
        quiet(
            lambda telling: export(
                house.drives[0],
                str(tmp_path / "out"),
                scratch,
                telling,
                master_key=other,
                recovery_key=None,
            )
        )
    assert not (tmp_path / "out").exists()


def test_a_directory_with_anything_else_in_it_is_refused(house: House, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(Refused, match="'mine' is in it"):
        _export(house, house.drives[0], tmp_path / "out")


def test_the_drive_itself_is_no_target(house: House, tmp_path: Path) -> None:
    broken = house.copied(tmp_path / "broken")
    with pytest.raises(Refused, match="on the drive itself"):
        _export(broken, broken.drives[0], broken.drives[0] / "out")
    assert not (broken.drives[0] / "out").exists()


def test_a_directory_that_is_no_drive_is_said_to_be_none(house: House, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="no superblock, and no log"):
        _export(house, tmp_path / "empty", tmp_path / "out")


@pytest.mark.parametrize(
    ("to", "kind", "words"),
    [
        ("http://s3.example.com", Refused, "unencrypted"),
        ("http://localhost.example.com/b", Refused, "unencrypted"),
        ("s3://bucket", InvalidInput, "give a directory"),
        ("https://", InvalidInput, "give a directory"),
        ("https://AKIA:SECRET@s3.example.com", InvalidInput, "AWS_SECRET_ACCESS_KEY"),
        ("https://s3.example.com/?region=x", InvalidInput, "nor a query"),
    ],
)
def test_addresses_that_would_give_objects_or_secrets_away(
    to: str, kind: type[ApplianceError], words: str
) -> None:
    with pytest.raises(kind, match=words) as refusal:
        check_target(to)
    assert "SECRET@" not in str(refusal.value)


@pytest.mark.parametrize("to", ["/mnt/rescue", "https://s3.example.com/b/p", "http://[::1]:9000"])
def test_directories_and_endpoints_are_targets(to: str) -> None:
    check_target(to)
