"""Contracts, accounts and access keys: what they are and what they may be called.

Owns their values, their record keys and their record formats (MessagePack arrays, the format number
first). Refuses names that could not stand in a bucket's name, and formats it does not know. Pure.
Invariant: what is decoded encodes to the same bytes.

Record keys, all in the system partition:

==========================  ==========================================
``contract/<id>``            a contract; its id is also its partition
``contract-name/<name>``     which contract has the name
``contract-key/<id>``        the contract's wrapped key
``account/<user id>``        an account
``account-name/<name>``      which account has the name
``access-key/<id>``          an access key and its sealed secret
``recovery-key``             the public half of the offline recovery key
``master-key/<key id>``      a master key, wrapped to the recovery key
==========================  ==========================================
"""

from __future__ import annotations

import base64
import enum
import re
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from appliance.core.errors import DataLost, InvalidInput

FORMAT: Final = 1
NAME_MAX: Final = 40
CONTRACT_ID_BYTES: Final = 8
USER_ID_BYTES: Final = 32
ACCESS_KEY_BYTES: Final = 10
SECRET_BYTES: Final = 30
BUCKET_SUFFIX_BYTES: Final = 3
_ACCESS_KEY_PREFIX: Final = "APPL"
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")

CONTRACT: Final = b"contract/"
CONTRACT_NAME: Final = b"contract-name/"
CONTRACT_KEY: Final = b"contract-key/"
ACCOUNT: Final = b"account/"
ACCOUNT_NAME: Final = b"account-name/"
ACCESS_KEY: Final = b"access-key/"
RECOVERY_KEY: Final = b"recovery-key"
MASTER_KEY: Final = b"master-key/"


class ContractState(enum.IntEnum):
    """Where a contract is in its life. Stored numbers; never renumber."""

    ACTIVE = 1


@dataclass(frozen=True, slots=True)
class Contract:
    """A customer's contract. ``bucket_prefix`` begins every bucket name; empty for none."""

    contract_id: str
    name: str
    bucket_prefix: str
    created_ns: int
    state: ContractState = ContractState.ACTIVE

    def encode(self) -> bytes:
        """The value of ``contract/<id>``."""
        return _pack(
            self.contract_id, self.name, self.bucket_prefix, self.created_ns, int(self.state)
        )

    @classmethod
    def decode(cls, value: bytes) -> Contract:
        """Raises ``DataLost`` for a format it does not know."""
        contract_id, name, prefix, created_ns, state = _unpack(value, "contract")
        return cls(contract_id, name, prefix, created_ns, ContractState(state))


@dataclass(frozen=True, slots=True)
class Account:
    """An S3 user of a contract. ``bucket`` is its first one; ``settled`` once that exists."""

    user_id: str
    name: str
    display_name: str
    contract_id: str
    bucket: str
    access_keys: tuple[str, ...]
    created_ns: int
    settled: bool = False
    frozen: bool = False

    def encode(self) -> bytes:
        """The value of ``account/<user id>``."""
        return _pack(
            self.user_id,
            self.name,
            self.display_name,
            self.contract_id,
            self.bucket,
            self.access_keys,
            self.created_ns,
            self.settled,
            self.frozen,
        )

    @classmethod
    def decode(cls, value: bytes) -> Account:
        """Raises ``DataLost`` for a format it does not know."""
        user_id, name, display, contract, bucket, keys, created_ns, settled, frozen = _unpack(
            value, "account"
        )
        return cls(
            user_id, name, display, contract, bucket, tuple(keys), created_ns, settled, frozen
        )


@dataclass(frozen=True, slots=True)
class AccessKey:
    """One pair of keys. ``sealed_secret`` opens with the master key only."""

    access_key: str
    user_id: str
    sealed_secret: bytes
    created_ns: int
    revoked: bool = False

    def encode(self) -> bytes:
        """The value of ``access-key/<id>``."""
        return _pack(
            self.access_key, self.user_id, self.sealed_secret, self.created_ns, self.revoked
        )

    @classmethod
    def decode(cls, value: bytes) -> AccessKey:
        """Raises ``DataLost`` for a format it does not know."""
        return cls(*_unpack(value, "access key"))


@dataclass(frozen=True, slots=True)
class WrappedContractKey:
    """A contract's key as it lies on the drives: under the master key, and to the recovery key."""

    under_master: bytes
    to_recovery: bytes

    def encode(self) -> bytes:
        """The value of ``contract-key/<id>``."""
        return _pack(self.under_master, self.to_recovery)

    @classmethod
    def decode(cls, value: bytes) -> WrappedContractKey:
        """Raises ``DataLost`` for a format it does not know."""
        return cls(*_unpack(value, "contract key"))


def check_name(name: str, what: str) -> None:
    """Raises ``InvalidInput`` unless ``name`` may name an account or contract: it becomes part of
    bucket names."""
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"cannot name the {what} {name!r}: names have 1 to {NAME_MAX} lower-case letters,"
            " digits and hyphens, no hyphen at the ends"
        )


def access_key_id(token: bytes) -> str:
    """Twenty upper-case characters, as client software expects."""
    assert len(token) == ACCESS_KEY_BYTES
    return _ACCESS_KEY_PREFIX + base64.b32encode(token).decode("ascii")


def secret_key(token: bytes) -> str:
    """Forty characters without any that a shell, a URL or a configuration file would mind."""
    assert len(token) == SECRET_BYTES
    return base64.b64encode(token, altchars=b"xX").decode("ascii")


def record_key(kind: bytes, name: str) -> bytes:
    """Where a record of one of the kinds above is."""
    return kind + name.encode()


def _pack(*fields: object) -> bytes:
    packed: bytes = msgpack.packb([FORMAT, *fields])
    return packed


def _unpack(value: bytes, what: str) -> list[Any]:
    fields: list[Any] = msgpack.unpackb(value)
    if not fields or fields[0] != FORMAT:
        raise DataLost(f"cannot read a record of a {what}: its format is newer; upgrade first")
    return fields[1:]
