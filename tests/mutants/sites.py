"""Finds every safeguard of the engine, so that each can be disabled in turn.

Owns what counts as a safeguard. They are found in the syntax tree by the rules below, never picked
by hand, so that a new safeguard is tried by the next run of all. Invariant: a mutant differs from
the original in exactly one place.

| rule | what | becomes |
|---|---|---|
| raise | every ``raise`` | nothing |
| flush | a call of, or a reference to, what is named ``flush…`` | nothing is done |
| vote | a call that writes an epoch, a superblock, the witness | nothing is done |
| durable | ``durable=`` of an opened file | False |
| deadline | ``deadline_s=``, ``timeout_s=``, ``timeout=``, what ``wait`` gets | 30 years |
| check | ``==``, ``!=``, ``in``, ``not in`` on what bytes are told by | as if they agreed |
| order | ``<``, ``<=``, ``>``, ``>=`` on what tells older from newer | True, and False |
| proof | what is named after a proof of bytes or of an expectation | True |

Left out: assertions (they guard against our own mistakes), what stands outside any function (it
runs at import, before any test), the engine for tests (``sim``), and a comparison that is all that
decides whether to raise: as if all were well, it would not raise, which the first rule tries. Such
a comparison still counts in the names of those behind it.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ENGINE: Final = "appliance/engine"

LEFT_OUT: Final = frozenset({"sim.py"})
VOTES: Final = frozenset(
    {"beat", "catch_up", "join", "leave", "make_witness", "renew", "settle", "write"}
)
VOTERS: Final = frozenset({"slots", "superblock", "superblocks", "votes", "witness"})
"""On whom the calls of ``VOTES`` are votes; in the modules named so, also on ``self``."""
DEADLINES: Final = frozenset({"deadline_s", "timeout", "timeout_s"})
WAITS: Final = frozenset({"join", "wait"})
NEVER_S: Final = "1e9"
IDENTITIES: Final = frozenset(
    {
        "crc", "digest", "drive_id", "epoch", "format", "generation", "heartbeat", "id",
        "incarnation", "magic", "mirror_id", "number", "offset", "previous_crc", "segment",
        "sequence", "version",
    }
)  # fmt: skip
"""Names by which bytes are told to be the right ones."""
AGES: Final = frozenset({"epoch", "generation", "heartbeat", "incarnation", "sequence", "version"})
"""Names by which what is old is told from what is new."""
PROOFS: Final = frozenset(
    {
        "covers", "has_batch", "holds", "is_complete", "is_current", "is_equal", "is_good",
        "is_same", "is_sound", "is_verified", "is_whole",
    }
)  # fmt: skip
AGREE: Final = {ast.Eq: "True", ast.NotEq: "False", ast.In: "True", ast.NotIn: "False"}
"""What each comparison says when all is well."""
ORDERS: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change to one file: bytes ``start`` to ``end`` of it are replaced. ``line`` is where, in
    the original; ``name`` stays the same while its function keeps its safeguards."""

    name: str
    path: str
    line: int
    last_line: int
    start: int
    end: int
    replacement: bytes

    def apply(self, source: bytes) -> bytes:
        """The mutated file."""
        return source[: self.start] + self.replacement + source[self.end :]

    @property
    def lines(self) -> range:
        """Those it stands on."""
        return range(self.line, self.last_line + 1)

    def share(self, shares: int) -> int:
        """Which of ``shares`` parts it belongs to; the same in every run."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big") % shares


def find(root: Path) -> list[Mutant]:
    """All mutants of the engine below ``root``, in the order of the files."""
    found: list[Mutant] = []
    for file in sorted((root / ENGINE).rglob("*.py")):
        if file.name not in LEFT_OUT:
            found += find_in(file.relative_to(root).as_posix(), file.read_bytes())
    return found


def find_in(path: str, source: bytes) -> Iterator[Mutant]:
    """The mutants of one file."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    seen: Counter[str] = Counter()
    tree = ast.parse(source)
    guards = {node.test for node in ast.walk(tree) if isinstance(node, ast.If) and _raises(node)}
    for scope, node, kind, replacement in _walk(tree, "", Path(path).name):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        name = f"{Path(path).stem}.{scope}:{kind}"
        seen[name] += 1
        if node in guards and kind in {"check", "order"}:
            continue
        yield Mutant(
            f"{name}:{seen[name]}",
            path,
            node.lineno,
            node.end_lineno,
            starts[node.lineno - 1] + node.col_offset,
            starts[node.end_lineno - 1] + node.end_col_offset,
            replacement.encode(),
        )


def _raises(choice: ast.If) -> bool:
    """Whether it does nothing but raise."""
    return len(choice.body) == 1 and isinstance(choice.body[0], ast.Raise) and not choice.orelse


_Safeguard = tuple[str, ast.stmt | ast.expr, str, str]
"""(scope, node, rule, replacement)"""


def _walk(node: ast.AST, scope: str, module: str, *, runs: bool = False) -> Iterator[_Safeguard]:
    """``runs``: within a function."""
    for child in ast.iter_child_nodes(node):
        inner, runs_inside = scope, runs
        if isinstance(child, ast.Assert):
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{scope}.{child.name}" if scope else child.name
            runs_inside = not isinstance(child, ast.ClassDef)
        elif runs:
            for kind, found, replacement in _rules(node, child, module):
                yield scope, found, kind, replacement
        yield from _walk(child, inner, module, runs=runs_inside)


_Found = tuple[str, ast.stmt | ast.expr, str]


def _rules(parent: ast.AST, node: ast.AST, module: str) -> Iterator[_Found]:
    """(rule, what is replaced, by what) for one node."""
    if isinstance(node, ast.Raise):
        yield "raise", node, "pass"
    elif isinstance(node, ast.Call):
        yield from _call(node, module)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from _comparison(node)
    elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
        called = isinstance(parent, ast.Call) and parent.func is node
        if _is_flush(_name(node)) and not called:
            yield "flush", node, "(lambda *_, **__: None)"
        if isinstance(node, ast.Attribute) and _proves(node) and not called:
            yield "proof", node, "True"


def _call(call: ast.Call, module: str) -> Iterator[_Found]:
    name = _name(call.func)
    if _is_flush(name):
        yield "flush", call, "None"
    if name in VOTES and isinstance(call.func, ast.Attribute) and _votes(call.func.value, module):
        yield "vote", call, "None"
    if _proves(call.func):
        yield "proof", call, "True"
    for keyword in call.keywords:
        says = keyword.value
        if keyword.arg == "durable" and not (isinstance(says, ast.Constant) and not says.value):
            yield "durable", says, "False"
        if keyword.arg in DEADLINES and not (isinstance(says, ast.Constant) and not says.value):
            yield "deadline", says, NEVER_S
    if name in WAITS and len(call.args) == 1 and _name(call.args[0]).endswith("_s"):
        yield "deadline", call.args[0], NEVER_S


def _comparison(compare: ast.Compare) -> Iterator[_Found]:
    names = {name for side in (compare.left, *compare.comparators) for name in _compared(side)}
    agreeing = AGREE.get(type(compare.ops[0]))
    if agreeing and names & IDENTITIES:
        yield "check", compare, agreeing
    if isinstance(compare.ops[0], ORDERS) and names & AGES:
        yield "order", compare, "True"
        yield "order", compare, "False"


def _compared(node: ast.AST) -> Iterator[str]:
    """What the values on one side of a comparison are called: ``id`` of ``epoch.id``."""
    if isinstance(node, ast.Name | ast.Attribute):
        yield _name(node)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _compared(child)


def _name(node: ast.AST) -> str:
    """The last word of ``a.b.word`` or ``word``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_flush(name: str) -> bool:
    word = name.lstrip("_")
    return word == "flush" or word.startswith("flush_")


def _proves(node: ast.AST) -> bool:
    return _name(node).lstrip("_") in PROOFS


def _votes(receiver: ast.AST, module: str) -> bool:
    name = _name(receiver).lstrip("_")
    return name in VOTERS or (name in {"self", "file", "slots"} and module[:-3] in VOTERS)
