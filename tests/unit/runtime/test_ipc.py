"""Calls between processes: answers, errors, loss, limits and versions, over real unix sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import uvloop

from appliance.core import errors
from appliance.core.errors import (
    ApplianceError,
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotFound,
    Unavailable,
    Unreachable,
)
from appliance.runtime import ipc, unix_sockets, wire
from appliance.runtime.ipc import Peer, connect, serve
from appliance.runtime.wire import Frame, FrameReader, Hello, Kind, ProtocolFault


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    """Runs a coroutine on either event loop the product may use."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def runner(work: Any) -> None:
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(asyncio.wait_for(work, 20))

    return runner


async def echo(peer: Peer, params: Any) -> Any:
    return params


def test_call_returns_what_the_handler_returned(tmp_path: Path, run: Any) -> None:
    async def scenario() -> None:
        server = await serve(tmp_path / "a.sock", {"echo": echo}, role="store")
        peer = await connect(tmp_path / "a.sock", role="gateway 1")
        assert peer.role == "store"
        value = {"bytes": b"\x00\xff", "text": "ü", "list": [1, None, 2**60], "nested": {"a": 1.5}}
        assert await peer.call("echo", value) == value
        answers = await asyncio.gather(*(peer.call("echo", number) for number in range(500)))
        assert answers == list(range(500))
        peer.close()
        await peer.wait_closed()
        await server.close()
        assert not (tmp_path / "a.sock").exists()

    run(scenario())


def test_both_ends_call_each_other_and_know_who_it_is(tmp_path: Path, run: Any) -> None:
    async def scenario() -> None:
        opened: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
        closed = asyncio.Event()
        server = await serve(
            tmp_path / "a.sock",
            {},
            on_open=opened.set_result,
            on_close=lambda peer: closed.set(),
        )
        peer = await connect(tmp_path / "a.sock", role="gateway 7", handlers={"echo": echo})
        other = await opened
        assert other.role == "gateway 7"
        assert other.credentials.process_id == os.getpid()
        assert other.credentials.user_id == os.getuid()
        assert await other.call("echo", "back") == "back"
        peer.close()
        await closed.wait()
        await server.close()

    run(scenario())


def test_notifications_arrive_in_order_and_unknown_ones_are_ignored(
    tmp_path: Path, run: Any
) -> None:
    async def scenario() -> None:
        seen: list[int] = []

        def take(peer: Peer, params: Any) -> asyncio.Future[None]:
            seen.append(params)
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done

        server = await serve(tmp_path / "a.sock", {"take": take, "echo": echo})
        peer = await connect(tmp_path / "a.sock", role="x")
        peer.notify("nobody_knows", 0)
        for number in range(100):
            peer.notify("take", number)
        await peer.call("echo", None)
        assert seen == list(range(100))
        peer.close()
        await server.close()

    run(scenario())


def _every_error() -> Iterator[ApplianceError]:
    with_fields = [
        Conflict(b"key\xff"),
        LimitExceeded(b"bytes", 10**14),
        errors.ReadOnly("why", 7),
        Unavailable("away", 3),
        errors.DriveFault("d1", "write", 5, "I/O error"),
        errors.DriveTimeout("d2", "flush", 110),
        errors.S3Error("NoSuchKey", "no", fields={"Key": "k"}, headers={"x": "y"}),
    ]
    yield from with_fields
    for kind in vars(errors).values():
        if (
            isinstance(kind, type)
            and issubclass(kind, ApplianceError)
            and not any(type(error) is kind for error in with_fields)
        ):
            yield kind(f"message of {kind.__name__}")


def test_every_error_of_the_tree_crosses_with_class_message_and_fields(
    tmp_path: Path, run: Any
) -> None:
    sent = list(_every_error())
    assert len(sent) >= 16

    async def fail(peer: Peer, params: Any) -> Any:
        raise sent[params]

    async def scenario() -> None:
        server = await serve(tmp_path / "a.sock", {"fail": fail})
        peer = await connect(tmp_path / "a.sock", role="x")
        for number, error in enumerate(sent):
            with pytest.raises(type(error)) as caught:
                await peer.call("fail", number)
            assert type(caught.value) is type(error)
            assert str(caught.value) == str(error)
            assert vars(caught.value) == vars(error)
        peer.close()
        await server.close()

    run(scenario())


def test_a_subclass_the_tree_does_not_know_arrives_as_its_base() -> None:
    class Narrow(Unavailable):
        pass

    frame = wire.error_frame(1, Narrow("away", 9))
    error = wire.read_error(frame)
    assert type(error) is Unavailable
    assert error.retry_after_s == 9


def test_a_bug_in_a_handler_ends_its_call_and_nothing_else(
    tmp_path: Path, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def bug(peer: Peer, params: Any) -> Any:
        raise ZeroDivisionError

    async def unsendable(peer: Peer, params: Any) -> Any:
        return object()

    async def scenario() -> None:
        server = await serve(
            tmp_path / "a.sock", {"bug": bug, "echo": echo, "unsendable": unsendable}
        )
        peer = await connect(tmp_path / "a.sock", role="x")
        with pytest.raises(ApplianceError, match="bug failed inside role"):
            await peer.call("bug")
        with pytest.raises(ApplianceError, match="cannot send"):
            await peer.call("unsendable")
        with pytest.raises(InvalidInput, match="cannot send 'echo'"):
            await peer.call("echo", object())
        with pytest.raises(NotFound, match="no method 'other'"):
            await peer.call("other")
        assert await peer.call("echo", 1) == 1
        peer.close()
        await server.close()

    run(scenario())
    assert "ZeroDivisionError" in caplog.text


def test_a_lost_connection_fails_the_calls_that_wait(tmp_path: Path, run: Any) -> None:
    async def scenario() -> None:
        entered = asyncio.Event()

        async def hang(peer: Peer, params: Any) -> None:
            entered.set()
            await peer.wait_closed()

        server = await serve(tmp_path / "a.sock", {"hang": hang})
        peer = await connect(tmp_path / "a.sock", role="x")
        waiting = asyncio.create_task(peer.call("hang", timeout_s=None))
        await entered.wait()
        await server.close()
        with pytest.raises(Unavailable, match="lost"):
            await waiting
        assert peer.closed
        with pytest.raises(Unavailable):
            await peer.call("hang")
        peer.notify("hang")

    run(scenario())


def test_a_call_that_takes_too_long_fails_and_its_late_answer_is_dropped(
    tmp_path: Path, run: Any
) -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def slow(peer: Peer, params: Any) -> str:
            await gate.wait()
            return "late"

        server = await serve(tmp_path / "a.sock", {"slow": slow, "echo": echo})
        peer = await connect(tmp_path / "a.sock", role="x")
        with pytest.raises(Unavailable, match="did not answer"):
            await peer.call("slow", timeout_s=0.01)
        gate.set()
        assert await peer.call("echo", "fine") == "fine"
        peer.close()
        await server.close()

    run(scenario())


def test_calls_in_flight_are_bounded_and_the_rest_waits(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc, "CALLS_IN_FLIGHT_MAX", 3)

    async def scenario() -> None:
        most = running = 0

        async def count(peer: Peer, params: Any) -> int:
            nonlocal most, running
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            return int(params)

        server = await serve(tmp_path / "a.sock", {"count": count})
        peer = await connect(tmp_path / "a.sock", role="x")
        answers = await asyncio.gather(*(peer.call("count", number) for number in range(50)))
        assert answers == list(range(50))
        assert most == 3
        peer.close()
        await server.close()

    run(scenario())


def test_large_payloads_pass_and_too_large_ones_are_refused(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        server = await serve(tmp_path / "a.sock", {"echo": echo})
        peer = await connect(tmp_path / "a.sock", role="x")
        data = os.urandom(3_000_000)
        answers = await asyncio.gather(*(peer.call("echo", data) for _ in range(4)))
        assert all(answer == data for answer in answers)
        monkeypatch.setattr(wire, "FRAME_BYTES_MAX", 1000)
        with pytest.raises(InvalidInput, match="more than 1000"):
            await peer.call("echo", data)
        peer.close()
        await server.close()

    run(scenario())


def test_a_peer_that_breaks_the_protocol_is_dropped(tmp_path: Path, run: Any) -> None:
    hello = wire.encode(Hello("bad").frame())
    wrong = [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 2**32 - 1) + b"x",
        wire.encode(Frame(Kind.CALL, 1, "echo", None)),
        hello + wire.encode(Frame(Kind.REPLY, 99, "", None)),
        hello + wire.encode(Frame(77, 1, "", None)),
        hello + struct.pack(">I", 1) + msgpack.packb(7),
        hello + struct.pack(">I", 1) + b"\xc1",
        wire.encode(Hello("future", 50, 51).frame()),
    ]

    async def scenario() -> None:
        server = await serve(tmp_path / "a.sock", {"echo": echo})
        for data in wrong:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "a.sock")
            writer.write(data)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await reader.readexactly(100_000)
            writer.close()
        peer = await connect(tmp_path / "a.sock", role="good")
        assert await peer.call("echo", "alive") == "alive"
        peer.close()
        await server.close()

    run(scenario())


def test_connect_names_what_it_cannot_reach(tmp_path: Path, run: Any) -> None:
    async def scenario() -> None:
        with pytest.raises(Unreachable, match=r"nobody\.sock"):
            await connect(tmp_path / "nobody.sock", role="x")
        with pytest.raises(Unreachable, match="missing"):
            await connect(tmp_path / "missing" / "a.sock", role="x")

    run(scenario())


def test_a_dead_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path, run: Any) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    path = deep / "a.sock"
    (tmp_path / "file").write_text("mine")

    async def scenario() -> None:
        dead = unix_sockets.listen(path, mode=0o600)
        dead.close()
        server = await serve(path, {"echo": echo}, mode=0o600)
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(Unreachable, match="already"):
            await serve(path, {})
        with pytest.raises(Unreachable, match="no socket"):
            await serve(tmp_path / "file", {})
        await server.close()

    run(scenario())
    assert (tmp_path / "file").read_text() == "mine"


def test_versions_next_to_each_other_agree_and_others_do_not() -> None:
    assert wire.agree(Hello("a", 3, 4), Hello("b", 4, 5)) == 4
    assert wire.agree(Hello("a", 3, 4), Hello("b", 2, 3)) == 3
    with pytest.raises(Unreachable, match="restart the older"):
        wire.agree(Hello("a", 3, 4), Hello("b", 5, 6))
    for payload in (None, [1], ["1", "2"], [1, 2, 3]):
        with pytest.raises(ProtocolFault):
            wire.read_hello(Frame(Kind.HELLO, 0, "x", payload))


def test_frames_survive_any_cut() -> None:
    frames = [Frame(Kind.CALL, number, "m", b"x" * number) for number in (0, 1, 300, 70_000)]
    stream = b"".join(wire.encode(frame) for frame in frames)
    for size in (1, 2, 3, 5, 7, 64, 1000, len(stream)):
        reader = FrameReader()
        seen: list[Frame] = []
        for start in range(0, len(stream), size):
            seen.extend(reader.feed(stream[start : start + size]))
        assert seen == frames, size


def test_the_kernel_names_the_other_process() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert unix_sockets.credentials_of(left).process_id == os.getpid()
