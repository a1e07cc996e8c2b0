"""Wrapped keys open with the right key, purpose and name, and with nothing else."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import InvalidInput, Refused
from appliance.core.keywrap import MasterKey, RecoveryPrivate, read_recovery

KEYS = st.binary(min_size=32, max_size=32)


@given(master=KEYS, secret=st.binary(min_size=1, max_size=200), name=st.text(max_size=30))
def test_the_master_key_opens_what_it_wrapped(master: bytes, secret: bytes, name: str) -> None:
    key = MasterKey(master)
    wrapped = key.wrap(secret, purpose="contract key", name=name)
    assert key.unwrap(wrapped, purpose="contract key", name=name) == secret
    assert secret not in wrapped or len(secret) < 4
    with pytest.raises(Refused):
        key.unwrap(wrapped, purpose="contract key", name=name + "x")
    with pytest.raises(Refused):
        key.unwrap(wrapped, purpose="secret", name=name)


@given(position=st.integers(min_value=0, max_value=48), bit=st.integers(0, 7))
def test_a_changed_bit_never_opens(position: int, bit: int) -> None:
    key = MasterKey(b"m" * 32)
    wrapped = bytearray(key.wrap(b"k" * 32, purpose="p", name="n"))
    wrapped[position] ^= 1 << bit
    with pytest.raises(Refused):
        key.unwrap(bytes(wrapped), purpose="p", name="n")


def test_another_master_key_is_named() -> None:
    wrapped = MasterKey(b"a" * 32).wrap(b"k" * 32, purpose="contract key", name="c1")
    with pytest.raises(Refused, match="put the right master key back"):
        MasterKey(b"b" * 32).unwrap(wrapped, purpose="contract key", name="c1")
    with pytest.raises(InvalidInput):
        MasterKey(b"short")


def test_a_known_wrapping_still_opens() -> None:
    """The format lies on customers' drives: this value must open for ever."""
    wrapped = bytes.fromhex(KNOWN)
    assert (
        MasterKey(bytes(range(32))).unwrap(wrapped, purpose="contract key", name="c1") == b"k" * 32
    )


KNOWN = (
    "012053e75d7220d4b2561fc4821bf7044967f18362f5357062092b0f66a4"
    "19d8b53eca980ebcfbae18cea0fbe5a717b313"
)


@given(secret=KEYS, ephemeral=KEYS, content=st.binary(min_size=1, max_size=64))
def test_the_recovery_key_opens_what_was_wrapped_to_its_public_half(
    secret: bytes, ephemeral: bytes, content: bytes
) -> None:
    private = RecoveryPrivate(secret)
    wrapped = private.public.wrap(content, purpose="p", name="n", ephemeral=ephemeral)
    assert private.unwrap(wrapped, purpose="p", name="n") == content
    with pytest.raises(Refused):
        private.unwrap(wrapped, purpose="p", name="other")
    with pytest.raises(Refused):
        RecoveryPrivate(hashlib.sha256(secret).digest()).unwrap(wrapped, purpose="p", name="n")


@given(secret=KEYS)
def test_the_paper_form_reads_back_however_it_is_typed(secret: bytes) -> None:
    text = RecoveryPrivate(secret).text()
    assert read_recovery(text).secret == secret
    assert read_recovery(text.lower().replace("-", " ")).secret == secret


@pytest.mark.parametrize("text", ["", "APPLIANCE-RECOVERY-1", "APPLIANCE-RECOVERY-1-018", "hello"])
def test_nonsense_is_no_recovery_key(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_recovery(text)


def test_a_mistyped_character_is_noticed() -> None:
    text = RecoveryPrivate(b"r" * 32).text()
    for place in range(len("APPLIANCE-RECOVERY-1-"), len(text)):
        if text[place] != "-":
            wrong = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
            with pytest.raises(InvalidInput):
                read_recovery(wrong)


def test_secrets_are_not_in_representations() -> None:
    assert "6d6d" not in repr(MasterKey(b"m" * 32))
    assert repr(RecoveryPrivate(b"r" * 32)) == "RecoveryPrivate()"
