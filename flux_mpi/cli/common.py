"""What several commands share: a connection, job ids as people type and read them, messages."""

from __future__ import annotations

import os
import sys

from flux_mpi.cli.options import UsageError
from flux_mpi.client.handle import Handle
from flux_mpi.formats import fluid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def connect() -> Handle:
    """The instance that ``FLUX_URI`` names; raises FluxError, which ``main`` prints."""
    return Handle()


def say(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr)


def id_form() -> str:
    """``f58`` where the terminal can show ƒ, else ``f58plain``.

    Python itself pretends that the C locale is UTF-8 (PEP 538, 540), so the environment is asked
    and not Python. ``FLUX_F58_FORCE_ASCII`` forces plain ids, as in Flux.
    """
    environ = os.environ
    if environ.get("FLUX_F58_FORCE_ASCII"):
        return "f58plain"
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or "C"
    if locale == "C.UTF-8" and not environ.get("LC_ALL") and environ.get("LANG", "C") == "C":
        # PEP 538 puts LC_CTYPE=C.UTF-8 there when the user has set nothing: look at the original.
        try:
            with open("/proc/self/environ", "rb") as original:
                if b"LC_CTYPE=" not in original.read():
                    locale = "C"
        except OSError:
            locale = "C"
    codeset = locale.partition(".")[2].partition("@")[0].replace("-", "").lower()
    return "f58" if codeset == "utf8" else "f58plain"


class Ids:
    """Prints ids in the form that suits the terminal."""

    __slots__ = ("_encode", "_form")

    def __init__(self) -> None:
        self._form = id_form()
        self._encode = fluid.encode

    def __call__(self, job: int) -> str:
        return self._encode(job, self._form)


def parse_id(text: str, prog: str = "flux-job", status: int = 1) -> int:
    """A job id in any spelling. Raises UsageError in Flux's words."""
    try:
        return fluid.parse(text)
    except ValueError:
        raise UsageError(f"{prog}: invalid job id {text!r}", status) from None


def job_paths(texts: Iterable[str], prog: str) -> dict[str, list[int]]:
    """Operands that are jobs here, or ``ƒ1/ƒ2``: jobs of instances further down.

    Ids by the instance they are in ('' = this one), as a target of `client.target`. A path that
    ends with a slash, a dot or two is an instance, and all its jobs: no ids. Raises UsageError.
    """
    found: dict[str, list[int]] = {}
    for text in texts:
        where, slash, last = text.rpartition("/")
        if last in ("", ".", "..") and text:
            found.setdefault(text, [])
        else:
            found.setdefault(where or slash, []).append(parse_id(last, prog))
    return found


class Elsewhere:
    """``with`` the instance at ``where``, a target; '' is that of ``handle``."""

    __slots__ = ("_given", "_own", "_where")

    def __init__(self, handle: Handle, where: str) -> None:
        self._given = handle
        self._where = where
        self._own: Handle | None = None

    def __enter__(self) -> Handle:
        if not self._where:
            return self._given
        from flux_mpi.client.target import resolve

        self._own = Handle(resolve(self._where))
        return self._own

    def __exit__(self, *details: object) -> None:
        if self._own is not None:
            self._own.close()


def shown_path(where: str, job: int) -> str:
    """A job as it was asked for."""
    return f"{where.rstrip('/')}/{Ids()(job)}" if where else Ids()(job)


def parse_ids(texts: Iterable[str], command: Any) -> list[int]:
    """Job ids that are operands; a bad one is a usage error."""
    found = []
    for text in texts:
        try:
            found.append(fluid.parse(text))
        except ValueError:
            command.fail(f"invalid job id: {text!r}")
    return found


def parse_signal(text: str) -> int:
    """``TERM``, ``SIGTERM`` or ``15``. Raises ValueError."""
    import signal

    if text.isdigit() and 0 < int(text) < signal.NSIG:
        return int(text)
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise ValueError(
            f"invalid signal {text!r}: expected a name such as TERM, or 1 to {signal.NSIG - 1}"
        ) from None


def parse_user(text: str) -> int | None:
    """A uid from a name or number; None for ``all``. Raises ValueError."""
    if text == "all":
        return None
    if text.isdigit():
        return int(text)
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ValueError(f"unknown user {text!r}") from None


def parse_since(text: str, now: float) -> float:
    """A moment in the past as Unix time: seconds, ``-1h``, ``yesterday``, a time of day, a date.

    Raises ValueError, also for what lies ahead.
    """
    from flux_mpi.formats.timefmt import parse_datetime

    try:
        when = float(text) if text[:1] not in "+-" else parse_datetime(text, now)
    except ValueError:
        word = text.strip().lower()
        if word.startswith("yesterday"):
            when = parse_datetime("today" + word[len("yesterday") :], now) - 86400
        else:
            when = parse_datetime(text, now)
            if when > now and ":" in text and "-" not in text and not word.startswith("tom"):
                # A time of day alone is the latest one, as "since" looks back.
                when -= 86400
    if when > now:
        raise ValueError(f"{text!r} appears to be in the future")
    return when


def colored(when: str | None) -> bool:
    """Whether to use colours: ``always``, ``never``, or ``auto`` (on a terminal)."""
    return when == "always" or (when in (None, "auto") and sys.stdout.isatty())


def terminal_width(default: int = 80) -> int:
    """Columns of the terminal, from COLUMNS or the terminal itself."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or default
    except (OSError, ValueError):
        return default


def choose_format(text: str | None, named: dict[str, tuple[str, str]], variable: str) -> str:
    """A format string from a name or a string; ``variable`` may set another default.

    Raises UsageError when a name is unknown.
    """
    text = text or os.environ.get(variable) or "default"
    if text in named:
        return named[text][1]
    if "{" not in text:
        raise UsageError(
            f"unknown format {text!r}: expected a name ({', '.join(named)}, help) "
            "or a string with {fields}",
            1,
        )
    return text


def print_formats(title: str, named: dict[str, tuple[str, str]]) -> None:
    """What ``-o help`` prints."""
    print(f"\nConfigured {title} output formats:\n")
    width = max(map(len, named)) + 4
    for name, (meaning, _) in named.items():
        print(f"  {name:<{width}}{meaning}")
