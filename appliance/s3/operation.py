"""What every S3 operation is given, and the few ways it answers.

Owns the shape of an operation, the settings of the front's answers, and the keeping alive of a
connection while a long operation works. Refuses nothing. Invariant: an operation answers exactly
once, or raises before it has answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

from appliance.core.errors import ApplianceError
from appliance.objects.store import ObjectStore
from appliance.s3.errors import rendered, translated
from appliance.s3.request import Request
from appliance.s3.xml import CONTENT_TYPE, DECLARATION


@dataclass(frozen=True, slots=True)
class Settings:
    """How the front answers. ``patience_s`` is how long a long operation may stay silent before its
    headers go out; then ``keep_alive_s`` passes between two bytes of white space."""

    region: str = "us-east-1"
    patience_s: float = 5.0
    keep_alive_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Context:
    """The object store, the settings, and the long operations underway.

    ``running`` outlives its requests: what a client asked for goes on when it leaves.
    """

    store: ObjectStore
    settings: Settings
    running: set[asyncio.Task[Finished]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a long operation came to: its document, and headers if they can still go out."""

    content: bytes
    headers: Mapping[str, str]


Operation: TypeAlias = Callable[[Context, Request], Awaitable[None]]

_XML_HEADERS: Final[Mapping[str, str]] = {"Content-Type": CONTENT_TYPE}


async def reply_document(
    request: Request, content: bytes, headers: Mapping[str, str] = _XML_HEADERS
) -> None:
    """Answer 200 with an XML document; ``headers`` must say so where given."""
    await request.reply(200, headers, content)


def xml_headers(more: Mapping[str, str]) -> dict[str, str]:
    """Headers of an XML answer that has others besides."""
    return {**_XML_HEADERS, **more}


async def reply_when_done(
    context: Context,
    request: Request,
    work: Coroutine[None, None, Finished],
) -> None:
    """Answer with the document and headers ``work`` comes to, however long it takes.

    Within the settings' patience the answer is an ordinary one. After it, 200 and the headers known
    by then go out, and white space keeps proxies and clients from giving up; an error then is an
    ``Error`` document inside the 200, which every SDK knows of CompleteMultipartUpload and copies.
    The work goes on when the client leaves: it was asked for.
    """
    task = asyncio.create_task(work)
    context.running.add(task)
    task.add_done_callback(partial(_retire, context.running))
    done, _ = await asyncio.wait({task}, timeout=context.settings.patience_s)
    if done:
        finished = task.result()
        await reply_document(request, finished.content, xml_headers(finished.headers))
        return
    await request.start(200, _XML_HEADERS)
    await request.write(DECLARATION.encode())
    while not task.done():
        await asyncio.wait({task}, timeout=context.settings.keep_alive_s)
        if not task.done():
            await request.write(b" ")
    await request.write(_late_content(task, request))


def _retire(running: set[asyncio.Task[Finished]], task: asyncio.Task[Finished]) -> None:
    running.discard(task)
    if not task.cancelled():
        # Asked for, so that a client that left is no "exception was never retrieved".
        task.exception()


def _late_content(task: asyncio.Task[Finished], request: Request) -> bytes:
    try:
        content = task.result().content
    except ApplianceError as error:
        refusal = translated(error)
        request.code = refusal.code
        content = rendered(
            refusal,
            resource=request.raw_path,
            request_id=request.request_id,
            host_id=request.host_id,
        )
    return content.removeprefix(DECLARATION.encode())
