"""Two kinds of tags in jobspecs, told apart by their braces.

* ``{cc}``, ``{}``, ``{0./%}``, ``{seq}``: what differs between the members of an array
  (flux-bulksubmit(1)); `expand` fills them in for one member. Members are alike otherwise, so
  the client, ``job-info`` and the rank that runs a member all do it with this function.
* ``{{id}}``, ``{{taskid}}``: what the job shell knows when a task starts (flux-submit(1));
  `expand_shell` fills them in. Whatever is in double braces, `expand` leaves alone.

Braces around anything else, such as ``awk '{print $1}'``, are ordinary text.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_TAG = re.compile(r"(?<!\{)\{(?:(cc|seq1?)|([0-9]*)(?:\.([^{}]*))?)\}(?!\})", re.ASCII)
_SHELL_TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)

METHODS = ("%", "/", "//", "/%")
"""What a tag may do to an input: drop the extension, basename, dirname, basename without it."""


class TemplateError(ValueError):
    """A tag that cannot be filled in; the text names it, its string and what there is."""


def has_tags(obj: Any) -> bool:
    """Whether any string in ``obj`` (nested lists and dicts) has a tag that `expand` may fill."""
    if isinstance(obj, str):
        return "{" in obj and _TAG.search(obj) is not None
    if isinstance(obj, dict):
        return any(has_tags(value) for value in obj.values())
    if isinstance(obj, (list, tuple)):
        return any(has_tags(value) for value in obj)
    return False


def expand(
    obj: Any,
    *,
    cc: int | str | None = None,
    row: Sequence[str] | None = None,
    seq: int | None = None,
    nseq: int | None = None,
) -> Any:
    """``obj`` with the tags of one array member filled in, in every string of lists and dicts.

    ``cc`` is the member's ``--cc`` id, ``row`` its inputs, ``seq`` its number from 0 (of ``nseq``).

    * ``{cc}``: the id; nothing when the member has inputs but no id
    * ``{seq}``, ``{seq1}``: the number from 0, from 1
    * ``{}``: the input; when there are several, each ``{}`` of a string is the next one
    * ``{1}``: input number 1, from 0
    * ``{.%} {./} {.//} {./%}``, also as ``{1.%}``: the input without its extension, its basename,
      its dirname, its basename without extension

    Keys of dicts and what is no string stay; parts without tags are returned as they are, not
    copied. Tags whose parameter is not given at all stay as text. Raises `TemplateError` for an
    input that is not there and an unknown method.
    """
    values: dict[str, str] = {}
    if cc is not None:
        values["cc"] = str(cc)
    elif row is not None:
        values["cc"] = ""
    if seq is not None:
        values["seq"] = str(seq)
        values["seq1"] = str(seq + 1)
    if not values and row is None:
        return obj
    return _map(obj, lambda text: _fill(text, values, row))


def _map(obj: Any, change: Callable[[str], str]) -> Any:
    """``change`` applied to all strings; what does not change is shared with ``obj``."""
    if isinstance(obj, str):
        return change(obj) if "{" in obj else obj
    if isinstance(obj, dict):
        changed = {}
        for key, value in obj.items():
            new = _map(value, change)
            if new is not value:
                changed[key] = new
        # dict(obj) first, so that the order of the keys stays.
        return {**obj, **changed} if changed else obj
    if isinstance(obj, (list, tuple)):
        items = [_map(value, change) for value in obj]
        if all(new is old for new, old in zip(items, obj, strict=True)):
            return obj
        return items
    return obj


def _fill(text: str, values: dict[str, str], row: Sequence[str] | None) -> str:
    unnumbered = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal unnumbered
        word, number, method = match.groups()
        if word is not None:
            return values.get(word, match[0])
        if row is None:
            return match[0]
        if number:
            index = int(number) if len(number) < 10 else len(row)
        else:
            # With one input there is nothing else that {} could mean, however often it is there.
            index = unnumbered if len(row) > 1 else 0
            unnumbered += 1
        if index >= len(row):
            raise TemplateError(
                f"{match[0][:40]} in {_shown(text)}: there is no input {number or index}, "
                f"only {len(row)}"
            )
        return _apply(method, row[index], match[0], text)

    new = _TAG.sub(replace, text)
    return text if new == text else new


def _apply(method: str | None, value: str, tag: str, text: str) -> str:
    if method is None:
        return value
    if method not in METHODS:
        raise TemplateError(
            f"{tag[:40]} in {_shown(text)}: expected one of {' '.join(METHODS)} after the dot"
        )
    head, slash, tail = value.rpartition("/")
    if method == "//":
        # As dirname(1) in Python: trailing slashes go, unless there is nothing else.
        return (head + slash).rstrip("/") or head + slash
    if method == "/":
        return tail
    # A leading dot begins a name and not an extension.
    stem, dot, _ = tail.rpartition(".")
    if not dot or not stem.strip("."):
        stem = tail
    return stem if method == "/%" else head + slash + stem


def _shown(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:61] + "...")


def expand_shell(
    text: str,
    *,
    jobid: int | None = None,
    name: str | None = None,
    nnodes: int | None = None,
    size: int | None = None,
    nodeid: int | None = None,
    hostname: str | None = None,
    broker_rank: int | None = None,
    cores: str | None = None,
    gpus: str | None = None,
    taskid: int | None = None,
    localid: int | None = None,
    tmpdir: str | None = None,
) -> str:
    """``text`` with the tags of the job shell filled in; unknown ones, and what is None, stay.

    ``{{id}}`` ``{{jobid}}`` (``{{id.f58}}`` and the other forms of RFC 19), ``{{name}}``,
    ``{{nnodes}}``, ``{{size}}`` ``{{ntasks}}``, ``{{node.id}}`` ``.name`` ``.broker_rank``
    ``.cores`` ``.gpus`` (idsets) ``.ncores`` ``.ngpus``, ``{{taskid}}`` ``{{task.id}}``
    ``{{task.rank}}``, ``{{task.index}}`` ``{{task.localid}}``, ``{{tmpdir}}``.
    """
    if "{{" not in text:
        return text
    plain = {
        "name": name,
        "nnodes": nnodes,
        "size": size,
        "ntasks": size,
        "node.id": nodeid,
        "node.name": hostname,
        "node.broker_rank": broker_rank,
        "node.cores": cores,
        "node.gpus": gpus,
        "taskid": taskid,
        "task.id": taskid,
        "task.rank": taskid,
        "task.index": localid,
        "task.localid": localid,
        "tmpdir": tmpdir,
    }

    def replace(match: re.Match[str]) -> str:
        tag = match[1]
        value: object = plain.get(tag)
        if value is None:
            kind, _, form = tag.partition(".")
            if kind in ("id", "jobid") and jobid is not None:
                value = _jobid(jobid, form if "." in tag else "f58")
            elif tag == "node.ncores" and cores is not None:
                value = _count(cores)
            elif tag == "node.ngpus" and gpus is not None:
                value = _count(gpus)
        return match[0] if value is None else str(value)

    return _SHELL_TAG.sub(replace, text)


def _jobid(jobid: int, form: str) -> str | None:
    from flux_mpi.formats import fluid

    return fluid.encode(jobid, form) if form in fluid.FORMS else None


def _count(ids: str) -> int:
    from flux_mpi.formats.idset import IDSet

    return len(IDSet.parse(ids))
