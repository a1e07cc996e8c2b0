"""Settings of the C library's heap, seen in a process of their own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, threading
from appliance.runtime.heap import settle_heap
settle_heap()
held = [threading.Thread(target=lambda: bytearray(300_000)) for _ in range(8)]
for thread in held: thread.start()
for thread in held: thread.join()
ctypes.CDLL(None).malloc_stats()
"""


def test_threads_share_two_heaps() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert 1 <= done.stderr.count("Arena ") <= 2, done.stderr
