"""First things of a new appliance: its master key and its offline recovery key.

Owns making both, once. Refuses to make a master key where one is. The private half of the recovery
key exists only in the answer of ``make_keys``: it is printed and never stored.
Invariant: a master key exists only where a recovery key was made before it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from appliance.control.keys.files import (
    read_recovery_public,
    write_master_key,
    write_recovery_public,
)
from appliance.core.errors import InvalidInput, Refused
from appliance.core.keywrap import KEY_BYTES, MasterKey, RecoveryPrivate, read_recovery
from appliance.core.ports import Entropy
from appliance.daemon.config import Config
from appliance.daemon.directories import make_directory

TRIES: Final = 3


def master_key_file(config: Config) -> Path:
    """Where the master key lies unless systemd hands it over."""
    return config.paths.state / "master.key"


def recovery_file(config: Config) -> Path:
    """Where the recovery key's public half lies until the drives hold it."""
    return config.paths.state / "recovery.public"


def mirrors_directory(config: Config) -> Path:
    """Where the index and the witness of every mirror lie."""
    return config.paths.state / "mirrors"


def make_keys(config: Config, entropy: Entropy) -> RecoveryPrivate | None:
    """Make both keys unless they are there; the private recovery key when it was made now.

    Crash points: (1) public recovery key written (2) master key written. After 1 alone a new
    recovery key replaces the one that was perhaps never read: nothing was wrapped to it. Raises
    ``Refused`` where there are mirrors: what they hold is under a key that was there.
    """
    master_file, public_file = master_key_file(config), recovery_file(config)
    if master_file.exists():
        return None
    mirrors = mirrors_directory(config)
    if mirrors.is_dir() and any(mirrors.iterdir()):
        raise Refused(
            f"cannot make a master key: {mirrors} is of an appliance that had one; put its"
            f" {master_file} back"
        )
    if read_recovery_public(public_file) is not None:
        public_file.unlink()
    private = RecoveryPrivate(entropy.token(KEY_BYTES))
    write_recovery_public(public_file, private.public)
    write_master_key(master_file, MasterKey(entropy.token(KEY_BYTES)))
    return private


def run_setup(config: Config, entropy: Entropy) -> None:
    """The ``setup`` command: make the keys, print the recovery key, have it typed back."""
    make_directory(config.paths.state, 0o755)
    private = make_keys(config, entropy)
    if private is None:
        _say(f"This appliance is set up: {master_key_file(config)} is there.")
        return
    _say(recovery_notice(private))
    if not sys.stdin.isatty():
        return
    for _ in range(TRIES):
        try:
            if read_recovery(input("Type the recovery key: ")) == private:
                _say("Right. Keep it where a fire in this room does not reach it.")
                return
            _say("That is another key.")
        except InvalidInput as error:
            _say(str(error))
    # Nothing is encrypted yet: an unproven key is worth nothing and is taken back.
    master_key_file(config).unlink()
    recovery_file(config).unlink()
    raise Refused("the recovery key was not typed back: nothing was set up; run setup again")


def recovery_notice(private: RecoveryPrivate) -> str:
    """The recovery key with what to do about it."""
    return (
        "Recovery key (shown once, stored nowhere). With it and the drives all data can be read"
        "\nwithout this machine; without it a lost master key is lost data. Write it down:\n\n"
        f"  {private.text()}\n"
    )


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command's output
