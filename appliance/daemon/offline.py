"""The tools that work without the service: they look at drives that nobody uses.

Owns what they share: arguments, scratch space, and how they tell the command line, which started
them, what they find: one JSON document a line on stdout, ``progress`` as often as a person can read
it, then one ``result`` or one ``error``. Refuses to touch what it looks at. Invariant: nothing is
left behind but what was asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from appliance.core.documents import to_document
from appliance.core.errors import ApplianceError, Damaged, DriveFault, Unreachable
from appliance.core.ports import Progress

PROGRESS_EVERY_S: Final = 0.25
EXIT_INTERRUPTED: Final = 130
SCRATCH_PREFIX: Final = "appliance-offline-"


class Telling:
    """The stream of documents to whoever started this process."""

    def __init__(self, stream: IO[str], monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._stream: Final = stream
        self._monotonic_s: Final = monotonic_s
        self._told_s = 0.0

    def progress(self, text: str) -> Progress:
        """Reports of one step; all but a few a second are dropped, the first ones too."""
        self._told_s = self._monotonic_s()

        def tell(done: int, total: int) -> None:
            now_s = self._monotonic_s()
            if now_s - self._told_s >= PROGRESS_EVERY_S:
                self._told_s = now_s
                self._say({"progress": {"text": text, "done": done, "total": total}})

        return tell

    def result(self, value: object) -> None:
        """The end of it."""
        self._say({"result": to_document(value)})

    def error(self, error: ApplianceError) -> None:
        """The end of it, too."""
        self._say({"error": {"kind": type(error).__name__, "text": str(error)}})

    def _say(self, document: dict[str, Any]) -> None:
        self._stream.write(json.dumps(document) + "\n")
        self._stream.flush()


@contextmanager
def scratch_directory(parent: Path | None) -> Iterator[Path]:
    """Room for an index and a copy of a file system's metadata, gone at the end. Raises
    ``Unreachable``."""
    try:
        with tempfile.TemporaryDirectory(
            prefix=SCRATCH_PREFIX, dir=parent, ignore_cleanup_errors=True
        ) as name:
            yield Path(name)
    except DriveFault as fault:
        if fault.drive != "index":
            raise
        place = parent or tempfile.gettempdir()
        raise Unreachable(
            f"cannot keep scratch files in {place}: {fault}; choose a larger place with --scratch"
        ) from fault
    except Damaged as damage:
        raise Unreachable(f"cannot trust the scratch files made here: {damage}") from damage
    except OSError as error:
        raise Unreachable(f"cannot keep scratch files: {error}; choose with --scratch") from error


@contextmanager
def ended_in_good_order() -> Iterator[None]:
    """The first SIGINT or SIGTERM is a ``KeyboardInterrupt``; later ones are not heard, so that
    nothing disturbs the giving back of mounts and scratch files. On the main thread."""
    signals = (signal.SIGINT, signal.SIGTERM)

    def end(_number: int, _frame: object) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, end) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The tools and their arguments."""
    tools = parser.add_subparsers(dest="tool", required=True)
    inspect = tools.add_parser("inspect")
    inspect.add_argument("drive", type=Path)
    verify = tools.add_parser("verify")
    verify.add_argument("drive", type=Path, nargs="+")
    export = tools.add_parser("export")
    export.add_argument("drive", type=Path)
    export.add_argument("--to", required=True)
    recover = tools.add_parser("recover-key")
    recover.add_argument("drive", type=Path)
    recover.add_argument("--to", type=Path, required=True)
    recover.add_argument("--recovery-key", required=True)
    key = export.add_mutually_exclusive_group(required=True)
    key.add_argument("--master-key", type=Path)
    key.add_argument("--recovery-key")
    for tool in (inspect, verify, export, recover):
        tool.add_argument("--scratch", type=Path)


def run(asked: argparse.Namespace) -> int:
    """Carry out one tool; the exit code says only whether there is a result."""
    os.umask(0o077)  # what is exported or kept aside is nobody else's business
    telling = Telling(sys.stdout)
    try:
        with ended_in_good_order():
            telling.result(_carry_out(asked, telling))
    except ApplianceError as error:
        telling.error(error)
        return 1
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001  outermost: an operator never meets a traceback
        fault = f"an unexpected fault: {type(error).__name__}: {error}; please report it"
        telling.error(ApplianceError(fault))
        return 1
    return 0


def _carry_out(asked: argparse.Namespace, telling: Telling) -> object:
    with scratch_directory(asked.scratch) as scratch:
        if asked.tool == "inspect":
            from appliance.daemon.offline_inspect import inspect

            return inspect(asked.drive, scratch, telling)
        if asked.tool == "verify":
            from appliance.daemon.offline_verify import verify

            return verify(asked.drive, scratch, telling)
        if asked.tool == "recover-key":
            from appliance.daemon.offline_keys import recover_key

            return recover_key(asked.drive, asked.to, asked.recovery_key, scratch, telling)
        from appliance.daemon.offline_export import export

        return export(
            asked.drive,
            asked.to,
            scratch,
            telling,
            master_key=asked.master_key,
            recovery_key=asked.recovery_key,
        )
