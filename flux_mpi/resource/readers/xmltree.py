"""XML as a small tree, read by expat without ever expanding what a document type declares."""

from __future__ import annotations

import pyexpat

from flux_mpi.resource.readers.errors import MAX_NAME, ReaderError, shown

MAX_DEPTH = 256
"""Elements nested deeper are refused; a deep machine has some twenty levels."""

MAX_TEXT = 1 << 20
"""Longest attribute or text of one element, in characters."""


class Element:
    """One element: its tag, attributes, text (stripped), children and line."""

    __slots__ = ("attributes", "children", "line", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str], line: int) -> None:
        self.tag = tag
        self.attributes = attributes
        self.children: list[Element] = []
        self.text = ""
        self.line = line


class _Builder:
    """Takes expat's events and keeps the tree within its bounds."""

    def __init__(self, format: str) -> None:
        self.format = format
        self.root: Element | None = None
        self._open: list[Element] = []
        self._texts: list[list[str]] = []
        self._n_chars: list[int] = []
        self.parser = parser = pyexpat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        # Names declared in the document, which may stand for gigabytes, are refused where they
        # are declared; a document type alone (hwloc writes one) is harmless, as nothing is loaded.
        parser.EntityDeclHandler = self._entity
        parser.SkippedEntityHandler = self._skipped

    def fail(self, what: str) -> ReaderError:
        return ReaderError(f"{self.format}: line {self.parser.CurrentLineNumber}: {what}")

    def _entity(self, name: str, *_rest: object) -> None:
        raise self.fail(f"expected no entity declarations, found one of {shown(name)}")

    def _skipped(self, name: str, _is_parameter: bool) -> None:
        raise self.fail(f"expected text, found the entity {shown(name)}, declared elsewhere")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise self.fail(f"expected at most {MAX_DEPTH} nested elements, found more")
        if len(tag) > MAX_NAME:
            raise self.fail(f"expected at most {MAX_NAME} characters of a tag, found {len(tag)}")
        for key, value in attributes.items():
            if len(key) > MAX_NAME or len(value) > MAX_TEXT:
                raise self.fail(
                    f"attribute {shown(key)}: expected at most {MAX_TEXT} characters, "
                    f"found {len(value)}"
                )
        element = Element(tag, attributes, self.parser.CurrentLineNumber)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)
        self._texts.append([])
        self._n_chars.append(0)

    def _end(self, _tag: str) -> None:
        self._n_chars.pop()
        self._open.pop().text = "".join(self._texts.pop()).strip()

    def _characters(self, text: str) -> None:
        self._n_chars[-1] += len(text)
        if self._n_chars[-1] > MAX_TEXT:
            raise self.fail(
                f"expected at most {MAX_TEXT} characters in <{self._open[-1].tag}>, found more"
            )
        self._texts[-1].append(text)


def parse(format: str, text: str) -> Element:
    """The root element of ``text``; raises `ReaderError` with the line."""
    builder = _Builder(format)
    try:
        builder.parser.Parse(text, True)
    except pyexpat.ExpatError as err:
        raise ReaderError(
            f"{format}: line {err.lineno} column {err.offset + 1}: expected XML, found none "
            f"({pyexpat.errors.messages.get(err.code, 'malformed')})"
        ) from None
    except UnicodeEncodeError:
        raise ReaderError(f"{format}: expected Unicode text, found a lone surrogate") from None
    if builder.root is None:
        raise ReaderError(f"{format}: expected a root element, found nothing")
    return builder.root
