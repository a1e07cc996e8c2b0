"""Keeping a connection alive while a long operation works."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from xml.etree.ElementTree import fromstring

import pytest

from appliance.core.errors import NoSpace, S3Error
from appliance.s3.operation import Context, Finished, Settings, reply_when_done
from appliance.s3.xml import document
from tests.unit.s3.asking import ask

PATIENT = Settings(patience_s=20.0, keep_alive_s=20.0)
IMPATIENT = Settings(patience_s=0.0, keep_alive_s=0.001)
DONE = Finished(document("Result", "<ETag>e</ETag>"), {"x-amz-version-id": "v"})


def context(settings: Settings) -> Context:
    return Context(cast(Any, None), settings)


def test_what_is_done_soon_is_an_ordinary_answer() -> None:
    async def work() -> Finished:
        return DONE

    async def run() -> None:
        request, answer = ask("POST", "/b/k")
        made = context(PATIENT)
        await reply_when_done(made, request, work())
        assert (answer.status, answer.length) == (200, len(DONE.content))
        assert answer.headers["x-amz-version-id"] == "v"
        assert answer.headers["Content-Type"] == "application/xml"
        assert answer.body == DONE.content
        assert not made.running

    asyncio.run(run())


def test_what_fails_soon_is_an_ordinary_refusal() -> None:
    async def work() -> Finished:
        raise S3Error("InvalidPart")

    async def run() -> None:
        request, answer = ask("POST", "/b/k")
        with pytest.raises(S3Error):
            await reply_when_done(context(PATIENT), request, work())
        assert not request.started
        assert answer.status == 0

    asyncio.run(run())


def test_white_space_keeps_a_long_one_alive() -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def work() -> Finished:
            await gate.wait()
            return DONE

        request, answer = ask("POST", "/b/k")
        answering = asyncio.create_task(reply_when_done(context(IMPATIENT), request, work()))
        while answer.writes < 5:
            answer.changed.clear()
            await answer.changed.wait()
        assert not answering.done()
        gate.set()
        await answering
        await request.finish()
        assert (answer.status, answer.length, answer.ended) == (200, None, True)
        assert answer.body.startswith(b"<?xml")
        assert answer.body.count(b"<?xml") == 1
        root = fromstring(answer.body)
        assert root.tag.endswith("}Result")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "code"),
    [(S3Error("InvalidPart"), "InvalidPart"), (NoSpace("full"), "ServiceUnavailable")],
)
def test_a_late_failure_is_an_error_document(error: Exception, code: str) -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def work() -> Finished:
            await gate.wait()
            raise error

        request, answer = ask("POST", "/b/k")
        answering = asyncio.create_task(reply_when_done(context(IMPATIENT), request, work()))
        await answer.changed.wait()
        gate.set()
        await answering
        assert answer.status == 200
        assert fromstring(answer.body).findtext("Code") == code
        assert request.code == code

    asyncio.run(run())


def test_the_work_goes_on_when_the_client_leaves() -> None:
    async def run() -> None:
        begun, gate, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def work() -> Finished:
            begun.set()
            await gate.wait()
            finished.set()
            return DONE

        made = context(PATIENT)
        request, _ = ask("POST", "/b/k")
        answering = asyncio.create_task(reply_when_done(made, request, work()))
        await begun.wait()
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
        assert len(made.running) == 1
        gate.set()
        await finished.wait()
        await asyncio.gather(*made.running)
        assert not made.running

    asyncio.run(run())
