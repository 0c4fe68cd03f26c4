"""Lines of a session of ``resource-query``: typed by someone, or read from a file or pipe."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROMPT = "resource-query> "


def say(text: str) -> None:
    """One line on stderr. (``cli.common`` would bring in a client's code, 10 ms of it.)"""
    print(text, file=sys.stderr)


def lines(words: Iterable[str], *, prompt: bool = True) -> Iterator[str]:
    """The lines of standard input; on a terminal with a prompt, history, and completion.

    ``words`` complete what is typed first in a line, file names the rest. Bytes that are not
    UTF-8 pass through as they are.
    """
    if sys.stdin.isatty():
        yield from _typed(list(words), PROMPT if prompt else "")
        return
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "surrogateescape")


def _typed(words: list[str], prompt: str) -> Iterator[str]:
    try:
        import readline
    except ImportError:
        pass
    else:
        readline.set_completer(_Completer(words, readline.get_begidx).complete)
        readline.set_completer_delims(" \t\n")
        readline.parse_and_bind("tab: complete")
    while True:
        try:
            line = input(prompt)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        yield line


class _Completer:
    def __init__(self, words: list[str], begin: object) -> None:
        self.words = words
        self.begin = begin
        self.found: list[str] = []

    def complete(self, text: str, state: int) -> str | None:
        if state == 0:
            if self.begin() == 0:  # type: ignore[operator]
                self.found = [f"{word} " for word in self.words if word.startswith(text)]
            else:
                import glob
                import os

                paths = sorted(glob.glob(f"{glob.escape(text)}*"))
                self.found = [f"{path}/" if os.path.isdir(path) else path for path in paths]
        return self.found[state] if state < len(self.found) else None
