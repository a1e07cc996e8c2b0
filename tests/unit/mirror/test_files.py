"""Real directories behind the engine's seams, and the trace of what was done to them."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import DriveFault
from appliance.core.ports import Volume
from appliance.runtime.clock import SystemClock, SystemEntropy
from appliance.system.files import READ_BYTES, DirectoryVolume
from appliance.system.tracing import Trace, TraceEvent, TraceFile, TracingVolume, read_trace
from tests.crash.simulated import Power, SimulatedDisk

BLOCK = 4096


@pytest.fixture(params=["directory", "simulated", "traced"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Volume:
    """The real and the simulated volume behave alike."""
    if request.param == "simulated":
        return SimulatedDisk("A", Power()).mount()
    real = DirectoryVolume(tmp_path, "A")
    if request.param == "directory":
        return real
    return TracingVolume(real, Trace(SystemClock(), lambda event: None))


def fault(code: int, error: pytest.ExceptionInfo[DriveFault]) -> bool:
    return error.value.errno == code and error.value.drive == "A"


def test_writing_and_reading(volume: Volume) -> None:
    file = volume.open("one", write=True, create=True)
    file.write_at(10, b"abc")
    file.write_at(0, memoryview(b"xy"))
    file.flush()
    assert file.size_bytes() == 13
    assert file.read_at(0, 100) == b"xy" + bytes(8) + b"abc"
    assert file.read_at(11, 1) == b"b" == file.read_at(11, 1, past_cache=True)
    assert file.read_at(13, 5) == b"" == file.read_at(99, 5, past_cache=True)
    file.allocate(10_000)
    assert file.size_bytes() == 13
    file.truncate(2)
    assert file.read_at(0, 9) == b"xy"
    file.close()
    file.close()
    assert volume.open("one").read_at(0, 9) == b"xy"


def test_durable_files_take_whole_blocks(volume: Volume) -> None:
    file = volume.open("d", write=True, create=True, durable=True)
    file.write_at(0, b"a" * BLOCK * 3)
    file.write_at(BLOCK, b"b" * BLOCK)
    assert file.read_at(BLOCK - 2, 4) == b"aabb"
    assert file.read_at(BLOCK * 3 - 5, 100) == b"aaaaa"
    assert file.read_at(BLOCK * 9, 10) == b""
    assert file.read_at(5, 0) == b""
    large = os.urandom(3 * 1024 * 1024)
    file.write_at(BLOCK * 4, large)
    file.write_at(0, b"c" * BLOCK)
    assert file.read_at(BLOCK * 4, len(large)) == large
    assert volume.open("d").read_at(BLOCK * 4 + 100, 1000) == large[100:1100]
    file.close()
    again = volume.open("d", write=True, durable=True)
    assert again.read_at(0, 1) == b"c"
    again.close()


def test_names(volume: Volume) -> None:
    volume.make_directory("a/b/c")
    volume.make_directory("a/b")
    volume.open("a/b/f", write=True, create=True).close()
    volume.open("a/g", write=True, create=True).close()
    assert volume.names("a") == ["b", "g"] and volume.names("") == ["a"]
    volume.rename("a/g", "a/b/f")
    for directory in ("", "a", "a/b"):
        volume.flush_directory(directory)
    assert volume.names("a/b") == ["c", "f"]
    found = volume.stat("a/b")
    assert found is not None and found.is_directory
    file = volume.stat("a/b/f")
    assert file is not None and (file.size_bytes, file.is_directory) == (0, False)
    assert volume.stat("a/none") is None and volume.stat("none/at/all") is None
    volume.unlink("a/b/f")
    assert volume.names("a/b") == ["c"]
    assert volume.name == "A"
    space = volume.space()
    assert 0 < space.free_bytes <= space.total_bytes
    volume.close()


def test_faults_carry_their_errno(volume: Volume) -> None:
    volume.make_directory("d")
    volume.open("f", write=True, create=True).close()
    for code, call in (
        (errno.ENOENT, lambda: volume.open("none")),
        (errno.EEXIST, lambda: volume.open("f", write=True, create=True)),
        (errno.ENOENT, lambda: volume.open("no/f", write=True, create=True)),
        (errno.ENOENT, lambda: volume.unlink("none")),
        (errno.ENOENT, lambda: volume.rename("none", "f")),
        (errno.ENOENT, lambda: volume.names("none")),
        (errno.ENOENT, lambda: volume.flush_directory("none")),
    ):
        with pytest.raises(DriveFault) as error:
            call()
        assert fault(code, error), (code, error.value)


@pytest.mark.parametrize("durable", [True, False])
def test_only_durable_files_flush_each_write(tmp_path: Path, durable: bool) -> None:
    file = DirectoryVolume(tmp_path, "A").open("f", write=True, create=True, durable=durable)
    flags = fcntl.fcntl(file._descriptor, fcntl.F_GETFL)
    assert bool(flags & os.O_DSYNC) is durable


def test_flushes_reach_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []

    def note(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fdatasync", note)
    monkeypatch.setattr(os, "fsync", note)
    volume = DirectoryVolume(tmp_path, "A")
    volume.make_directory("d")
    volume.open("f", write=True, create=True).flush()
    volume.flush_directory("d")
    volume.flush_directory("")
    assert flushed == [str(tmp_path / "f"), str(tmp_path / "d"), str(tmp_path)]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a\0b"])
def test_no_path_leads_out(tmp_path: Path, path: str) -> None:
    volume = DirectoryVolume(tmp_path, "A")
    for call in (
        volume.open,
        volume.make_directory,
        volume.unlink,
        volume.names,
        volume.stat,
        volume.flush_directory,
        lambda p: volume.rename(p, "x"),
        lambda p: volume.rename("x", p),
    ):
        with pytest.raises(DriveFault) as error:
            call(path)
        assert fault(errno.EINVAL, error)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(DriveFault) as error:
        DirectoryVolume(tmp_path, "A").open("link")
    assert fault(errno.ELOOP, error)


def test_an_unaligned_durable_write_is_refused_where_direct(tmp_path: Path) -> None:
    volume = DirectoryVolume(tmp_path, "A")
    file = volume.open("f", write=True, create=True, durable=True)
    if volume.is_direct:
        with pytest.raises(DriveFault) as error:
            file.write_at(1, b"x" * BLOCK)
        assert fault(errno.EINVAL, error)
    else:
        file.write_at(1, b"x")
        assert file.read_at(0, 9) == b"\0x"


def test_a_file_system_without_direct_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a one refuses O_DIRECT after it has already created the file."""
    real_open = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor = real_open(path, flags & ~os.O_DIRECT, mode, dir_fd=dir_fd)
        if flags & os.O_DIRECT:
            os.close(descriptor)
            raise OSError(errno.EINVAL, "no direct access")
        return descriptor

    monkeypatch.setattr(os, "open", refusing)
    volume = DirectoryVolume(tmp_path, "A")
    for name in ("f", "g"):
        file = volume.open(name, write=True, create=True, durable=True)
        file.write_at(0, b"x" * BLOCK)
        assert file.read_at(0, 3) == b"xxx"
    assert not volume.is_direct
    with pytest.raises(DriveFault) as error:
        volume.open("f", write=True, create=True, durable=True)
    assert fault(errno.EEXIST, error)


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real_pwrite(fd, data[:3], at))
    file = DirectoryVolume(tmp_path, "A").open("f", write=True, create=True)
    file.write_at(2, b"0123456789")
    assert file.read_at(0, 99) == b"\0\x000123456789"
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 0)
    with pytest.raises(DriveFault) as error:
        file.write_at(0, b"x")
    assert fault(errno.EIO, error)


def test_short_reads_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_pread = os.pread
    file = DirectoryVolume(tmp_path, "A").open("f", write=True, create=True)
    file.write_at(0, b"0123456789")
    monkeypatch.setattr(os, "pread", lambda fd, length, at: real_pread(fd, min(length, 3), at))
    assert file.read_at(1, 100) == b"123456789"


def test_closing_under_a_write_that_hangs_gives_the_descriptor_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the failed drive's mount would be held for ever."""
    before = os.listdir("/proc/self/fd")
    volume = DirectoryVolume(tmp_path, "A")
    file = volume.open("f", write=True, create=True, durable=True)
    begun, over = threading.Event(), threading.Event()

    def hang(_descriptor: int, _data: object, _offset: int) -> int:
        begun.set()
        over.wait(30)
        raise OSError(errno.EIO, "it hung")

    monkeypatch.setattr(os, "pwrite", hang)
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(file.write_at, 0, bytes(BLOCK))
        assert begun.wait(30)
        file.close()
        volume.close()
        assert os.listdir("/proc/self/fd") == before
        over.set()
        with pytest.raises(DriveFault):
            writing.result()


def test_a_file_that_is_taken_over_is_ours_and_read_only(tmp_path: Path) -> None:
    volume = DirectoryVolume(tmp_path, "A")
    with pytest.raises(DriveFault) as error:
        volume.take_over("upload")
    assert fault(errno.ENOENT, error)
    upload = tmp_path / "upload"
    upload.write_bytes(b"bytes")
    upload.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(upload, 12_345, 0)  # a gateway's
    volume.take_over("upload")
    found = upload.stat()
    assert (found.st_uid, found.st_mode & 0o777) == (os.geteuid(), 0o440)
    assert upload.read_bytes() == b"bytes"
    volume.close()


def test_without_the_privilege_nothing_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = DirectoryVolume(tmp_path, "A")
    (tmp_path / "upload").write_bytes(b"bytes")

    def refuse(_descriptor: int, _mode: int) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr(os, "fchmod", refuse)
    volume.take_over("upload")
    assert (tmp_path / "upload").read_bytes() == b"bytes"
    volume.close()


def test_a_missing_directory_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DriveFault) as error:
        DirectoryVolume(tmp_path / "none", "A")
    assert fault(errno.ENOENT, error)


def test_a_volume_stays_where_it_was_opened(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    volume = DirectoryVolume(tmp_path / "old", "A")
    (tmp_path / "old").rename(tmp_path / "moved")
    (tmp_path / "old").mkdir()
    volume.open("f", write=True, create=True).close()
    assert (tmp_path / "moved/f").exists() and not (tmp_path / "old/f").exists()
    volume.close()
    volume.close()
    with pytest.raises(DriveFault):
        volume.names("")


def test_the_trace_tells_what_was_durable(tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    sink = TraceFile(tmp_path / "trace")
    volume = TracingVolume(DirectoryVolume(tmp_path / "drive", "A"), Trace(SystemClock(), sink))
    file = volume.open("d", write=True, create=True, durable=True)
    file.write_at(0, bytes(BLOCK))
    other = volume.open("n", write=True, create=True)
    other.write_at(5, b"abc")
    other.flush()
    other.truncate(2)
    other.allocate(100)
    volume.rename("n", "m")
    volume.flush_directory("")
    volume.make_directory("x")
    volume.unlink("m")
    with pytest.raises(DriveFault):
        volume.unlink("m")
    sink.close()
    with (tmp_path / "trace").open("a") as cut_short:
        cut_short.write('{"number": 99, "at')
    events = read_trace(tmp_path / "trace")
    assert [event.number for event in events] == list(range(1, 12))
    assert [event.operation for event in events] == [
        "open", "write", "open", "write", "flush", "truncate", "allocate", "rename",
        "flush_directory", "make_directory", "unlink",
    ]  # fmt: skip
    durable, plain = events[1], events[3]
    assert (durable.path, durable.offset, durable.length, durable.durable) == ("d", 0, BLOCK, True)
    assert (plain.path, plain.offset, plain.length, plain.durable) == ("n", 5, 3, False)
    assert (events[7].path, events[7].target) == ("n", "m")
    assert all(event.drive == "A" and isinstance(event, TraceEvent) for event in events)
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)


@given(st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=300)), max_size=12))
def test_any_writes_read_back(writes: list[tuple[int, bytes]]) -> None:
    file = SimulatedDisk("A", Power()).mount().open("f", write=True, create=True)
    model = bytearray()
    for offset, data in writes:
        file.write_at(offset, data)
        if len(model) < offset + len(data):
            model.extend(bytes(offset + len(data) - len(model)))
        model[offset : offset + len(data)] = data
    assert file.read_at(0, 10_000) == bytes(model)


def test_the_real_clock_and_entropy() -> None:
    clock = SystemClock()
    first = clock.monotonic_s()
    clock.sleep_s(0)
    assert clock.monotonic_s() >= first
    assert clock.now_ns() > 1_700_000_000 * 10**9
    assert len(SystemEntropy().token(16)) == 16
    assert SystemEntropy().token(16) != SystemEntropy().token(16)


def test_direct_reads_beside_each_other_never_share_memory(tmp_path: Path) -> None:
    """Memory is used again, by one read at a time, and also after one that failed; a read larger
    than what is kept has its own."""
    volume = DirectoryVolume(tmp_path, "A")
    parts = [bytes([number]) * (READ_BYTES // 4) for number in range(8)]
    (tmp_path / "f").write_bytes(b"".join(parts))
    file = volume.open("f", direct=True)

    def read(number: int) -> bool:
        at = number % len(parts) * len(parts[0])
        return file.read_at(at + 5, len(parts[0]) - 9) == parts[number % len(parts)][5:-4]

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(read, range(200)))
        assert file.read_at(3, 2 * READ_BYTES - 3) == b"".join(parts)[3 : 2 * READ_BYTES]
        gone = volume.open("f", direct=True)
        gone.close()
        with pytest.raises(DriveFault):
            gone.read_at(0, BLOCK)
        assert all(threads.map(read, range(50)))
    file.close()
    volume.close()
