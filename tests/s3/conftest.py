"""One running front for all S3 tests, clients for its accounts, and fresh buckets.

With ``APPLIANCE_TEST_ENDPOINT=daemon`` the whole service runs in its own processes instead, as
``appliance dev`` starts it; tests that turn the simulated engine's knobs are left out then.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.development import development_service
from tests.s3.endpoint import Account, Endpoint, running_endpoint
from tests.s3.raw import RawClient

MODE_VARIABLE = "APPLIANCE_TEST_ENDPOINT"
_NAMES = itertools.count()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, visibly, what needs the simulated engine when the daemon runs."""
    if os.environ.get(MODE_VARIABLE, "process") != "daemon":
        return
    left_out = [item for item in items if "simulated" in getattr(item, "fixturenames", ())]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The front under test."""
    folder = tmp_path_factory.mktemp("endpoint")
    if os.environ.get(MODE_VARIABLE, "process") != "daemon":
        with running_endpoint(folder) as running:
            yield running
        return
    with development_service(folder, accounts="main,alt,tenant") as service:
        # The one called tenant has a contract of its own.
        others = {"tenant": "other"}
        yield Endpoint(
            endpoint=service.endpoint,
            region=service.region,
            authority=service.ca_file,
            accounts={
                others.get(name, name): Account(
                    name, each.user_id, each.display_name, each.access_key, each.secret_key
                )
                for name, each in service.accounts.items()
            },
        )


@pytest.fixture
def simulated(endpoint: Endpoint) -> Endpoint:
    """The front whose engine is the simulated one."""
    assert endpoint.engine is not None
    return endpoint


@pytest.fixture(scope="session")
def client_of(endpoint: Endpoint) -> Iterator[Callable[..., Any]]:
    """Makes boto3 clients of an account, with settings of ``botocore.config.Config``."""
    made: list[Any] = []

    def make(name: str = "main", **settings: Any) -> Any:
        client = client_for(endpoint, name, **settings)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


def client_for(endpoint: Endpoint, name: str = "main", **settings: Any) -> Any:
    """A boto3 client with default settings but for no retries; path style unless told."""
    account = endpoint.accounts[name]
    settings.setdefault("s3", {"addressing_style": "path"})
    return boto3.client(
        "s3",
        endpoint_url=endpoint.endpoint,
        region_name=endpoint.region,
        aws_access_key_id=account.access_key,
        aws_secret_access_key=account.secret_key,
        verify=str(endpoint.authority),
        config=Config(retries={"total_max_attempts": 1}, **settings),
    )


@pytest.fixture(scope="session")
def s3(client_of: Callable[..., Any]) -> Any:
    """boto3 as the main account."""
    return client_of("main")


@pytest.fixture(scope="session")
def stranger(client_of: Callable[..., Any]) -> Any:
    """boto3 as an account of another contract."""
    return client_of("other")


@pytest.fixture
def raw(endpoint: Endpoint) -> Iterator[RawClient]:
    """Signed requests of any shape, as the main account, on one connection."""
    account = endpoint.accounts["main"]
    with RawClient(endpoint.address, Path(endpoint.authority), account, endpoint.region) as client:
        yield client


@pytest.fixture
def bucket_name() -> str:
    """A name nobody used."""
    return f"test-{secrets.token_hex(4)}-{next(_NAMES)}"


@pytest.fixture
def bucket(s3: Any, bucket_name: str) -> str:
    """A fresh bucket of the main account."""
    s3.create_bucket(Bucket=bucket_name)
    return bucket_name
