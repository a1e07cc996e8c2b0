"""Measures the service and a peer on the same drives, in one run, and prints one table.

    make bench                                     ours and MinIO, written to docs/PERFORMANCE.md
    python -m tests.bench --endpoint HOST:PORT --access-key K --secret-key S --peers DIR

PEERS is a directory with ``warp.xz`` and ``minio.xz``, or the unpacked programs. Root is needed for
the loop drives. Only ratios within one run mean something: load generator and server share the
machine.
"""

from __future__ import annotations

import argparse
import lzma
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from tests.bench.drives import two_drives
from tests.bench.load import Load
from tests.bench.report import Figures, table, write_performance
from tests.bench.targets import Endpoint, appliance, peer
from tests.development import PROJECT

DRIVE_BYTES: Final = 24 * 10**9
PEERS: Final = Path(os.environ.get("PEERS", PROJECT.parent / "shared" / "peers"))
Start = Callable[[Path, Sequence[Path]], AbstractContextManager[Endpoint]]


def main() -> int:
    """Measure, print, and write what was asked for."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.scratch) as name:
        home = Path(name)
        warp = unpack(options.peers, "warp", home)
        results: list[Figures] = []
        if options.endpoint:
            end = Endpoint(
                "endpoint", options.endpoint, options.access_key, options.secret_key,
                options.region, None, 0.0,
            )  # fmt: skip
            results.append(_measure(Load(warp, end, (), home), options.duration))
        else:
            minio = unpack(options.peers, "minio", home)
            starts: dict[str, Start] = {
                "appliance": appliance,
                "minio": lambda place, drives: peer(place, drives, minio),
            }
            for each in options.only or starts:
                results.append(_on_fresh_drives(starts[each], warp, home / each, options))
        print(table(results))
        if options.write:
            write_performance(results, options.duration)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--duration", type=int, default=20, help="seconds per measurement")
    parser.add_argument("--only", action="append", choices=("appliance", "minio"))
    parser.add_argument("--write", action="store_true", help="write docs/PERFORMANCE.md")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--endpoint", help="HOST:PORT of a server that runs already")
    parser.add_argument("--access-key", default="")
    parser.add_argument("--secret-key", default="")
    parser.add_argument("--region", default="us-east-1")
    return parser.parse_args()


def _on_fresh_drives(start: Start, warp: Path, home: Path, options: argparse.Namespace) -> Figures:
    home.mkdir()
    with two_drives(home / "drives", DRIVE_BYTES) as drives:
        mounts = [drive.mount for drive in drives]
        with start(home, mounts) as endpoint:
            print(f"measuring {endpoint.name} ...", file=sys.stderr, flush=True)
            return _measure(Load(warp, endpoint, drives, home), options.duration)


def _measure(load: Load, duration_s: int) -> Figures:
    """The fixed programme: small objects first, while the server is fresh, then large ones."""
    resting = load.endpoint.resident_bytes()
    samples = {
        "4 KiB PUT, 32 connections": load.put("4KiB", 32, duration_s, "bench-small"),
        "4 KiB GET, 32 connections": load.get("4KiB", 32, duration_s, "bench-small"),
        "LIST of 10,000 keys, 4 connections": load.list(4, duration_s, "bench-list"),
        "64 MiB PUT, 4 connections": load.put("64MiB", 4, duration_s, "bench-large"),
        "64 MiB GET, 4 connections": load.get("64MiB", 4, duration_s, "bench-large"),
    }
    return Figures(
        load.endpoint.name, samples, load.endpoint.start_s, resting, load.endpoint.resident_bytes()
    )


def unpack(peers: Path, name: str, home: Path) -> Path:
    """The program itself, unpacked into ``home`` if it is only there as .xz."""
    ready, packed = peers / name, peers / f"{name}.xz"
    if ready.exists():
        return ready
    if not packed.exists():
        raise SystemExit(f"cannot measure: neither {ready} nor {packed} exists; set PEERS=DIR")
    target = home / name
    with lzma.open(packed) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
    target.chmod(0o755)
    return target


if __name__ == "__main__":
    sys.exit(main())
