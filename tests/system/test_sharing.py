"""Grants between accounts over the real key store, and the operator's word on public access."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.development import Service, development_service
from tests.s3.refusals import refused


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two accounts of one contract, and ``tenant`` of another."""
    home = tmp_path_factory.mktemp("sharing")
    with development_service(home, accounts="main,alt,tenant") as running:
        yield running


def test_an_account_of_the_contract_can_be_let_in_and_no_other(service: Service) -> None:
    main, alt, tenant = (
        service.client(service.accounts[name]) for name in ("main", "alt", "tenant")
    )
    bucket = service.main.bucket
    main.put_object(Bucket=bucket, Key="k", Body=b"shared")
    assert refused(alt.get_object, Bucket=bucket, Key="k") == (403, "AccessDenied")
    main.put_object_acl(Bucket=bucket, Key="k", GrantRead=f"id={service.accounts['alt'].user_id}")
    assert alt.get_object(Bucket=bucket, Key="k")["Body"].read() == b"shared"
    [grant] = main.get_object_acl(Bucket=bucket, Key="k")["Grants"]
    assert grant["Grantee"]["DisplayName"] == service.accounts["alt"].display_name
    foreign = f"id={service.accounts['tenant'].user_id}"
    answer = refused(main.put_object_acl, Bucket=bucket, Key="k", GrantRead=foreign)
    assert answer == (400, "InvalidArgument")
    assert refused(tenant.get_object, Bucket=bucket, Key="k") == (403, "AccessDenied")


def test_development_allows_public_access(service: Service) -> None:
    main, nobody = service.client(), service.anonymous_client()
    bucket = service.main.bucket
    main.put_object(Bucket=bucket, Key="public", Body=b"for all", ACL="public-read")
    assert nobody.get_object(Bucket=bucket, Key="public")["Body"].read() == b"for all"


def test_without_it_nobody_opens_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPLIANCE_GATEWAY_PUBLIC_ACCESS", "false")
    with development_service(tmp_path) as service:
        main, bucket = service.client(), service.main.bucket
        answer = refused(main.put_object, Bucket=bucket, Key="k", ACL="public-read")
        assert answer == (403, "AccessDenied")
        main.put_object(Bucket=bucket, Key="k")
        answer = refused(service.anonymous_client().get_object, Bucket=bucket, Key="k")
        assert answer == (403, "AccessDenied")
