"""A real tree of files with names that clients get wrong, made from a seed."""

from __future__ import annotations

import os
import random
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SMALL_FILES: Final = 20_000
MIDDLE_FILES: Final = 12
LARGE_BYTES: Final = 1_100_000_000
PIECE_BYTES: Final = 8 * 1024 * 1024
ODD_NAMES: Final = (
    "two words.txt",
    " leading and trailing ",
    "plus+sign+.txt",
    "percent%41%zz%.txt",
    "hash#question?ampersand&equals=.txt",
    "quote'double\"back`tick.txt",
    "tilde~star(1)[2]{3}!$,;@^.txt",
    "colon:semi;pipe|.txt",
    unicodedata.normalize("NFC", "が café ü.txt"),
    unicodedata.normalize("NFD", "が café ü.txt"),
    "日本語のファイル名.txt",
    "emoji 🗄️.bin",
    "..dots..",
    "...",
    "-dash-first",
    "UPPER.txt",
    "upper.txt",
    "x" * 200,
)
EMPTY_NAMES: Final = ("empty", "empty file.txt", "空.txt")


def build(root: Path, seed: int) -> None:
    """Fill ``root``: over 20,000 files and 1.2 GB, one above 1 GB, odd and empty ones."""
    chance = random.Random(seed)
    for number in range(SMALL_FILES):
        folder = root / f"dir {number % 40:02d}" / f"sub+{number % 7}"
        if number < 40 * 7:
            folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file-{number:05d}.dat").write_bytes(chance.randbytes(chance.randrange(6000)))
    odd = root / "odd %names+"
    odd.mkdir()
    for name in ODD_NAMES:
        (odd / name).write_bytes(chance.randbytes(chance.randrange(1, 3000)))
    for name in EMPTY_NAMES:
        (odd / name).write_bytes(b"")
    middle = root / "middle"
    middle.mkdir()
    for number in range(MIDDLE_FILES):
        size = chance.randrange(200_000, 20_000_000)
        (middle / f"{number}.bin").write_bytes(chance.randbytes(size))
    with (root / "large.bin").open("wb") as file:
        for _ in range(LARGE_BYTES // PIECE_BYTES + 1):
            file.write(chance.randbytes(PIECE_BYTES))


def change(root: Path, seed: int) -> None:
    """What a day does to it: some files new, some changed, some gone."""
    chance = random.Random(seed)
    known = sorted(root.glob("dir */**/*.dat"))
    for path in chance.sample(known, 300):
        path.write_bytes(chance.randbytes(2000))
    for path in chance.sample(known, 100):
        path.unlink(missing_ok=True)
    for number in range(100):
        (root / "middle" / f"new {number}").write_bytes(chance.randbytes(5000))


def files(root: Path) -> Iterator[Path]:
    """Every regular file below ``root``."""
    for folder, _, names in os.walk(root):
        for name in names:
            yield Path(folder) / name


def assert_same(left: Path, right: Path) -> None:
    """``diff -r`` finds nothing: same names, same bytes."""
    done = subprocess.run(["diff", "-r", str(left), str(right)], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")
