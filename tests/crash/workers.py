"""Workers: many seeds explored by processes that are begun anew every few seeds.

Owns the handing out of seeds, what is known so far, the progress shown, and the place where the
first failure is kept. Invariant: the seeds that count are those from the first one on, without a
gap but for those under way, whatever the number of workers, so a failure is found again by its seed
alone.
"""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from tests.crash.tally import Tally
from tests.crash.visits import Broken

SEEDS_EACH: Final = 8
"""That one process explores."""
PATIENCE_S: Final = 1800.0
"""For so few seeds: a process that takes longer hangs, and has found something."""
SHOWN_EACH_S: Final = 30.0
"""Between two lines of progress, where they cannot be written one over the other."""
FAILURES: Final = Path(__file__).parents[2] / "var" / "crash-failures"


class Crowd:
    """Explores until there are so many states, or one in which a promise is broken."""

    def __init__(self, workers: int, *, states: int, show: bool = False) -> None:
        self.tally: Final = Tally()
        """Of all that was explored so far."""
        self._workers = workers
        self._states = states
        self._show = show
        self._lock = threading.Lock()
        self._next_seed = 0
        self._running: set[subprocess.Popen[str]] = set()
        self._trouble: list[str] = []
        self._stopping = False

    def run(self, first_seed: int) -> None:
        """Raises ``Broken``, ``KeyboardInterrupt``. May be called again with other seeds and goes
        on counting: until then there must be ``states`` more."""
        self._next_seed = first_seed
        kept = Path(tempfile.mkdtemp(prefix="tallies-"))
        goal = self.tally.states + self._states
        threads = [
            threading.Thread(target=self._work, args=(kept, goal), name=f"worker {number}")
            for number in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        try:
            self._watch(threads, goal)
        finally:
            self._stop()
            for thread in threads:
                thread.join()
            self._stopping = False
            shutil.rmtree(kept)
        if self._trouble:
            raise Broken(self._keep(self._trouble[0]))
        self.tally.check_distinct()

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            for process in self._running:
                process.kill()

    def _begin(self, kept: Path, goal: int) -> tuple[int, subprocess.Popen[str]] | None:
        with self._lock:
            if self._stopping or self._trouble or self.tally.states >= goal:
                return None
            seed = self._next_seed
            self._next_seed += SEEDS_EACH
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.crash.explore", "--seed", str(seed)),
                    *("--episodes", str(SEEDS_EACH), "--tally", str(kept / str(seed))),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # a Ctrl-C is for us; we tell them
            )
            self._running.add(process)
            return seed, process

    def _work(self, kept: Path, goal: int) -> None:
        while (begun := self._begin(kept, goal)) is not None:
            seed, process = begun
            try:
                _, trouble = process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                trouble = f"no end within {PATIENCE_S:.0f} s"
            with self._lock:
                self._running.discard(process)
                if self._stopping:
                    return
                if process.returncode:
                    self._trouble.append(_told(seed, process.returncode, trouble))
                    return
                place = kept / str(seed)
                self.tally.merge(pickle.loads(place.read_bytes()))
                place.unlink()

    # -- what is shown and kept ------------------------------------------------------------------

    def _watch(self, threads: list[threading.Thread], goal: int) -> None:
        began, before, shown = time.monotonic(), self.tally.states, 0.0
        over = sys.stderr.isatty()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.5)
            if self._trouble:
                self._stop()
            now = time.monotonic()
            if self._show and (over or now - shown > SHOWN_EACH_S):
                shown = now
                line = _progress(self.tally.states - before, goal - before, now - began)
                print(f"\r{line}" if over else line, end="" if over else "\n", file=sys.stderr)
        if self._show and over:
            print(file=sys.stderr)

    def _keep(self, trouble: str) -> str:
        FAILURES.mkdir(parents=True, exist_ok=True)
        place = FAILURES / time.strftime("%Y-%m-%d-%H%M%S.txt")
        place.write_text(trouble + "\n")
        return f"{trouble}\n  kept in {place}"


def _told(seed: int, code: int, trouble: str) -> str:
    if "again:" in trouble:
        return trouble.strip()
    command = f"-m tests.crash.explore --seed {seed} --episodes {SEEDS_EACH}"
    return f"{trouble.strip()}\n  a worker ended with {code}\n  again: .venv/bin/python {command}"


def _progress(done: int, goal: int, seconds: float) -> str:
    share = min(done / max(goal, 1), 1.0)
    bar = "#" * round(30 * share)
    rate = done / max(seconds, 1e-9)
    left = (goal - done) / rate if rate else 0
    until = f"{left / 60:.0f} min left" if rate else "..."
    return f"[{bar:30}] {100 * share:5.1f} %  {done:,} states, {rate:.0f} per second, {until}"
