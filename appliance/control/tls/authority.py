"""Making certificates: a private authority and the server certificates it signs.

Owns what goes into them. P-256 throughout; the authority may sign server certificates only, never
another authority. Refuses nothing: callers decide when. Pure but for the keys' own randomness.

Reference: RFC 5280; CA/Browser Forum Baseline Requirements for lifetimes and names.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.core.errors import InvalidInput

AUTHORITY_DAYS: Final = 3650
SERVER_DAYS: Final = 397
"""Apple's systems refuse more than 398 even from private authorities of their users' choice."""
RENEW_DAYS_BEFORE: Final = 60
_CLOCK_SKEW: Final = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        """Public."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """Secret, PKCS#8, not encrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def pem(self) -> bytes:
        """Key and certificate in one text."""
        return self.key_pem() + self.certificate_pem()


def read_identity(pem: bytes) -> Identity:
    """What ``Identity.pem`` wrote. Raises ``InvalidInput``."""
    try:
        key = serialization.load_pem_private_key(pem, None)
        certificate = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERT") :])
    except (ValueError, TypeError) as error:
        raise InvalidInput("not a certificate with its key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput("the key is not one of an elliptic curve")
    if key.public_key() != certificate.public_key():
        raise InvalidInput("the key belongs to another certificate")
    return Identity(certificate, key)


def new_authority(zone: str, now: datetime.datetime) -> Identity:
    """A self-signed authority that may sign server certificates only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Storage appliance CA for {zone}"[:64])
    certificate = (
        _builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Identity(certificate, key)


def new_server(authority: Identity, names: Sequence[str], now: datetime.datetime) -> Identity:
    """A server certificate for host names, wildcards and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(_name(names[0][:64]), issuer.subject, key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName(list(map(_general, names))), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Identity(certificate, key)


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names and addresses a certificate is for, in its order."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(each.value) for each in found.value)


def is_due(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    """Whether it must be renewed, or is not valid yet: the clock was wrong when it was made."""
    renew_at = certificate.not_valid_after_utc - datetime.timedelta(days=RENEW_DAYS_BEFORE)
    return now >= renew_at or now < certificate.not_valid_before_utc


def is_signed_by(certificate: x509.Certificate, authority: Identity) -> bool:
    """Whether that authority's key signed it."""
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days) - _CLOCK_SKEW)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
