"""What the tidy tests look at: the project's files, read once, and their syntax trees.

Only files that belong to the project (git knows them, or they are new and not ignored).
"""

from __future__ import annotations

import ast
import functools
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = Function | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file: its path relative to the project, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def line_count(self) -> int:
        """Lines, blank ones and comments included."""
        return len(self.text.splitlines())

    def functions(self) -> Iterator[Function]:
        """Every function, methods and nested ones included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


@functools.cache
def project_files() -> tuple[str, ...]:
    """Paths of all files of the project that exist now, sorted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(sorted(p for p in set(listed.split("\0")) if p and (ROOT / p).is_file()))


@functools.cache
def project_texts() -> dict[str, str]:
    """Contents of every text file; locks are left out, since registries write them."""
    texts = {}
    for path in project_files():
        if path.endswith(".lock"):
            continue
        content = (ROOT / path).read_bytes()
        if b"\0" not in content:
            texts[path] = content.decode()
    return texts


@functools.cache
def python_sources(*folders: str) -> tuple[Source, ...]:
    """The Python files below the folders."""
    return tuple(
        Source(path, text, ast.parse(text, path))
        for path, text in project_texts().items()
        if path.endswith(".py") and path.startswith(tuple(f"{folder}/" for folder in folders))
    )


def module_sizes() -> list[int]:
    """Lines of each module of the product, rising; package files do not count."""
    return sorted(
        len(text.splitlines())
        for path, text in project_texts().items()
        if path.startswith("appliance/")
        and path.endswith(".py")
        and not path.endswith("/__init__.py")
    )


def size_summary() -> str:
    """One line on how large the product's modules are."""
    sizes = module_sizes()
    return (
        f"sizes: {len(sizes)} modules, {sum(sizes)} lines, median {statistics.median(sizes):.0f}, "
        f"largest {sizes[-1]}"
    )
