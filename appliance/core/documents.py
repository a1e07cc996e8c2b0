"""Frozen dataclasses to JSON documents and back.

Owns the one mapping that the admin API and its client share: fields by name, enums by value, tuples
as lists. Unknown fields are passed over and missing ones take their default, so that a client and a
server one version apart understand each other. Refuses anything that is not such a type.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any, TypeVar

from appliance.core.errors import InvalidInput

T = TypeVar("T")


def to_document(value: object) -> Any:
    """What ``json.dumps`` takes."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [to_document(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: to_document(getattr(value, name)) for name in names}
    raise TypeError(f"{type(value).__name__} has no place in a document")


def from_document(kind: type[T], document: object) -> T:
    """The value of ``kind`` that ``document`` describes. Raises ``InvalidInput``."""
    return typing.cast(T, _read(kind, document))


def _read(kind: Any, document: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _read_optional(kind, document)
    if origin is tuple:
        if not isinstance(document, list):
            raise _unexpected("a list", document)
        item = typing.get_args(kind)[0]
        return tuple(_read(item, each) for each in document)
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, document)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(document)
        except ValueError as error:
            raise _unexpected(f"one of {[each.value for each in kind]}", document) from error
    if kind is float and isinstance(document, int) and not isinstance(document, bool):
        return float(document)
    if not isinstance(document, kind) or (kind is int and isinstance(document, bool)):
        raise _unexpected(kind.__name__, document)
    return document


def _read_optional(kind: Any, document: Any) -> Any:
    if document is None:
        return None
    (inner,) = (each for each in typing.get_args(kind) if each is not types.NoneType)
    return _read(inner, document)


def _read_fields(kind: Any, document: Any) -> Any:
    if not isinstance(document, dict):
        raise _unexpected("an object", document)
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind) if field.name in document]
    try:
        return kind(**{name: _read(hints[name], document[name]) for name in known})
    except TypeError as error:
        raise InvalidInput(f"cannot read a {kind.__name__}: {error}") from error


def _unexpected(wanted: str, document: object) -> InvalidInput:
    return InvalidInput(f"cannot read the document: {document!r} is not {wanted}")
