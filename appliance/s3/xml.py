"""XML in and out of the S3 front.

Owns the bounded parsing of request documents and the escaping of every answer. Refuses documents
that are too long, not well-formed, or that declare a document type (entities are never expanded):
all of them ``MalformedXML``. Namespaces are ignored on input, and always written on output.
Answers are built as text, because a listing of a thousand keys is mostly this module's time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from appliance.core.errors import S3Error

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
INSTANCE_NAMESPACE: Final = "http://www.w3.org/2001/XMLSchema-instance"
DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
CONTENT_TYPE: Final = "application/xml"
DOCUMENT_BYTES_MAX: Final = 8 * 1024 * 1024
"""A thousand of the longest keys, every character escaped, and ten thousand parts stay below."""

_NEEDS_ESCAPE: Final = re.compile('[&<>"\x00-\x1f\x7f\ufffe\uffff]')
_ILLEGAL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_ENCODED_IN_URL: Final = re.compile(rb"[^A-Za-z0-9_.~/-]")
_PLAIN_IN_URL: Final = re.compile(r"[A-Za-z0-9_.~/-]*")
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": "\n", "\t": "\t"}


class Document:
    """One element of a request document, with the namespaces taken off."""

    __slots__ = ("_element",)

    def __init__(self, source: Element) -> None:
        self._element = source

    @property
    def name(self) -> str:
        """The element's local name."""
        return _local(self._element.tag)

    @property
    def text(self) -> str:
        """The text directly inside, as sent."""
        return self._element.text or ""

    def __iter__(self) -> Iterator[Document]:
        for child in self._element:
            yield Document(child)

    def all(self, name: str) -> list[Document]:
        """The children of this local name, in order."""
        return [Document(child) for child in self._element if _local(child.tag) == name]

    def optional(self, name: str) -> str | None:
        """The stripped text of the only child of this name, None if there is none.

        Raises ``MalformedXML`` where the child appears twice.
        """
        found = [child for child in self._element if _local(child.tag) == name]
        if len(found) > 1:
            raise S3Error("MalformedXML")
        return (found[0].text or "").strip() if found else None

    def required(self, name: str) -> str:
        """As ``optional``; raises ``MalformedXML`` where the child is absent."""
        value = self.optional(name)
        if value is None:
            raise S3Error("MalformedXML")
        return value

    def texts(self) -> dict[str, str]:
        """Every child's stripped text by its name, in one pass: for lists of thousands.

        Raises ``MalformedXML`` where a child appears twice.
        """
        found = {_local(child.tag): (child.text or "").strip() for child in self._element}
        if len(found) != len(self._element):
            raise S3Error("MalformedXML")
        return found

    def exact(self, name: str) -> str:
        """The only child's text with its white space: for keys, where every byte counts."""
        found = [child for child in self._element if _local(child.tag) == name]
        if len(found) != 1:
            raise S3Error("MalformedXML")
        return found[0].text or ""


def _local(tag: object) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def parse(body: bytes, root: str) -> Document:
    """The root element of a request document named ``root``; raises ``MalformedXML``."""
    if len(body) > DOCUMENT_BYTES_MAX:
        raise S3Error("MalformedXML")
    try:
        parsed = Document(fromstring(body, forbid_dtd=True))
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        # An unknown or multi-byte declared encoding is a LookupError or ValueError.
        raise S3Error("MalformedXML") from error
    if parsed.name != root:
        raise S3Error("MalformedXML")
    return parsed


def escape(text: str) -> str:
    """Text as element content. Control characters become character references, as AWS does, so
    that a key with one comes back as the same key in a lenient reader."""
    if _NEEDS_ESCAPE.search(text) is None:
        return text
    return _NEEDS_ESCAPE.sub(_reference, text)


def _reference(match: re.Match[str]) -> str:
    character = match.group()
    return _ENTITIES.get(character) or f"&#x{ord(character):x};"


def printable(text: str) -> str:
    """Text with every character XML 1.0 cannot carry replaced: for documents that must always
    parse, like errors."""
    return _ILLEGAL.sub("\ufffd", text)


def element(name: str, text: str) -> str:
    """``<name>text</name>``, escaped."""
    return f"<{name}>{escape(text)}</{name}>"


def optional_element(name: str, text: str | None) -> str:
    """As ``element``, nothing at all for None."""
    return "" if text is None else f"<{name}>{escape(text)}</{name}>"


def document(root: str, *pieces: str) -> bytes:
    """A whole answer in the S3 namespace."""
    return f'{DECLARATION}<{root} xmlns="{NAMESPACE}">{"".join(pieces)}</{root}>'.encode()


def url_encoded(text: str) -> str:
    """How ``encoding-type=url`` writes keys: space is ``%20`` and ``/`` stays."""
    if _PLAIN_IN_URL.fullmatch(text) is not None:
        return text
    return _ENCODED_IN_URL.sub(_percent, text.encode()).decode("ascii")


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match.group()[0]


def owner_element(name: str, user_id: str, display_name: str) -> str:
    """``Owner`` or ``Initiator``."""
    return (
        f"<{name}><ID>{escape(user_id)}</ID>"
        f"<DisplayName>{escape(display_name)}</DisplayName></{name}>"
    )
