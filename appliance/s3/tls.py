"""TLS of the S3 front: the certificates in use, exchanged while connections run.

Owns the server contexts: TLS 1.2 and later, forward secrecy, AEAD suites only, no compression, no
renegotiation. Refuses older clients in the handshake. Invariant: a listener's own context never
changes, so session tickets survive a change of certificates; which certificate a handshake gets
is decided in it, by the name the client asked for, so a change takes effect with the next one.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.core.errors import InvalidInput

_SUITES_TLS12: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain and its key, PEM, and the names it is for (``*.name`` for a wildcard)."""

    names: tuple[str, ...]
    chain_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        """Without the key, so that no log line can carry it."""
        return f"Certificate({self.names!r})"


class TlsContexts:
    """The certificates of a set of listeners. The first is for clients that send no name, or
    one that no certificate has."""

    def __init__(self, certificates: Sequence[Certificate]) -> None:
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._default = self._install(certificates)
        self.context: Final = _server_context()
        # A context needs some certificate; which one is used is always chosen by name below.
        _load(self.context, certificates[0])
        self.context.sni_callback = self._choose

    def replace(self, certificates: Sequence[Certificate]) -> None:
        """Use these from the next handshake on; connections that stand are not touched.

        Raises ``InvalidInput`` and changes nothing when a certificate or key cannot be used.
        """
        self._default = self._install(certificates)

    def _install(self, certificates: Sequence[Certificate]) -> ssl.SSLContext:
        if not certificates:
            raise InvalidInput("cannot serve TLS without a certificate")
        by_name: dict[str, ssl.SSLContext] = {}
        contexts = []
        for certificate in certificates:
            context = _server_context()
            _load(context, certificate)
            contexts.append(context)
            for name in certificate.names:
                by_name.setdefault(name.lower(), context)
        self._by_name = by_name
        return contexts[0]

    def _choose(self, tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        found = None
        if name is not None:
            name = name.lower().rstrip(".")
            found = self._by_name.get(name)
            if found is None:
                found = self._by_name.get(f"*.{name.partition('.')[2]}")
        tls.context = found or self._default


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES_TLS12)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Load from memory: the interface takes only paths, and a private key belongs on no disk."""
    memory = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(memory, "wb", closefd=False) as file:
            file.write(certificate.chain_pem.rstrip() + b"\n" + certificate.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{memory}")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise InvalidInput(
            f"cannot use the certificate for {', '.join(certificate.names)}: {error}"
        ) from error
    finally:
        os.close(memory)
