"""Running one of the tools that work without the service, and showing how far it is.

Owns the child process and reads what it tells, one JSON document a line. Raises what the tool
raised, as an error of our own tree. Invariant: the child never outlives the command.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import click

from appliance.cli.context import Context
from appliance.cli.output import Standing
from appliance.core import errors
from appliance.core.documents import from_document

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
KINDS: Final = (errors.InvalidInput, errors.NotFound, errors.Refused, errors.Unreachable)
ETA_AFTER_S: Final = 2.0
FROM_STDIN: Final = "-"

drive_argument: Final = click.Path(path_type=Path)


def scratch_option(command: F) -> F:
    """Where an index and a copy of a file system's metadata are kept meanwhile."""
    return click.option(
        "--scratch",
        type=click.Path(file_okay=False, path_type=Path),
        help="Directory for temporary files; the system's own place for them if not given.",
    )(command)


@dataclass(slots=True)
class _Run:
    """One tool's process. ``begun_s`` and ``step`` are of the step it is at, for the estimate."""

    process: subprocess.Popen[str]
    told: queue.SimpleQueue[dict[str, Any] | None] = field(default_factory=queue.SimpleQueue)
    step: str = ""
    begun_s: float = 0.0
    result: Any = None
    error: errors.ApplianceError | None = None

    def read(self, stream: IO[str]) -> None:
        """On a thread: everything it says, then None."""
        for line in stream:
            self.told.put(json.loads(line))
        self.told.put(None)

    def look(self) -> Standing:
        """Wait for a word of it and take its last one; how far it is."""
        document = self.told.get()
        while document is not None and not self.told.empty():
            if "progress" not in document:
                break
            document = self.told.get()
        if document is None:
            return Standing(self.step, 0, 0, ended=True)
        if "result" in document:
            self.result = document["result"]
        elif "error" in document:
            self.error = _error(document["error"])
        else:
            return self._standing(document["progress"])
        return Standing(self.step, 0, 0, ended=True)

    def _standing(self, progress: dict[str, Any]) -> Standing:
        text, done, total = progress["text"], progress["done"], progress["total"]
        now_s = time.monotonic()
        if text != self.step:
            self.step, self.begun_s = text, now_s
        passed_s = now_s - self.begun_s
        eta_s = None
        if done and passed_s > ETA_AFTER_S:
            eta_s = passed_s * (total - done) / done
        return Standing(text, done, total, False, eta_s)


def typed_key(recovery_key: str | None) -> str | None:
    """The recovery key, asked for before anything is shown, where a person sits at stdin; else
    None: the tool reads the file, or the pipe, by itself."""
    if recovery_key != FROM_STDIN or not sys.stdin.isatty():
        return None
    return str(click.prompt("Recovery key", err=True))


def run_tool(
    context: Context, kind: type[T], arguments: Sequence[str], *, typed: str | None = None
) -> T:
    """Run a tool to its end; what it found. ``typed`` is a line for its stdin. Raises
    ``ApplianceError``."""
    command = [sys.executable, "-m", "appliance.daemon", "offline", *arguments]
    process = subprocess.Popen(
        command,
        stdin=None if typed is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None, "it was asked for"
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(f"{typed}\n")
    run = _Run(process)
    reader = threading.Thread(target=run.read, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        context.output.follow(run.look)
        code = process.wait()
    finally:
        process.terminate()
        process.wait()
        reader.join()
        process.stdout.close()
    if run.error is not None:
        raise run.error
    if run.result is None:
        raise errors.ApplianceError(f"the tool ended without a result (exit code {code})")
    return from_document(kind, run.result)


def optional(name: str, value: object) -> list[str]:
    """An option and its value, if it was given."""
    return [] if value is None else [name, str(value)]


def _error(document: dict[str, str]) -> errors.ApplianceError:
    known = {kind.__name__: kind for kind in KINDS}
    return known.get(document["kind"], errors.ApplianceError)(document["text"])
