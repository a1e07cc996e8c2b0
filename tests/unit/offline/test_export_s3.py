"""What another endpoint says of its buckets, and what an export makes of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from appliance.core.errors import Refused
from appliance.daemon.export_s3 import ExportS3
from appliance.objects.export import StoredBucket
from appliance.system.remote_s3 import Answer, RemoteS3


@dataclass
class Endpoint:
    """Answers a PUT of any bucket alike; there is none that it shows."""

    status: int
    code: str = ""
    asked: list[str] = field(default_factory=list)

    async def ask(self, method: str, path: str, *, allowed: frozenset[int]) -> Answer:
        self.asked.append(f"{method} {path}")
        if method == "HEAD":
            return Answer(404, {}, "")
        assert self.status == 200 or self.status in allowed
        return Answer(self.status, {}, f"<Error><Code>{self.code}</Code></Error>")


def _make(endpoint: Endpoint) -> None:
    target = ExportS3(cast("RemoteS3", endpoint), "", "")
    bucket = cast("Any", StoredBucket)("c1", "acme-a", None)
    asyncio.run(target.bucket(bucket))


@pytest.mark.parametrize(("status", "code"), [(200, ""), (409, "BucketAlreadyOwnedByYou")])
def test_a_bucket_of_ours_is_made_or_there(status: int, code: str) -> None:
    endpoint = Endpoint(status, code)
    _make(endpoint)
    assert endpoint.asked == ["HEAD /acme-a", "PUT /acme-a"]


def test_nothing_goes_into_the_bucket_of_somebody_else() -> None:
    with pytest.raises(Refused, match="belongs to somebody else"):
        _make(Endpoint(409, "BucketAlreadyExists"))
