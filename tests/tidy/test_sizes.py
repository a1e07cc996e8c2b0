"""Nothing grows beyond what one can keep in mind."""

from __future__ import annotations

import ast
import statistics

from tests.tidy.sources import Function, module_sizes, project_texts, python_sources

MODULE_LINES_MAX = 400
MODULE_LINES_MEDIAN_MAX = 150
FUNCTION_LINES_MAX = 60
LINE_CHARACTERS_MAX = 100
EVERYTHING = ("appliance", "tests", "packaging")


def _span(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def _lines(function: Function) -> int:
    """Lines from ``def`` to the end, without the docstring (an explanation is no burden) and
    without classes made inside (their methods count on their own)."""
    lines = _span(function)
    if ast.get_docstring(function) is not None:
        lines -= _span(function.body[0])
    return lines - sum(_span(node) for node in function.body if isinstance(node, ast.ClassDef))


def test_modules_are_short() -> None:
    long = {
        source.path: source.line_count
        for source in python_sources(*EVERYTHING)
        if source.line_count > MODULE_LINES_MAX
    }
    assert not long, f"split these, {MODULE_LINES_MAX} lines are the limit: {long}"


def test_the_median_module_is_short() -> None:
    median = statistics.median(module_sizes())
    print(f"median module: {median:.0f} lines")
    assert median <= MODULE_LINES_MEDIAN_MAX


def test_functions_are_short() -> None:
    long = [
        f"{source.path}:{function.lineno} {function.name}: {_lines(function)}"
        for source in python_sources(*EVERYTHING)
        for function in source.functions()
        if _lines(function) > FUNCTION_LINES_MAX
    ]
    assert not long, "split these, 60 lines are the limit:\n" + "\n".join(long)


def test_lines_are_short() -> None:
    """Of what the linter does not read; Python's lines are its business."""
    kinds = (".sh", ".toml", "Makefile", ".service", ".socket", ".target", ".rules")
    long = [
        f"{path}:{number}"
        for path, text in project_texts().items()
        if path.endswith(kinds)
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > LINE_CHARACTERS_MAX
    ]
    assert not long, f"longer than {LINE_CHARACTERS_MAX} characters: {long}"
