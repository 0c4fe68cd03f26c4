"""Options inside batch scripts: ``# flux: -N4 --queue=batch`` (RFC 36)."""

from __future__ import annotations

import re

_SENTINEL = re.compile(r"([^\w]*)((?:flux|FLUX):)(.*)", re.DOTALL)
_QUOTES = ("'''", '"""')


class DirectiveError(ValueError):
    """A directive that cannot be read; the text begins with its line number."""

    def __init__(self, lineno: int, reason: str) -> None:
        super().__init__(f"line {lineno}: {reason}")
        self.lineno = lineno


class Directive:
    """One directive: the line on which it begins (from 1) and its words."""

    __slots__ = ("args", "lineno")

    def __init__(self, lineno: int, args: list[str]) -> None:
        self.lineno = lineno
        self.args = args

    def __repr__(self) -> str:
        return f"Directive({self.lineno}, {self.args!r})"


def options(script: str) -> list[str]:
    """The command-line options that all directives of ``script`` add up to, in their order."""
    return [arg for directive in parse(script) for arg in directive.args]


def parse(script: str) -> list[Directive]:
    """The directives of ``script`` that are not empty.

    All have the same sentinel (what precedes ``flux:``, and ``flux:`` itself). They end at the
    first line that is not blank and does not begin with the sentinel's prefix. A value may span
    lines between triple quotes at line ends. Raises `DirectiveError`.
    """
    return _Parser().parse(script)


class _Parser:
    def __init__(self) -> None:
        self.directives: list[Directive] = []
        self.prefix: str | None = None
        self.sentinel = ""
        self.ended_at = 0
        # A value that spans lines: where it began, what precedes it, its quotes, indent and lines.
        self.open_at = 0
        self.head = ""
        self.quotes = ""
        self.indent = ""
        self.body: list[str] = []

    def parse(self, script: str) -> list[Directive]:
        lineno = 0
        for lineno, line in enumerate(script.splitlines(), 1):
            match = _SENTINEL.match(line)
            if match is None:
                self.other(lineno, line)
            else:
                self.check_sentinel(lineno, match[1], match[2])
                self.directive(lineno, match[3])
        if self.open_at:
            raise DirectiveError(self.open_at, f"unterminated triple quote: {self.head.strip()!r}")
        return self.directives

    def other(self, lineno: int, line: str) -> None:
        if self.open_at:
            raise DirectiveError(
                lineno, f"expected {self.sentinel!r} inside the triple quote of line {self.open_at}"
            )
        if self.prefix is None or self.ended_at or not line.strip():
            return
        if not line.startswith(self.prefix.rstrip()):
            self.ended_at = lineno

    def check_sentinel(self, lineno: int, prefix: str, tag: str) -> None:
        if self.ended_at:
            raise DirectiveError(
                lineno,
                f"orphan {tag!r}: directives ended at line {self.ended_at}, the first that does "
                f"not begin with {(self.prefix or '').rstrip()!r}",
            )
        if self.prefix is None:
            self.prefix, self.sentinel = prefix, prefix + tag
        elif prefix + tag != self.sentinel:
            raise DirectiveError(
                lineno,
                f"sentinel changed from {self.sentinel!r} to {prefix + tag!r}: to disable a "
                f"directive, put the # behind it, {self.sentinel + ' #'!r}",
            )

    def directive(self, lineno: int, value: str) -> None:
        if self.open_at:
            self.continued(value)
            return
        stripped = value.rstrip()
        for quotes in _QUOTES:
            if stripped.endswith(quotes) and _opens(stripped, quotes):
                self.open_at = lineno
                self.head = stripped[: -len(quotes)]
                self.quotes = quotes
                self.indent = value[: len(value) - len(value.lstrip())]
                self.body = []
                return
        self.add(lineno, split(value, lineno))

    def continued(self, value: str) -> None:
        ended = value.rstrip().endswith(self.quotes)
        text = value.removeprefix(self.indent)
        if ended:
            text = text.rstrip()[: -len(self.quotes)]
        self.body.append(text)
        if ended:
            lineno, self.open_at = self.open_at, 0
            words = split(self.head, lineno, literal="\n".join(self.body))
            self.add(lineno, words)

    def add(self, lineno: int, words: list[str]) -> None:
        if not words:
            return
        if not words[0].startswith("-"):
            raise DirectiveError(
                lineno, f"unknown directive {words[0][:48]!r}: expected options, beginning with -"
            )
        self.directives.append(Directive(lineno, words))


def _opens(value: str, quotes: str) -> bool:
    """Whether the quotes at the end of ``value`` begin a value rather than end one."""
    found = 0
    inside = ""
    at = 0
    while at < len(value):
        three = value[at : at + 3]
        if three in _QUOTES and inside in ("", three):
            inside = "" if inside else three
            found = at
            at += 3
        elif not inside and value[at] == "#":
            return False  # a comment until the end of the line
        elif not inside and value[at] in "'\"":
            end = value.find(value[at], at + 1)
            at = len(value) if end < 0 else end + 1
        else:
            at += 1
    return inside == quotes and found == len(value) - 3


def split(value: str, lineno: int = 1, literal: str | None = None) -> list[str]:
    """``value`` in words by the rules of the POSIX shell, and triple quotes as in Python.

    An unquoted ``#`` begins a comment. ``literal`` is added to the last word as it is. Raises
    `DirectiveError` naming ``lineno`` for a quote that is not closed.
    """
    words: list[str] = []
    word: str | None = None
    at = 0
    while at < len(value):
        char = value[at]
        if char in " \t\r\n":
            if word is not None:
                words.append(word)
                word = None
            at += 1
        elif char == "#":
            break
        elif char == "\\":
            if at + 1 == len(value):
                raise DirectiveError(
                    lineno, f"nothing follows the last \\ of {value.strip()[:64]!r}"
                )
            word = (word or "") + value[at + 1]
            at += 2
        elif char in "'\"":
            text, at = _quoted(value, at, lineno)
            word = (word or "") + text
        else:
            word = (word or "") + char
            at += 1
    if literal is not None:
        word = (word or "") + literal
    if word is not None:
        words.append(word)
    return words


def _quoted(value: str, at: int, lineno: int) -> tuple[str, int]:
    """The text of the quotation that begins at ``at``, and where it ends."""
    quote = value[at]
    if value[at : at + 3] in _QUOTES:
        end = value.find(value[at : at + 3], at + 3)
        if end < 0:
            raise DirectiveError(lineno, f"unclosed triple quote: {value.strip()[:64]!r}")
        # A quote right before the closing three belongs to the text.
        while value[end + 3 : end + 4] == quote:
            end += 1
        return value[at + 3 : end], end + 3
    text = ""
    i = at + 1
    while i < len(value):
        char = value[i]
        if char == quote:
            return text, i + 1
        if char == "\\" and quote == '"' and value[i + 1 : i + 2] in ("\\", '"', "$", "`"):
            i += 1
            char = value[i]
        text += char
        i += 1
    raise DirectiveError(lineno, f"no closing quotation for {quote} in {value.strip()[:64]!r}")
