"""A large upload is half staged on both drives when a process ends, or all of them do: on real XFS
with the whole appliance. Nothing of it may be orphaned for ever."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from random import Random
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.system.drives import until
from tests.system.workbench import Workbench, workbench

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("mkfs.xfs", "losetup")]
BODY_BYTES: Final = 24_000_000
HALF_BYTES: Final = BODY_BYTES // 2
ATTEMPTS: Final = 5
SWEPT_S: Final = 60.0


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    with workbench(tmp_path_factory.mktemp("staged")) as made:
        yield made


class Upload:
    """One PUT of a known length, sent piece by piece."""

    def __init__(self, bench: Workbench, key: str, body: bytes) -> None:
        where = {"Bucket": bench.bucket, "Key": key}
        signing = bench.machine.client(bench.account, signature_version="s3v4")
        url = urlsplit(signing.generate_presigned_url("put_object", Params=where))
        trust = ssl.create_default_context(cafile=bench.machine.status()["ca_file"])
        assert url.hostname is not None
        self._connection = http.client.HTTPSConnection(
            url.hostname, url.port, context=trust, timeout=60
        )
        self._connection.putrequest("PUT", f"{url.path}?{url.query}")
        self._connection.putheader("Content-Length", str(len(body)))
        self._connection.endheaders()
        self._body = body

    def send(self, begin: int, end: int) -> None:
        """A piece of the body."""
        self._connection.send(self._body[begin:end])

    def status(self) -> int:
        """The answer's, the last of it all. Raises ``OSError`` or ``HTTPException`` when there is
        none."""
        try:
            with self._connection.getresponse() as answer:
                answer.read()
                return answer.status
        finally:
            self.close()

    def close(self) -> None:
        """The customer is gone. Idempotent."""
        self._connection.close()


def _staged(bench: Workbench) -> list[int]:
    """Bytes of uploads under way, by drive."""
    return [
        sum(path.stat().st_blocks * 512 for path in (root / "staging").rglob("*") if path.is_file())
        for root in bench.roots
    ]


def _half_sent(bench: Workbench, key: str, body: bytes) -> Upload:
    """Half of it is on both drives, and no record knows of it."""
    upload = Upload(bench, key, body)
    try:
        upload.send(0, HALF_BYTES)
        until(lambda: min(_staged(bench)) > 1_000_000, "bytes staged on both drives")
    except BaseException:
        upload.close()
        raise
    return upload


def _swept(bench: Workbench) -> None:
    """Nothing is left of any upload, and both drives hold the same blobs."""
    until(lambda: _staged(bench) == [0, 0], "empty staging", deadline_s=SWEPT_S)
    blobs = [
        sorted(path.name for path in (root / "blob").rglob("*") if path.is_file())
        for root in bench.roots
    ]
    assert blobs[0] == blobs[1]


@pytest.mark.parametrize("crash", [False, True], ids=["in good order", "by SIGKILL"])
def test_the_store_is_restarted_while_an_upload_is_staged(bench: Workbench, crash: bool) -> None:
    key, body = f"over a restart {crash}", Random(crash).randbytes(BODY_BYTES)
    upload = _half_sent(bench, key, body)
    bench.restart("store", "m0", crash=crash)
    upload.send(HALF_BYTES, BODY_BYTES)
    answers = [upload.status()]
    while answers[-1] == 503 and len(answers) < ATTEMPTS:
        again = Upload(bench, key, body)
        again.send(0, BODY_BYTES)
        answers.append(again.status())
    print(f"answers: {answers}")
    assert answers[-1] == 200, answers
    bench.stored[key] = body
    bench.becomes("in sync")
    bench.check()
    _swept(bench)


def test_a_gateway_dies_while_an_upload_is_staged(bench: Workbench) -> None:
    upload = _half_sent(bench, "never whole", bytes(BODY_BYTES))
    bench.restart("gateway", "0", crash=True)
    with pytest.raises((OSError, http.client.HTTPException)):
        upload.status()
    _swept(bench)
    until(bench.machine.serves, "the gateway to be back")
    bench.check()


def test_everything_ends_while_an_upload_is_staged(bench: Workbench) -> None:
    """A staged blob that no record knows of."""
    upload = _half_sent(bench, "never whole", bytes(BODY_BYTES))
    bench.power_cut()
    upload.close()
    assert min(_staged(bench)) > 0
    bench.start("a", "b")
    bench.becomes("in sync")
    _swept(bench)
    until(bench.machine.serves, "the appliance to serve")
    bench.check()
