"""What the engine must be told to lay out a new mirror on two empty drives.

Owns the values only; the engine's own function does the work and is handed to the manager.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class NewMember:
    """A claimed drive, mounted at ``path``."""

    drive_id: str
    serial: str
    path: Path


@dataclass(frozen=True, slots=True)
class NewMirror:
    """Everything that is decided about a mirror before it exists."""

    name: str
    mirror_id: str
    members: tuple[NewMember, ...]
    index_directory: Path
    witness_file: Path


MirrorMaker: TypeAlias = Callable[[NewMirror], None]
"""Blocking. Durable on return. Starts over when an earlier attempt was interrupted."""
