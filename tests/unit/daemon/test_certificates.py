"""Certificates are made once, renewed in time, and follow the authority kept with the data."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from appliance.control.tls import authority
from appliance.control.tls.certificates import Certificates
from appliance.core.errors import InvalidInput, Unreachable

DAY_NS = 86_400 * 10**9


class SetClock:
    """A clock set by hand; it starts now, because OpenSSL compares with the real one."""

    def __init__(self) -> None:
        self.ns = int(datetime.datetime.now(datetime.UTC).timestamp() * 10**9)

    def now_ns(self) -> int:
        return self.ns

    def monotonic_s(self) -> float:
        return self.ns / 10**9

    def sleep_s(self, seconds: float) -> None:
        raise AssertionError("nothing here sleeps")


def _handshake(certificates: Certificates, tmp_path: Path, name: str) -> None:
    """A client that trusts ``ca.pem`` talks to a server that shows the current certificate."""
    pair = tmp_path / "pair.pem"
    pair.write_bytes(certificates.current.chain_pem + certificates.current.key_pem)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(pair)
    client_context = ssl.create_default_context(cafile=str(certificates.ca_file))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.version() in ("TLSv1.2", "TLSv1.3")


def test_every_name_of_the_service_is_trusted(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "tls", "backup.example.jp", SetClock())
    assert certificates.ensure()
    for name in (
        "s3.backup.example.jp",
        "bucket.s3.backup.example.jp",
        "localhost",
        "127.0.0.1",
        "::1",
    ):
        _handshake(certificates, tmp_path, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(certificates, tmp_path, "a.b.s3.backup.example.jp")
    for name in ("authority.pem", "server.pem"):
        assert (tmp_path / "tls" / name).stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in certificates.ca_file.read_bytes()
    assert "PRIVATE" not in repr(certificates.current)


def test_a_second_start_keeps_both_and_renewal_keeps_the_authority(tmp_path: Path) -> None:
    clock = SetClock()
    first = Certificates(tmp_path, "localhost", clock)
    assert first.ensure()
    assert not first.ensure()
    ca = first.ca_file.read_bytes()
    second = Certificates(tmp_path, "localhost", clock)
    second.ensure()
    assert second.current == first.current
    clock.ns += (authority.SERVER_DAYS - authority.RENEW_DAYS_BEFORE) * DAY_NS
    assert second.ensure()
    assert second.current != first.current
    assert second.ca_file.read_bytes() == ca
    certificate = x509.load_pem_x509_certificate(second.current.chain_pem)
    assert certificate.not_valid_after_utc.timestamp() > clock.ns / 10**9 + 300 * 86_400


def test_another_zone_or_a_broken_file_gives_a_new_server_certificate(tmp_path: Path) -> None:
    clock = SetClock()
    Certificates(tmp_path, "localhost", clock).ensure()
    moved = Certificates(tmp_path, "example.jp", clock)
    assert moved.ensure()
    assert moved.current.names[0] == "s3.example.jp"
    (tmp_path / "server.pem").write_bytes(b"rubbish")
    assert moved.ensure()
    _handshake(moved, tmp_path, "s3.example.jp")


def test_the_authority_kept_with_the_data_wins(tmp_path: Path) -> None:
    clock = SetClock()
    old = Certificates(tmp_path / "old", "localhost", clock)
    old.ensure()
    kept = old.export_authority()
    new = Certificates(tmp_path / "new", "localhost", clock)
    new.ensure()
    assert new.adopt_authority(kept)
    assert not new.adopt_authority(kept)
    assert new.ca_file.read_bytes() == old.ca_file.read_bytes()
    _handshake(new, tmp_path, "localhost")
    with pytest.raises(InvalidInput):
        new.adopt_authority(b"rubbish")


def test_a_broken_authority_is_never_replaced_silently(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path, "localhost", SetClock())
    certificates.ensure()
    (tmp_path / "authority.pem").write_bytes(b"rubbish")
    with pytest.raises(Unreachable, match="put it back from a backup"):
        certificates.ensure()
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(Unreachable, match="cannot keep certificates"):
        Certificates(blocked / "tls", "localhost", SetClock()).ensure()
