"""Turns measurements into one table for the terminal and one page for the documentation."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.load import MIB, Sample
from tests.development import PROJECT

PAGE: Final = PROJECT / "docs" / "PERFORMANCE.md"
SERVICE: Final = "service"
"""Name of the figures that ``write_performance`` writes."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All of one server. Memory is (RSS, PSS) summed over its processes, in bytes."""

    name: str
    samples: Mapping[str, Sample]
    start_s: float
    resting_bytes: tuple[int, int]
    loaded_bytes: tuple[int, int]


Row = tuple[str, list[str]]


def table(results: Sequence[Figures]) -> str:
    """A Markdown table, a column per server and, where there are two, their ratio."""
    names = [each.name for each in results]
    ratio = len(results) == 2
    header = ["", *names] + (["ratio"] if ratio else [])
    return table_of(header, [[label, *cells] for label, cells in _rows(results, ratio)])


def table_of(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Any table in Markdown; all but its first column are figures."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def write_performance(results: Sequence[Figures], duration_s: int) -> None:
    """Replace the figures of the service in the page."""
    head = f"{duration_s} s per row, HTTPS, two XFS loop drives with direct I/O."
    replace_figures(SERVICE, f"{head}\n\n{table(results)}")


def replace_figures(name: str, text: str, page: Path = PAGE) -> None:
    """Put ``text`` between the marks ``name`` of the page, with the day and the machine; the words
    around the marks stay."""
    begin, end = (f"<!-- figures of {name}: {edge} -->" for edge in ("begin", "end"))
    before, found, rest = page.read_text().partition(begin)
    _, mark, after = rest.partition(end)
    if not (found and mark):
        raise SystemExit(f"cannot write {page}: the marks {begin!r}, {end!r} are missing")
    today = datetime.datetime.now(datetime.UTC).date()
    machine = f"Linux {platform.release()}, {os.cpu_count()} cores shared with the load generator"
    page.write_text(f"{before}{begin}\nMeasured on {today}: {machine}. {text}\n{end}{after}")


def _rows(results: Sequence[Figures], ratio: bool) -> list[Row]:
    rows: list[Row] = []
    for label in results[0].samples:
        samples = [each.samples[label] for each in results]
        large = "MiB" in label
        if large:
            speeds = [sample.bytes_per_second / MIB for sample in samples]
        else:
            speeds = [sample.per_second for sample in samples]
        unit = "MiB/s" if large else "keys/s" if "LIST" in label else "operations/s"
        rows.append((f"{label}: {unit}", _cells(speeds, "{:,.0f}", ratio)))
        rows.append(("  latency p50 / p99, ms", _pairs(samples, ratio)))
        if "LIST" not in label:
            cpu = [sample.cpu_ms for sample in samples]
            rows.append(("  server CPU per operation, ms", _cells(cpu, "{:.3f}", ratio)))
            client = [sample.client_cpu_ms for sample in samples]
            rows.append(("  load generator's CPU, ms", _cells(client, "{:.3f}", ratio)))
        if "PUT" in label:
            flushes = [sample.flushes for sample in samples]
            rows.append(("  flushes per object, both drives", _cells(flushes, "{:.2f}", ratio)))
        errors = [sample.errors for sample in samples]
        if any(errors):
            rows.append(("  errors", _cells(errors, "{:.0f}", False) + [""] * ratio))
    for title, index in (("RSS", 0), ("PSS", 1)):
        resting = [each.resting_bytes[index] / MIB for each in results]
        loaded = [each.loaded_bytes[index] / MIB for each in results]
        rows.append((f"memory at rest, MiB ({title})", _cells(resting, "{:.0f}", ratio)))
        rows.append((f"memory after the load, MiB ({title})", _cells(loaded, "{:.0f}", ratio)))
    starts = [each.start_s for each in results]
    rows.append(("start to first answer, s", _cells(starts, "{:.2f}", ratio)))
    return rows


def _cells(values: Sequence[float], form: str, ratio: bool) -> list[str]:
    cells = [form.format(value) for value in values]
    if ratio:
        cells.append(f"{values[0] / values[1]:.2f}" if values[1] else "")
    return cells


def _pairs(samples: Sequence[Sample], ratio: bool) -> list[str]:
    return [f"{each.median_ms:.1f} / {each.p99_ms:.1f}" for each in samples] + [""] * ratio
