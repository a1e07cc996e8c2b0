"""Puts a mutant into code that is already loaded, so that no test has to be imported again.

Owns the functions of the project that were loaded by the time ``Loaded`` was made. Invariant: a
function keeps its identity, so that whoever imported it runs the mutant too. What runs in a process
that a test starts anew stays as it is in the files.
"""

from __future__ import annotations

import gc
import importlib
import types
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.mutants.sites import ENGINE, Mutant

_Name = tuple[str, int]
"""A function's qualified name and first line: the same with and without a mutant inside it."""


def load_engine(root: Path) -> None:
    """Import every module of the engine, whether a test has it or not."""
    for file in sorted((root / ENGINE).rglob("*.py")):
        importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))


class Loaded:
    """All functions whose code comes from below ``root``. There is no way back: use it in a child
    process that ends with the mutant."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._functions: dict[str, list[types.FunctionType]] = defaultdict(list)
        self._sources = {str(file): file.read_bytes() for file in root.rglob("appliance/**/*.py")}
        """As they were when they were loaded, whatever is edited meanwhile."""
        for found in gc.get_objects():
            if isinstance(found, types.FunctionType):
                file = found.__code__.co_filename
                if file in self._sources:
                    self._functions[file].append(found)

    def disable(self, mutant: Mutant) -> None:
        """From now on this process runs the mutant. Raises ``AssertionError`` if no loaded function
        has it."""
        file = str(self._root / mutant.path)
        source = self._sources[file]
        before = dict(_functions(compile(source, file, "exec", dont_inherit=True)))
        after = dict(_functions(compile(mutant.apply(source), file, "exec", dont_inherit=True)))
        swapped = 0
        for function in self._functions[file]:
            code = function.__code__
            name = code.co_qualname, code.co_firstlineno
            changed = after.get(name)
            if changed is None or _lasting(changed) == _lasting(before[name]):
                continue
            assert code.co_freevars == changed.co_freevars, f"cannot disable {mutant.name} in place"
            function.__code__ = changed
            swapped += 1
        assert swapped, f"cannot disable {mutant.name}: no loaded function has it"


def _functions(code: types.CodeType) -> Iterator[tuple[_Name, types.CodeType]]:
    """Every piece of code in ``code``, at any depth."""
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield (inner.co_qualname, inner.co_firstlineno), inner
            yield from _functions(inner)


def _lasting(code: types.CodeType) -> object:
    """What makes two pieces of code do the same, whatever their lines."""
    constants = tuple(
        _lasting(each) if isinstance(each, types.CodeType) else (type(each), each)
        for each in code.co_consts
    )
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_exceptiontable
