"""Resources on the command line: ``slot=4/node/[core=2;gpu]`` (RFC 46).

A shape string is a compact spelling of the ``resources`` list of a jobspec (RFC 14).
"""

from __future__ import annotations

import json
import re

from flux_mpi.formats.counts import Count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 60
"""Nested levels of resources or of objects; a jobspec cannot hold more anyway."""

DEFAULT_LABEL = "default"

_SPECIAL = r"\[\]{};/=:,\s\""
_WORD = re.compile(rf"[^{_SPECIAL}]+")
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_COUNT = re.compile(r"\[[^\[\]]*\]|[^\[\]{};/\s]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_SIGNED_KEY = re.compile(r"[+-][A-Za-z_]")
_CONSTANTS = {"true": True, "false": False, "null": None}


class ShapeStringError(ValueError):
    """A shape string that cannot be read; the text says what was found where."""


def parse(text: str) -> list[dict[str, Any]]:
    """The list of resource vertices (RFC 14) that ``text`` means.

    Ranges become objects as in the RFC's examples, other sets of counts stay strings. A slot
    without a label is called ``default``, which only the single slot of a string may be. Raises
    `ShapeStringError`.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.slots = 0
        self.unlabelled = 0

    def error(self, expected: str) -> ShapeStringError:
        found = repr(self.text[self.at : self.at + 16]) if self.at < len(self.text) else "its end"
        shown = repr(self.text if len(self.text) <= 64 else self.text[:61] + "...")
        return ShapeStringError(
            f"shape {shown}: expected {expected} at position {self.at}, found {found}"
        )

    def peek(self) -> str:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def take(self, char: str) -> bool:
        if self.peek() != char:
            return False
        self.at += 1
        return True

    def match(self, pattern: re.Pattern[str], expected: str) -> str:
        self.peek()
        match = pattern.match(self.text, self.at)
        if match is None:
            raise self.error(expected)
        self.at = match.end()
        return match[0]

    def parse(self) -> list[dict[str, Any]]:
        vertices = self.vertices(1)
        if self.peek():
            raise self.error("nothing more")
        if self.unlabelled and self.slots > 1:
            raise ShapeStringError(
                f"shape: {self.unlabelled} of {self.slots} slots have no label: "
                "expected slot{LABEL} when there are several"
            )
        return vertices

    def vertices(self, depth: int) -> list[dict[str, Any]]:
        if depth > MAX_DEPTH:
            raise self.error(f"at most {MAX_DEPTH} levels")
        if not self.take("["):
            return [self.vertex(depth)]
        found = [self.vertex(depth)]
        while self.take(";"):
            found.append(self.vertex(depth))
        if not self.take("]"):
            raise self.error("; or ]")
        return found

    def vertex(self, depth: int) -> dict[str, Any]:
        kind = self.string("a resource type")
        if not kind:
            raise self.error("a resource type")
        vertex: dict[str, Any] = {"type": kind, "count": 1}
        if self.take("="):
            vertex["count"] = self.count()
        keys: dict[str, Any] = {}
        if kind == "slot":
            self.slots += 1
            keys["label"] = DEFAULT_LABEL
            if self.peek() == "{":
                self.at += 1
                keys["label"] = self.string("the slot's label first")
                if self.peek() not in (",", "}"):
                    raise self.error("the slot's label first, then , or }")
                if self.take(","):
                    keys.update(self.items(depth))
                elif not self.take("}"):
                    raise self.error("}")
            else:
                self.unlabelled += 1
        elif self.take("{"):
            keys = self.items(depth)
        for key in keys:
            if key in ("type", "count", "with"):
                raise self.error(f"no {key!r} in braces")
        vertex.update(keys)
        if self.take("/"):
            vertex["with"] = self.vertices(depth + 1)
        elif kind == "slot":
            raise self.error("/ and what the slot contains")
        return vertex

    def count(self) -> int | str | dict[str, Any]:
        text = self.match(_COUNT, "a count")
        try:
            count = Count.parse(text)
        except ValueError as err:
            raise ShapeStringError(f"shape: count {text[:32]!r}: {err}") from None
        if count.fixed and count.ids is not None:
            return count.minimum
        if count.ids is not None and len(list(count.ids.ranges())) > 1:
            return str(count)
        obj: dict[str, Any] = {"min": count.minimum}
        if count.maximum is not None:
            obj["max"] = count.maximum
        if count.maximum is not None or count.operator != "+" or count.operand != 1:
            obj.update(operator=count.operator, operand=count.operand)
        return obj

    def items(self, depth: int) -> dict[str, Any]:
        """``key:value, +flag, -flag`` up to the closing brace, the opening one being behind us."""
        if depth > MAX_DEPTH:
            raise self.error(f"at most {MAX_DEPTH} levels")
        found: dict[str, Any] = {}
        if self.take("}"):
            return found
        while True:
            value: Any = True
            self.peek()
            if _SIGNED_KEY.match(self.text, self.at):
                value = self.text[self.at] == "+"
                self.at += 1
                key = self.string("a key")
            else:
                key = self.string("a key")
                if self.take(":"):
                    value = self.value(depth)
            key = "exclusive" if key == "x" else key
            if key in found:
                raise self.error(f"no second {key!r}")
            found[key] = value
            if self.take("}"):
                return found
            if not self.take(","):
                raise self.error(", or }")

    def value(self, depth: int) -> Any:
        char = self.peek()
        if char == "{":
            self.at += 1
            return self.items(depth + 1)
        if char == "[":
            if depth > MAX_DEPTH:
                raise self.error(f"at most {MAX_DEPTH} levels")
            self.at += 1
            found: list[Any] = []
            if self.take("]"):
                return found
            while True:
                found.append(self.value(depth + 1))
                if self.take("]"):
                    return found
                if not self.take(","):
                    raise self.error(", or ]")
        if char == '"':
            return self.string("a value")
        word = self.match(_WORD, "a value")
        if word in _CONSTANTS:
            return _CONSTANTS[word]
        if _NUMBER.fullmatch(word) and len(word) < 40:
            return json.loads(word)
        return word

    def string(self, expected: str) -> str:
        if self.peek() != '"':
            return self.match(_WORD, expected)
        quoted = self.match(_JSON_STRING, f"{expected} with a closing quote")
        try:
            return str(json.loads(quoted))
        except ValueError:
            raise self.error(f"{expected} as a JSON string before this") from None
