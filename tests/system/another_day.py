"""The appliance's roles under a wall clock that a test sets: ``python -m tests.system.another_day``
instead of ``appliance.daemon``. The file ``clock`` beside the configuration holds the seconds by
which it is ahead; it may change at any moment."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from appliance.daemon.__main__ import main
from appliance.runtime.clock import SystemClock


def clock_file(home: Path) -> Path:
    """Where the seconds stand."""
    return home / "clock"


def set_clock(home: Path, ahead_s: int) -> None:
    """Somebody sets the machine's clock."""
    fresh = home / "clock.new"
    fresh.write_text(str(ahead_s))
    os.replace(fresh, clock_file(home))


def put_on(file: Path) -> None:
    """The clock of this process is the one that the file says."""

    def now_ns(_clock: SystemClock) -> int:
        return time.time_ns() + int(file.read_text()) * 1_000_000_000

    SystemClock.now_ns = now_ns  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    put_on(clock_file(Path(sys.argv[sys.argv.index("--config") + 1]).parent))
    sys.exit(main(sys.argv[1:]))
