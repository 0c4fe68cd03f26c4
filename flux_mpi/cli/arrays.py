"""From a command line with template tags to the fewest entries of one submission.

An array stays one entry however many members it has: the jobspec with its tags, and the parameters.
Only where a tag changes what a job asks for (``-n {}``) do members need jobspecs of their own; then
every run of equal ones is an entry, so that the order of the jobs is kept.
"""

from __future__ import annotations

import re

from flux_mpi.cli.submission import STRUCTURAL, TEMPLATED, Builder
from flux_mpi.formats import templates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from flux_mpi.formats.idset import IDSet

TAG = re.compile(r"(?<!\{)\{((?:\d+|cc|seq1?)?(?:\.[^{}]*)?)\}(?!\})")
"""A tag of ours: ``{}``, ``{1}``, ``{cc}``, ``{seq}``, ``{.%}``, ``{0./}``, ``{0.name}``."""

TAG_WORDS = re.compile(r"(?<!\{)\{(?:cc|seq1?)\}(?!\})")


class Member:
    """One job to be: its inputs, its place in the sequence, its ``--cc`` id."""

    __slots__ = ("cc", "row", "seq")

    def __init__(self, row: Sequence[str] | None, seq: int, cc: int | None) -> None:
        self.row = row
        self.seq = seq
        self.cc = cc


class Copies:
    """The members of ``--cc``: made when looked at, for there may be a million of them."""

    __slots__ = ("ids",)

    def __init__(self, ids: IDSet) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[k] for k in range(*at.indices(len(self)))]
        return Member(None, at, self.ids.nth(at))

    def __iter__(self) -> Iterator[Member]:
        for seq, cc in enumerate(self.ids):
            yield Member(None, seq, cc)


TagError = templates.TemplateError
has_tags = templates.has_tags


def number_tags(text: str, width: int) -> str:
    """``{} {.%}`` as ``{0} {1.%}``, as Python's format counts; checks the numbers given.

    Raises TagError for an input that is not there.
    """
    counter = 0

    def name(match: re.Match[str]) -> str:
        nonlocal counter
        head, dot, method = match.group(1).partition(".")
        if head in ("cc", "seq", "seq1"):
            return match.group(0)
        if head == "":
            # With one input, every {} means that one: there is nothing else it could.
            index = counter if width != 1 else 0
            counter += 1
        else:
            index = int(head)
        if index >= width:
            raise TagError(f"{match.group(0)} in {text!r}: there is no input {index}, only {width}")
        return f"{{{index}{dot}{method}}}"

    return TAG.sub(name, text)


class Methods:
    """``--define``d methods: a tag ``{0.name}`` becomes an input of its own, worked out here."""

    def __init__(self, definitions: Iterable[str], fail: Callable[[str], Exception]) -> None:
        self.code: dict[str, Any] = {}
        for text in definitions:
            name, equals, source = text.partition("=")
            if not equals or not name:
                raise fail(f"--define: invalid value {text!r}: expected NAME=CODE")
            try:
                self.code[name] = compile(source, name, "eval")
            except SyntaxError as error:
                raise fail(f"--define: {name}: {error.msg}: {source!r}") from None
        self.columns: list[tuple[int, str]] = []
        self._width = 0

    def rewrite(self, text: str, width: int) -> str:
        """``text`` with defined methods replaced by further inputs. Raises TagError."""
        self._width = width

        def name(match: re.Match[str]) -> str:
            head, _, method = match.group(1).partition(".")
            if not method or method in templates.METHODS or not head.isdigit():
                return match.group(0)
            if method not in self.code:
                raise TagError(
                    f"{match.group(0)}: unknown method .{method}: "
                    f"expected one of {', '.join('.' + m for m in templates.METHODS)}"
                    + "".join(f", .{m}" for m in self.code)
                )
            key = (int(head), method)
            if key not in self.columns:
                self.columns.append(key)
            return f"{{{width + self.columns.index(key)}}}"

        return TAG.sub(name, text)

    def extend(self, row: Sequence[str]) -> list[str]:
        """``row`` with the inputs that the rewritten tags need. Raises TagError."""
        extended = list(row)
        for index, method in self.columns:
            try:
                # What the user typed as code on his own command line, as Flux does.
                found = eval(self.code[method], {}, {"x": row[index]})
            except Exception as error:
                raise TagError(
                    f"--define: {method} of {row[index]!r}: {type(error).__name__}: {error}"
                ) from None
            if isinstance(found, (list, tuple)):
                extended.append("\0".join(str(item) for item in found))
            else:
                extended.append(str(found))
        return extended


def map_texts(found: Any, change: Callable[[str], str]) -> Any:
    """``change`` applied to a text or to every text of a list."""
    if isinstance(found, str):
        return change(found)
    if isinstance(found, list):
        return [change(item) if isinstance(item, str) else item for item in found]
    return found


def fill(found: Any, member: Member, total: int) -> Any:
    """A text or list with the member's tags filled in."""
    filled = templates.expand(
        found,
        cc=member.cc,
        row=list(member.row) if member.row is not None else None,
        seq=member.seq,
        nseq=total,
    )
    if isinstance(filled, list) and any("\0" in item for item in filled if isinstance(item, str)):
        # A method that returned a list: each element becomes an argument.
        filled = [part for item in filled for part in str(item).split("\0")]
    return filled


def entries(
    builder: Builder,
    options: dict[str, Any],
    command: list[str],
    members: Sequence[Member] | Copies,
    cc_ids: IDSet | None = None,
    set_cc: bool = False,
) -> list[dict[str, Any]]:
    """The ``entries`` of ``job-ingest.submit`` for ``members``, in their order.

    ``cc_ids`` are the ``--cc`` ids when the members are exactly those (and have no inputs).
    Raises JobError and TagError.
    """
    total = len(members)
    if set_cc:
        options = {**options, "env": [*(options.get("env") or ()), "FLUX_JOB_CC={cc}"]}
    varying = [name for name in STRUCTURAL if has_tags(options.get(name))]
    # An environment rule that is not VAR=VALUE selects variables: that cannot wait.
    rules = options.get("env") or ()
    if any(has_tags(rule) and ("=" not in rule or rule[:1] in "-^") for rule in rules):
        varying.append("env")
    lists = any("\0" in cell for member in members[:1000] for cell in member.row or ())
    inputs = bool(members) and members[0].row is not None
    if lists or _ambient_tags(builder, options, rules, inputs):
        # Tags that were not meant as such would be filled in too: fill in here, one by one.
        return [_single(builder, options, command, member, total) for member in members]
    if not varying:
        spec = builder.build(options, command)
        return [_entry(spec, members, cc_ids, total)]
    found: list[dict[str, Any]] = []
    start = 0
    key = None
    for at in range(total + 1):
        here = [fill(options[name], members[at], total) for name in varying] if at < total else None
        if at and (at == total or here != key):
            filled = {**options, **dict(zip(varying, key or ()))}
            run = members[start:at]
            if total > len(run):
                spec = builder.build(
                    {name: map_texts(val, _pin_seq(run)) for name, val in filled.items()},
                    [_pin_seq(run)(word) for word in command],
                )
                found.append(_entry(spec, _with_seq(run), None, total))
            else:
                found.append(_entry(builder.build(filled, command), run, cc_ids, total))
            start = at
        key = here
    return found


def _entry(
    spec: dict[str, Any], members: Sequence[Member] | Copies, cc_ids: IDSet | None, total: int
) -> dict[str, Any]:
    entry: dict[str, Any] = {"jobspec": spec, "count": len(members)}
    if cc_ids is not None:
        entry["params"] = {"cc": str(cc_ids)}
    elif members[0].row is not None:
        entry["params"] = {"rows": [list(member.row or ()) for member in members]}
    elif members[0].cc is not None:
        from flux_mpi.formats.idset import IDSet

        ids = [member.cc for member in members if member.cc is not None]
        entry["params"] = {"cc": str(IDSet(ids))}
    return entry


def _single(
    builder: Builder, options: dict[str, Any], command: list[str], member: Member, total: int
) -> dict[str, Any]:
    names = [*STRUCTURAL, *(name for name in TEMPLATED if name != "command"), "env"]
    filled = {
        name: fill(val, member, total) if name in names and has_tags(val) else val
        for name, val in options.items()
    }
    return {"jobspec": builder.build(filled, fill(command, member, total))}


def _pin_seq(run: Sequence[Member]) -> Callable[[str], str]:
    """``{seq}`` counts within an entry; in one of several it must be an input instead."""
    width = len(run[0].row or ())
    if run[0].row is None:
        return lambda text: text
    return lambda text: text.replace("{seq}", f"{{{width}}}").replace("{seq1}", f"{{{width + 1}}}")


def _with_seq(run: Sequence[Member]) -> list[Member]:
    return [
        Member(
            None if member.row is None else [*member.row, str(member.seq), str(member.seq + 1)],
            member.seq,
            member.cc,
        )
        for member in run
    ]


def _ambient_tags(
    builder: Builder, options: dict[str, Any], rules: Sequence[str], inputs: bool
) -> bool:
    """True when the inherited environment holds something that looks like a tag of ours."""
    named = {rule.partition("=")[0] for rule in rules if "=" in rule and rule[:1] not in "-^"}
    environ = builder.environ({**options, "env": [r for r in rules if not has_tags(r)] or None})
    suspects = [text for name, text in environ.items() if "{" in text and name not in named]
    # Without inputs only words are tags: {} stays what it is.
    return any(
        has_tags(text) if inputs else TAG_WORDS.search(text) is not None for text in suspects
    )
