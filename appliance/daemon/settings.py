"""How a configuration key is declared, read and documented, whatever it is about.

Owns the rules of the one TOML file: sections are dataclasses, keys their fields, each with a
sentence of documentation. Refuses unknown sections and keys, wrong types and values outside the
allowed ones, naming file, line, key and what is allowed. Invariant: a configuration that was read
holds only allowed values.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from appliance.core.errors import ConfigError

Section = TypeVar("Section")
Check = Callable[[Any], bool]

_NAME: Final = r"""["']?([A-Za-z0-9_-]+)["']?"""
_NAMES: Final = rf"{_NAME}(?:\s*\.\s*{_NAME})?"
_TABLE_LINE: Final = re.compile(rf"^\s*\[\[?\s*{_NAMES}")
_KEY_LINE: Final = re.compile(rf"^\s*{_NAMES}\s*=")
_SYNTAX_LINE: Final = re.compile(r"\(at line (\d+)")
_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TYPE_NAMES: Final = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
}


def setting(default: Any, doc: str, *, allowed: str = "", check: Check | None = None) -> Any:
    """A field of a section. ``allowed`` says in words what ``check`` accepts."""
    assert (check is None) == (not allowed), "a check is told in words, and words are checked"
    metadata = {"doc": doc, "allowed": allowed, "check": check}
    return dataclasses.field(default=default, metadata=metadata)


def between(lowest: float, highest: float) -> dict[str, Any]:
    """For ``setting``: a number in a closed range."""
    return {
        "allowed": f"{lowest} to {highest}",
        "check": lambda value: lowest <= value <= highest,
    }


def one_of(*words: str) -> dict[str, Any]:
    """For ``setting``: one of a few words."""
    return {"allowed": ", ".join(words), "check": lambda value: value in words}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value was written, for messages."""

    place: str
    lines: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)

    def at(self, section: str, key: str = "") -> str:
        """``file, line 7, key gateway.processes``."""
        where = self.line(section, key)
        return f"{where}, key {section}.{key}" if key else f"{where}, section [{section}]"

    def line(self, section: str, key: str = "") -> str:
        """``file, line 7``."""
        line = self.lines.get((section, key)) or self.lines.get((section, ""))
        return f"{self.place}, line {line}" if line else self.place


def read_document(file: Path) -> tuple[dict[str, Any], Source]:
    """The file as TOML, and the lines its keys are on. Raises ``ConfigError``."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"cannot read the configuration {file}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {file}: {error}") from error
    try:
        return tomllib.loads(text), Source(str(file), _lines(text))
    except tomllib.TOMLDecodeError as error:
        found = _SYNTAX_LINE.search(str(error))
        line = f", line {found[1]}" if found else ""
        raise ConfigError(f"{file}{line}: not TOML: {error}") from error


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Line numbers by section and key; tomllib keeps none. What stands before the first section
    (``gateway.processes = 2``, ``gateway = 2``) is found like a section of that name."""
    lines: dict[tuple[str, str], int] = {}
    section: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if names := _TABLE_LINE.match(line):
            section = names[1]
            lines.setdefault((section, names[2] or ""), number)
        elif names := _KEY_LINE.match(line):
            place = (names[1], names[2] or "") if section is None else (section, names[1])
            lines.setdefault(place, number)
    return lines


def read_section(kind: type[Section], name: str, table: object, source: Source) -> Section:
    """One section. Raises ``ConfigError``."""
    if not isinstance(table, dict):
        raise ConfigError(f"{source.at(name)}: expected a section of keys")
    fields = {field.name: field for field in dataclasses.fields(typing.cast("Any", kind))}
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in table.items():
        if key not in fields:
            raise ConfigError(f"{source.at(name, key)}: unknown key; {_suggest(key, fields)}")
        values[key] = _value(hints[key], fields[key], value, source.at(name, key))
    return kind(**values)


def read_override(kind: type[Any], name: str, key: str, text: str, variable: str) -> object:
    """A value out of an environment variable. Raises ``ConfigError``."""
    field = {each.name: each for each in dataclasses.fields(kind)}[key]
    hint = typing.get_type_hints(kind)[key]
    value: object = text
    if hint is bool:
        value = _WORDS.get(text.lower(), text)
    elif hint in {int, float}:
        try:
            value = hint(text)
        except ValueError:
            value = text
    elif _is_list(hint):
        value = [word.strip() for word in text.split(",") if word.strip()]
    return _value(hint, field, value, f"environment variable {variable}, key {name}.{key}")


def _value(hint: Any, field: dataclasses.Field[Any], value: Any, where: str) -> object:
    if _is_list(hint):
        item = typing.get_args(hint)[0]
        if not isinstance(value, list):
            raise ConfigError(f"{where}: {value!r} is not a list{_allowed(field)}")
        converted: Any = tuple(_scalar(item, each, field, where) for each in value)
    else:
        converted = _scalar(hint, value, field, where)
    check: Check | None = field.metadata["check"]
    if check is not None and not check(converted):
        raise ConfigError(f"{where}: {value!r} is not allowed{_allowed(field)}")
    return converted


def _scalar(hint: Any, value: Any, field: dataclasses.Field[Any], where: str) -> Any:
    if hint is Path and isinstance(value, str) and value and value.isprintable():
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: {value!r} is not {_TYPE_NAMES[hint]}{_allowed(field)}")


def _allowed(field: dataclasses.Field[Any]) -> str:
    allowed = field.metadata["allowed"]
    return f"; allowed: {allowed}" if allowed else ""


def _suggest(key: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"


def _is_list(hint: Any) -> bool:
    return typing.get_origin(hint) is tuple


def type_words(hint: Any) -> str:
    """How documentation calls a key's type."""
    if _is_list(hint):
        return f"a list of {_TYPE_NAMES[typing.get_args(hint)[0]].removeprefix('a ')}"
    assert not isinstance(hint, types.UnionType), "a key has one type"
    return _TYPE_NAMES[hint]
