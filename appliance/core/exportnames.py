"""How an object's key becomes a path of a file system, and back.

Owns the naming of exported objects. A key is cut at its slashes; each piece becomes a directory,
the last one the file, and what a file system cannot hold is written with a percent sign:

==============================  ==========================================================
in the key                      in the path
==============================  ==========================================================
``%``, control characters, DEL  ``%`` and two hexadecimal digits, byte by byte
a piece that is ``.`` or ``..``  ``%2E``, ``%2E%2E``
an empty piece                  ``%_`` (so ``a/`` is ``a/%_``, and ``//`` is ``%_/%_/%_``)
a key that is also a folder     ``%=`` behind its name (``a`` beside ``a/b`` is ``a%=``)
a piece longer than 240 bytes   cut; every part but the last ends with ``%+``
==============================  ==========================================================

All else stands as it is, in UTF-8. Refuses nothing: every key has a path. Invariant: two keys never
share a path, no path leads out of its directory, no name is longer than 255 bytes, and
``key_of_path`` gives the key again. Pure.
"""

from __future__ import annotations

from typing import Final

NAME_BYTES_MAX: Final = 240
_EMPTY: Final = "%_"
_ITSELF: Final = "%="
_GOES_ON: Final = "%+"


def path_of_key(key: str, *, is_folder: bool) -> str:
    """The path of a key, ``/`` separated. ``is_folder``: other keys begin with it and a slash."""
    names: list[str] = []
    for piece in key.split("/"):
        names += _names(piece)
    if is_folder:
        names[-1] += _ITSELF
    return "/".join(names)


def key_of_path(path: str) -> str:
    """Inverse of ``path_of_key``."""
    pieces: list[str] = []
    begun = ""
    for name in path.removesuffix(_ITSELF).split("/"):
        if name.endswith(_GOES_ON):
            begun += name.removesuffix(_GOES_ON)
            continue
        pieces.append(_plain(begun + name))
        begun = ""
    return "/".join(pieces)


def _names(piece: str) -> list[str]:
    """The names one piece between slashes becomes."""
    if not piece:
        return [_EMPTY]
    if piece in {".", ".."}:
        return ["%2E" * len(piece)]
    names, name, size_bytes = [], "", 0
    for character in piece:
        written = _written(character)
        length = len(written.encode())
        if size_bytes + length > NAME_BYTES_MAX:
            names.append(name + _GOES_ON)
            name, size_bytes = "", 0
        name += written
        size_bytes += length
    return [*names, name]


def _written(character: str) -> str:
    if character == "%" or ord(character) < 0x20 or ord(character) == 0x7F:
        return f"%{ord(character):02X}"
    return character


def _plain(name: str) -> str:
    if name == _EMPTY:
        return ""
    first, *rest = name.split("%")
    return first + "".join(chr(int(part[:2], 16)) + part[2:] for part in rest)
