"""Finds every safeguard of the engine, so that each can be disabled in turn.

Owns what counts as a safeguard: a raised error, a flush, a write of a vote, a durable way of
opening a file, and a comparison that tells right bytes from wrong ones. Found in the syntax tree,
never picked by hand, so that a new safeguard is tried as soon as it is written. Invariant: a
mutant differs from the original in exactly one place.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ENGINE: Final = "appliance/engine/mirror"

FLUSHES: Final = frozenset({"flush", "flush_directory"})
VOTES: Final = frozenset({"write", "make_witness", "beat", "catch_up"})
"""Calls that write superblocks or the witness, in the modules named for it."""
VOTE_MODULES: Final = frozenset({"votes.py", "slots.py", "superblock.py", "witness.py"})
IDENTITIES: Final = frozenset(
    {
        "crc", "digest", "drive_id", "epoch", "format", "generation", "heartbeat", "id",
        "incarnation", "magic", "mirror_id", "number", "offset", "previous_crc", "segment",
        "sequence", "version",
    }
)  # fmt: skip
"""Names by which bytes are told to be the right ones."""
AGREE: Final = {ast.Eq: "True", ast.NotEq: "False", ast.In: "True", ast.NotIn: "False"}
"""What each comparison says when all is well."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change to one file: bytes ``start`` to ``end`` of it are replaced. ``line`` is where, in
    the original; ``name`` stays the same while its function keeps its safeguards."""

    name: str
    path: str
    line: int
    start: int
    end: int
    replacement: bytes

    def apply(self, source: bytes) -> bytes:
        """The mutated file."""
        return source[: self.start] + self.replacement + source[self.end :]

    def share(self, shares: int) -> int:
        """Which of ``shares`` parts it belongs to; the same in every run."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big") % shares


def find(root: Path) -> list[Mutant]:
    """All mutants of the engine below ``root``, in the order of the files."""
    found: list[Mutant] = []
    for file in sorted((root / ENGINE).glob("*.py")):
        found += find_in(file.relative_to(root).as_posix(), file.read_bytes())
    return found


def find_in(path: str, source: bytes) -> Iterator[Mutant]:
    """The mutants of one file."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    seen: Counter[str] = Counter()
    for scope, node, kind, replacement in _safeguards(ast.parse(source), Path(path).name):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        name = f"{Path(path).stem}.{scope}:{kind}"
        seen[name] += 1
        yield Mutant(
            f"{name}:{seen[name]}",
            path,
            node.lineno,
            starts[node.lineno - 1] + node.col_offset,
            starts[node.end_lineno - 1] + node.end_col_offset,
            replacement.encode(),
        )


_Safeguard = tuple[str, ast.stmt | ast.expr, str, str]


def _safeguards(tree: ast.Module, module: str) -> Iterator[_Safeguard]:
    """(scope, node, kind, replacement) of each."""
    yield from _walk(tree, "", module)


def _walk(node: ast.AST, scope: str, module: str) -> Iterator[_Safeguard]:
    for child in ast.iter_child_nodes(node):
        inner = scope
        if isinstance(child, ast.Assert):
            continue  # it guards against our own mistakes, not against what a drive does
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{scope}.{child.name}" if scope else child.name
        elif isinstance(child, ast.Raise):
            yield scope, child, "raise", "pass"
        elif isinstance(child, ast.Call):
            yield from _call(scope, child, module)
        elif isinstance(child, ast.Compare):
            yield from _comparison(scope, child)
        yield from _walk(child, inner, module)


def _call(scope: str, call: ast.Call, module: str) -> Iterator[_Safeguard]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name in FLUSHES:
        yield scope, call, "flush", "None"
    if name in VOTES and module in VOTE_MODULES:
        yield scope, call, "vote", "None"
    for keyword in call.keywords:
        if keyword.arg == "durable" and not (
            isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        ):
            yield scope, keyword.value, "durable", "False"


def _comparison(scope: str, compare: ast.Compare) -> Iterator[_Safeguard]:
    said = AGREE.get(type(compare.ops[0])) if len(compare.ops) == 1 else None
    if said is None:
        return
    names = {
        part.attr if isinstance(part, ast.Attribute) else part.id
        for side in (compare.left, *compare.comparators)
        for part in ast.walk(side)
        if isinstance(part, ast.Attribute | ast.Name)
    }
    if names & IDENTITIES:
        yield scope, compare, "check", said
