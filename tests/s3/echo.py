"""An operation for tests of the front door: it answers with what it was given."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading

from appliance.core.errors import S3Error
from appliance.s3.request import Request


class Echo:
    """Stands in for the operations: answers with what it was given, or as its query says."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = asyncio.Event()
        self.outcome: list[str] = []

    async def __call__(self, request: Request) -> None:
        deed = request.query.get("deed", "echo")
        await getattr(self, f"do_{deed}")(request)

    async def do_echo(self, request: Request) -> None:
        digest = hashlib.sha256()
        total = 0
        largest = 0
        if request.body_announced:
            while piece := await request.body.read():
                digest.update(piece)
                total += len(piece)
                largest = max(largest, len(piece))
        declared = request.body.declared()
        seen = {
            "method": request.method,
            "target": request.raw_target,
            "bucket": request.bucket,
            "key": request.key,
            "query": request.query.pairs,
            "headers": dict(request.headers),
            "caller": request.caller.user_id if request.caller else None,
            "network": request.network,
            "secure": request.secure,
            "size": total,
            "largest": largest,
            "sha256": digest.hexdigest(),
            "checksum": declared.checksum and [declared.checksum[0].value, declared.checksum[1]],
        }
        await request.reply(200, {"Content-Type": "application/json"}, json.dumps(seen).encode())

    async def do_unread(self, request: Request) -> None:
        await request.reply(200, {}, b"unread")

    async def do_refuse(self, request: Request) -> None:
        raise S3Error("NoSuchBucket")

    async def do_small_body(self, request: Request) -> None:
        await request.reply(200, {}, await request.read_body(1000))

    async def do_break(self, request: Request) -> None:
        raise ZeroDivisionError("a fault of ours with /secret/path in it")

    async def do_break_late(self, request: Request) -> None:
        await request.start(200, {}, 100)
        await request.write(b"half")
        raise ZeroDivisionError("too late")

    async def do_short(self, request: Request) -> None:
        await request.start(200, {}, 100)
        await request.write(b"short")

    async def do_nothing(self, request: Request) -> None:
        pass

    async def do_inject(self, request: Request) -> None:
        await request.reply(200, {"x-amz-meta-a": "1\r\nSet-Cookie: a=b"}, b"")

    async def do_metadata(self, request: Request) -> None:
        value = request.headers["x-amz-meta-a"]
        await request.reply(200, {"x-amz-meta-a": value}, b"")

    async def do_bodiless(self, request: Request) -> None:
        await request.reply(int(request.query["status"]), {}, b"must not leave")

    async def do_stream(self, request: Request) -> None:
        await request.start(200, {})
        await request.write(b"one,")
        await request.write(b"")
        await request.write(b"two")

    async def do_answer_then_read(self, request: Request) -> None:
        await request.start(200, {}, 2)
        await request.flush()
        while await request.body.read():
            pass
        await request.write(b"ok")

    async def do_answer_without_length(self, request: Request) -> None:
        await request.body.read()

    async def do_wait(self, request: Request) -> None:
        self.entered.set()
        try:
            await self.release.wait()
            self.outcome.append("released")
        except asyncio.CancelledError:
            self.outcome.append("cancelled")
            raise
        await request.reply(200, {}, b"waited")

    async def do_flood(self, request: Request) -> None:
        piece = b"x" * 65536
        await request.start(200, {}, 1 << 40)
        try:
            while True:
                await request.write(piece)
                self.entered.set()
        except ConnectionError as error:
            self.outcome.append(str(error))
            raise
