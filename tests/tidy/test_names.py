"""Modules are named for what they own, and everything public says what it is for."""

from __future__ import annotations

import ast

from tests.tidy.sources import Documented, Source, python_sources

# A name that could hold anything ends up holding everything.
BANNED_MODULES = {"utils", "util", "helpers", "helper", "common", "base", "misc", "shared", "lib"}
UNDOCUMENTED_METHOD_LINES_MAX = 10


def _stem(source: Source) -> str:
    return source.path.rsplit("/", 1)[1].removesuffix(".py")


def _public(node: ast.AST) -> bool:
    return isinstance(node, Documented) and not node.name.startswith("_")


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = [
        source.path
        for source in python_sources("appliance", "tests", "packaging")
        if _stem(source) in BANNED_MODULES or BANNED_MODULES & set(source.path.split("/")[:-1])
    ]
    assert not drawers


def test_every_module_and_package_has_a_docstring() -> None:
    silent = [
        source.path
        for source in python_sources("appliance", "tests", "packaging")
        if not ast.get_docstring(source.tree)
    ]
    assert not silent


def test_public_classes_and_functions_have_docstrings() -> None:
    silent = [
        f"{source.path}:{node.lineno} {node.name}"
        for source in python_sources("appliance")
        for node in source.tree.body
        if isinstance(node, Documented) and _public(node) and not ast.get_docstring(node)
    ]
    assert not silent, "\n".join(silent)


def test_long_public_methods_have_docstrings() -> None:
    """A short method's name and types say it all; a longer one owes an explanation."""
    silent = []
    for source in python_sources("appliance"):
        for parent in (node for node in source.tree.body if isinstance(node, ast.ClassDef)):
            for node in parent.body:
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                long = lines > UNDOCUMENTED_METHOD_LINES_MAX
                if long and _public(node) and not ast.get_docstring(node):
                    silent.append(f"{source.path}:{node.lineno} {parent.name}.{node.name}")
    assert not silent, "\n".join(silent)
