"""Keys that keep other keys: wrapping under the master key and to the offline recovery key.

Owns the wrapped formats, each with its number first, and the text form in which a person keeps the
recovery key. Refuses what does not authenticate. Pure: randomness is handed in.

Two wrappings of every contract key lie side by side on the drives:

- under the **master key**: HKDF-SHA256(master key, info = purpose and name) is the wrapping key, so
  that a wrapped key moved to another name or purpose does not open;
- to the **recovery key**, an X25519 key pair of whose private half the appliance keeps nothing:
  an ephemeral key agreement gives the wrapping key.

Wrapping itself is AES Key Wrap with padding (RFC 5649), which needs no nonce.
Invariant: what was wrapped opens only with the right key, purpose and name, to the same bytes.

Reference: RFC 3394, RFC 5649, RFC 5869, RFC 7748.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from appliance.core.errors import InvalidInput, Refused

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 8
_MASTER_FORMAT: Final = b"\x01"
_RECOVERY_FORMAT: Final = b"\x01"
_RECOVERY_TEXT: Final = "APPLIANCE-RECOVERY-1"
_CHECK_BYTES: Final = 3
_GROUP: Final = 7


@dataclass(frozen=True, slots=True)
class MasterKey:
    """The appliance's master key. Never leaves the control role."""

    secret: bytes

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise InvalidInput(f"a master key has {KEY_BYTES} bytes, not {len(self.secret)}")

    def __repr__(self) -> str:
        """Without the secret, so that no log line can carry it."""
        return f"MasterKey({self.key_id.hex()})"

    @property
    def key_id(self) -> bytes:
        """Says which master key wrapped something, and nothing about the key."""
        return _derive(self.secret, b"appliance master key id 1")[:KEY_ID_BYTES]

    def wrap(self, secret: bytes, *, purpose: str, name: str) -> bytes:
        """``secret`` (1 byte or more) under this key, for one purpose and one name."""
        sealed = aes_key_wrap_with_padding(self._wrapping_key(purpose, name), secret)
        return _MASTER_FORMAT + self.key_id + sealed

    def unwrap(self, wrapped: bytes, *, purpose: str, name: str) -> bytes:
        """What was wrapped. Raises ``Refused`` for another master key's, purpose's or name's."""
        start = len(_MASTER_FORMAT) + KEY_ID_BYTES
        if wrapped[:1] != _MASTER_FORMAT:
            raise Refused(f"cannot open the {purpose} of {name}: unknown format; upgrade first")
        if wrapped[1:start] != self.key_id:
            raise Refused(
                f"cannot open the {purpose} of {name}: it is under master key"
                f" {wrapped[1:start].hex()}, this appliance has {self.key_id.hex()};"
                " put the right master key back"
            )
        try:
            return aes_key_unwrap_with_padding(self._wrapping_key(purpose, name), wrapped[start:])
        except (InvalidUnwrap, ValueError) as error:
            raise Refused(f"cannot open the {purpose} of {name}: it was tampered with") from error

    def _wrapping_key(self, purpose: str, name: str) -> bytes:
        # Lengths in front: no two pairs of purpose and name read the same.
        parts = [part.encode() for part in (purpose, name)]
        info = b"".join(len(part).to_bytes(2, "big") + part for part in parts)
        return _derive(self.secret, b"appliance wrapping 1" + info)


@dataclass(frozen=True, slots=True)
class RecoveryPublic:
    """The half of the recovery key that the appliance keeps: wraps, cannot open."""

    public: bytes

    def wrap(self, secret: bytes, *, purpose: str, name: str, ephemeral: bytes) -> bytes:
        """``secret`` so that only the private half opens it. ``ephemeral``: 32 fresh random
        bytes."""
        pair = X25519PrivateKey.from_private_bytes(ephemeral)
        shared = pair.exchange(X25519PublicKey.from_public_bytes(self.public))
        ours = _public_bytes(pair)
        key = _recovery_wrapping_key(shared, ours + self.public, purpose, name)
        return _RECOVERY_FORMAT + ours + aes_key_wrap_with_padding(key, secret)


@dataclass(frozen=True, slots=True)
class RecoveryPrivate:
    """The half that lies in a safe. Exists in memory while it is made, and in an emergency."""

    secret: bytes

    def __repr__(self) -> str:
        """Without the secret, so that no log line can carry it."""
        return "RecoveryPrivate()"

    @property
    def public(self) -> RecoveryPublic:
        """The other half."""
        return RecoveryPublic(_public_bytes(X25519PrivateKey.from_private_bytes(self.secret)))

    def unwrap(self, wrapped: bytes, *, purpose: str, name: str) -> bytes:
        """What was wrapped to the public half. Raises ``Refused``."""
        if wrapped[:1] != _RECOVERY_FORMAT or len(wrapped) < 1 + KEY_BYTES:
            raise Refused(f"cannot recover the {purpose} of {name}: unknown format")
        theirs, sealed = wrapped[1 : 1 + KEY_BYTES], wrapped[1 + KEY_BYTES :]
        pair = X25519PrivateKey.from_private_bytes(self.secret)
        try:
            shared = pair.exchange(X25519PublicKey.from_public_bytes(theirs))
            key = _recovery_wrapping_key(shared, theirs + self.public.public, purpose, name)
            return aes_key_unwrap_with_padding(key, sealed)
        except (InvalidUnwrap, InvalidKey, ValueError) as error:
            raise Refused(
                f"cannot recover the {purpose} of {name}: this is another recovery key"
            ) from error

    def text(self) -> str:
        """For paper: groups of letters and digits with a checksum. ``read_recovery`` reads it."""
        check = hashlib.sha256(self.secret).digest()[:_CHECK_BYTES]
        letters = base64.b32encode(self.secret + check).decode().rstrip("=")
        groups = [letters[start : start + _GROUP] for start in range(0, len(letters), _GROUP)]
        return "-".join([_RECOVERY_TEXT, *groups])


def read_recovery(text: str) -> RecoveryPrivate:
    """The key a person typed. Case, blanks and missing hyphens do not matter. Raises
    ``InvalidInput`` with what is wrong, never with the key."""
    plain = "".join(text.upper().replace("-", "").split())
    head = _RECOVERY_TEXT.replace("-", "")
    if not plain.startswith(head):
        raise InvalidInput(f"cannot read the recovery key: it begins with {_RECOVERY_TEXT}")
    letters = plain[len(head) :]
    try:
        decoded = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except binascii.Error:
        raise InvalidInput("cannot read the recovery key: letters A-Z, digits 2-7") from None
    secret, check = decoded[:KEY_BYTES], decoded[KEY_BYTES:]
    if len(secret) != KEY_BYTES or hashlib.sha256(secret).digest()[:_CHECK_BYTES] != check:
        raise InvalidInput("cannot read the recovery key: a character is wrong or missing")
    return RecoveryPrivate(secret)


def _derive(secret: bytes, info: bytes, salt: bytes | None = None) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(secret)


def _recovery_wrapping_key(shared: bytes, publics: bytes, purpose: str, name: str) -> bytes:
    parts = [part.encode() for part in (purpose, name)]
    info = b"".join(len(part).to_bytes(2, "big") + part for part in parts)
    return _derive(shared, b"appliance recovery 1" + info, salt=publics)


def _public_bytes(pair: X25519PrivateKey) -> bytes:
    raw = serialization.Encoding.Raw
    return pair.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
