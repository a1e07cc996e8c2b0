"""The command line's one printer: tables and sentences for people, JSON for programs.

Owns stdout and stderr. Colours and bars appear only on a terminal; a pipe gets plain text whose
tables are never cut. Invariant: with ``--json`` stdout carries exactly one JSON document.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from appliance.core.documents import to_document

PIPE_WIDTH: Final = 400
"""Wide enough that no identity is ever wrapped in what a script reads."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far long work is: ``done`` of ``total``, and whether it ended."""

    text: str
    done: int
    total: int
    ended: bool
    eta_s: float | None = None


@dataclass(slots=True)
class Output:
    """Where results go. ``pause`` waits between two looks at long work."""

    as_json: bool = False
    stdout: IO[str] = field(default_factory=lambda: sys.stdout)
    stderr: IO[str] = field(default_factory=lambda: sys.stderr)
    pause: Callable[[float], None] = time.sleep
    look_s: float = 0.25

    def document(self, value: object) -> None:
        """A result for programs. Sequences become lists."""
        if isinstance(value, list | tuple):
            body = [to_document(each) for each in value]
        else:
            body = to_document(value)
        self.stdout.write(json.dumps(body, indent=2, ensure_ascii=False) + "\n")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table for people. Cells may carry rich markup; escape foreign text with ``plain``. On
        a terminal that is too narrow for it every row is a paragraph."""
        console = self._console()
        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, header in enumerate(headers):
            # The first column is what a person copies: never broken on a narrow terminal.
            table.add_column(header, overflow="fold", no_wrap=number == 0)
        for row in rows:
            table.add_row(*row)
        unbounded = console.options.update(max_width=PIPE_WIDTH)
        if console.measure(table, options=unbounded).maximum <= console.width:
            console.print(table)
            return
        for first, *others in rows:
            self.say(f"[bold]{first.rstrip()}[/]")
            paragraph = Table.grid(padding=(0, 2), pad_edge=False)
            paragraph.add_column(no_wrap=True)
            paragraph.add_column(overflow="fold")
            for header, cell in zip(headers[1:], others, strict=True):
                if cell:
                    paragraph.add_row(f"    {header.strip()}", cell)
            console.print(paragraph)

    def say(self, text: str = "") -> None:
        """A sentence for people; may carry rich markup."""
        self._console().print(text, highlight=False, soft_wrap=True)

    def complain(self, text: str) -> None:
        """An error on stderr."""
        console = self._console(self.stderr)
        console.print(f"[bold red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)

    def follow(self, look: Callable[[], Standing]) -> None:
        """Show work until it ended: a bar on a terminal, one line per step elsewhere."""
        if self.as_json or not self._console(self.stderr).is_terminal:
            self._follow_plainly(look)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[eta]}"),
        )
        with Progress(*columns, console=self._console(self.stderr), transient=True) as progress:
            task = progress.add_task("", total=None, eta="")
            while True:
                now = look()
                progress.update(
                    task,
                    description=escape(now.text),
                    completed=now.done,
                    total=now.total or None,
                    eta=eta(now.eta_s),
                    refresh=True,
                )
                if now.ended:
                    return
                self.pause(self.look_s)

    def _follow_plainly(self, look: Callable[[], Standing]) -> None:
        last = ""
        while True:
            now = look()
            if now.text != last and not self.as_json:
                last = now.text
                self._console(self.stderr).print(escape(now.text), highlight=False, soft_wrap=True)
            if now.ended:
                return
            self.pause(self.look_s)

    def _console(self, stream: IO[str] | None = None) -> Console:
        stream = stream or self.stdout
        width = None if stream.isatty() else PIPE_WIDTH
        return Console(file=stream, width=width, soft_wrap=False, emoji=False)


def plain(text: str) -> str:
    """Foreign text, such as a serial number, that must not be read as markup."""
    return escape(text)


def eta(seconds: float | None) -> str:
    """An estimate as a person says it."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"about {whole} s left"
    if whole < 3600:
        return f"about {whole // 60} min left"
    return f"about {whole // 3600} h {whole % 3600 // 60} min left"


def moment(when_ns: int) -> str:
    """A point in time, in UTC as logs and auditors have it; empty for none."""
    if not when_ns:
        return ""
    return datetime.fromtimestamp(when_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float) -> str:
    """A length of time as a person says it."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 2 * 86_400:
        return f"{whole // 3600} h"
    return f"{whole // 86_400} days"


def size(count: int) -> str:
    """Bytes as a drive's label states them (powers of ten)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit in {"B", "kB"} else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
