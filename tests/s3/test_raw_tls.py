"""TLS of the front on a socket: versions, suites, names, certificates exchanged underneath."""

from __future__ import annotations

import socket
import ssl
import warnings
from functools import cache

import pytest

from appliance.core.errors import InvalidInput
from appliance.s3.limits import FrontLimits
from appliance.s3.tls import Certificate, TlsContexts
from tests.s3.certificates import throwaway_certificates
from tests.s3.front_door import PATIENCE_S, Front, front, request_bytes, signed_request


@cache
def certificate(*names: str) -> Certificate:
    made = throwaway_certificates(names)
    return Certificate(names, made.chain_pem, made.key_pem)


def trusting() -> ssl.SSLContext:
    """A client that takes any certificate: which one came is what the tests look at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def presented(running: Front, name: str | None) -> bytes:
    """The certificate a client gets that asks for ``name``."""
    raw = socket.create_connection(("127.0.0.1", running.port), PATIENCE_S)
    with trusting().wrap_socket(raw, server_hostname=name) as connected:
        return connected.getpeercert(binary_form=True) or b""


def der(one: Certificate) -> bytes:
    first = one.chain_pem.decode().partition("-----END CERTIFICATE-----")[0]
    return ssl.PEM_cert_to_DER_cert(f"{first}-----END CERTIFICATE-----\n")


def test_requests_over_tls() -> None:
    with front(tls=TlsContexts([certificate("s3.example.test")])) as running:
        client = running.connect(trusting())
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.version() == "TLSv1.3"
        seen = client.ask(signed_request("PUT", "/bucket/key", {}, b"x" * 3_000_000)).seen
        assert (seen["secure"], seen["size"]) == (True, 3_000_000)


@pytest.mark.parametrize("name", ["s3.example.test", "console.example.test"])
def test_the_name_asked_for_decides_the_certificate(name: str) -> None:
    both = [certificate("s3.example.test"), certificate("console.example.test")]
    with front(tls=TlsContexts(both)) as running:
        assert presented(running, name) == der(certificate(name))


def test_wildcards_and_the_default() -> None:
    first, wildcard = certificate("s3.example.test"), certificate("*.s3.example.test")
    with front(tls=TlsContexts([first, wildcard])) as running:
        assert presented(running, "acme-a.s3.example.test") == der(wildcard)
        assert presented(running, "ACME-A.S3.example.test") == der(wildcard)
        assert presented(running, "a.b.s3.example.test") == der(first)
        assert presented(running, "unknown.test") == der(first)
        assert presented(running, None) == der(first)


def test_a_new_certificate_takes_effect_without_dropping_connections() -> None:
    old, new = certificate("s3.example.test"), certificate("s3.example.test", "localhost")
    tls = TlsContexts([old])
    with front(tls=tls) as running:
        standing = running.connect(trusting())
        assert standing.ask(request_bytes("GET", "/bucket/a")).seen["key"] == "a"
        tls.replace([new])
        assert presented(running, "s3.example.test") == der(new)
        assert presented(running, None) == der(new)
        assert standing.ask(request_bytes("GET", "/bucket/b")).seen["key"] == "b"


def test_sessions_are_resumed_even_across_a_new_certificate() -> None:
    tls = TlsContexts([certificate("s3.example.test")])
    with front(tls=tls) as running:
        for maximum in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting()
            context.maximum_version = maximum
            session = None
            for expected in (False, True, True):
                raw = socket.create_connection(("127.0.0.1", running.port), PATIENCE_S)
                with context.wrap_socket(
                    raw, server_hostname="s3.example.test", session=session
                ) as connected:
                    assert connected.session_reused == expected
                    # Session tickets of TLS 1.3 arrive with the first answer.
                    connected.sendall(request_bytes("GET", "/"))
                    assert connected.recv(65536).startswith(b"HTTP/1.1 200")
                    session = connected.session
                tls.replace([certificate("s3.example.test", "localhost")])


def test_only_current_versions_and_suites() -> None:
    with front(tls=TlsContexts([certificate("s3.example.test")])) as running:
        old = trusting()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            running.connect(old)
        weak = trusting()
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA256:AES128-GCM-SHA256")
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            running.connect(weak)
        good = trusting()
        good.maximum_version = ssl.TLSVersion.TLSv1_2
        client = running.connect(good)
        assert isinstance(client.socket, ssl.SSLSocket)
        suite = client.socket.cipher()
        assert suite is not None
        assert suite[0].startswith("ECDHE-")
        assert "GCM" in suite[0] or "POLY1305" in suite[0]


def test_a_handshake_that_never_comes() -> None:
    tls = TlsContexts([certificate("s3.example.test")])
    with front(tls=tls, limits=FrontLimits(handshake_s=0.3, idle_s=600)) as running:
        assert running.connect().closed()


def test_plain_http_on_the_tls_port() -> None:
    with front(tls=TlsContexts([certificate("s3.example.test")])) as running:
        client = running.connect()
        client.send(request_bytes("GET", "/"))
        assert b"HTTP/1.1 200" not in client.rest()


def test_the_cap_holds_over_tls() -> None:
    tls = TlsContexts([certificate("s3.example.test")])
    with front(tls=tls, limits=FrontLimits(connections=1)) as running:
        first = running.connect(trusting())
        assert first.ask(request_bytes("GET", "/")).status == 200
        assert running.connect(trusting()).answer().code == "SlowDown"


def test_certificates_that_cannot_be_used_change_nothing() -> None:
    good = certificate("s3.example.test")
    tls = TlsContexts([good])
    other = certificate("console.example.test")
    bad = [
        [],
        [Certificate(("a.test",), b"nonsense", b"nonsense")],
        [other, Certificate(("a.test",), good.chain_pem, other.key_pem)],
    ]
    with front(tls=tls) as running:
        for certificates in bad:
            with pytest.raises(InvalidInput):
                tls.replace(certificates)
        assert presented(running, "console.example.test") == der(good)


def test_a_key_stays_out_of_representations() -> None:
    assert "PRIVATE" not in repr(certificate("s3.example.test"))
