"""``flux-mpi kvs``: read and write the key-value store."""

from __future__ import annotations

import errno
import json
import sys

from flux_mpi.cli.common import connect, terminal_width
from flux_mpi.cli.options import Arguments, Command, UsageError, flag, integer, number, value
from flux_mpi.client.kvs import KVS
from flux_mpi.message.errors import FluxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from flux_mpi.client.handle import Handle

PROG = "flux-kvs"


def _store(handle: Handle, args: Arguments) -> KVS:
    return KVS(handle, args.namespace)


def _failure(key: str, error: FluxError) -> UsageError:
    text = str(error)
    # The store names the key already; repeating it would not help.
    return UsageError(f"{PROG}: {text}" if key in text else f"{PROG}: {key}: {text}", 1)


def show(found: Any) -> str:
    """A value as text: text as it is, anything else as JSON."""
    if isinstance(found, str):
        return found
    if isinstance(found, bytes):
        return found.decode(errors="surrogateescape")
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)


def parse_value(text: str) -> Any:
    """JSON where that prints as the same text again, else the text itself."""
    if not text or text[0] not in '{["-0123456789tfn':
        return text
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if not isinstance(found, str) and show(found) == text else text


def _write(text: str | bytes) -> None:
    if isinstance(text, bytes):
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
        return
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))


def get(args: Arguments) -> int:
    with connect() as handle:
        store = _store(handle, args)
        for key in args.operands:
            if args.watch or args.waitcreate:
                _watch(store, key, args)
                continue
            try:
                found = store.get(key)
            except FluxError as error:
                raise _failure(key, error) from None
            _print_value(key, found, args)
    return 0


def _print_value(key: str, found: Any, args: Arguments) -> None:
    label = f"{key}=" if args.label else ""
    if isinstance(found, bytes) and args.raw:
        _write(found)
        return
    text = show(found)
    _write(f"{label}{text}" if args.raw else f"{label}{text}\n" if text or label else "")


def _watch(store: KVS, key: str, args: Arguments) -> None:
    stream = store._handle.rpc(
        "kvs.watch",
        {
            "ns": store.namespace,
            "key": key,
            "full": args.full,
            "uniq": args.uniq,
            "append": args.append,
            "waitcreate": args.waitcreate,
        },
        streaming=True,
    )
    left = args.count if args.watch else 1
    try:
        for change in stream:
            _print_value(key, change.get("value"), args)
            sys.stdout.flush()
            left -= 1
            if left == 0:
                break
    except FluxError as error:
        raise _failure(key, error) from None
    finally:
        stream.cancel()


def watch(args: Arguments) -> int:
    args.watch, args.raw, args.append = True, False, False
    with connect() as handle:
        _watch(_store(handle, args), args.operands[0], args)
    return 0


def _commit(args: Arguments, ops: list[list[Any]]) -> int:
    with connect() as handle:
        return _commit_to(_store(handle, args), args, ops)


def _commit_to(store: KVS, args: Arguments, ops: list[list[Any]]) -> int:
    try:
        version = store.commit(ops)
    except FluxError as error:
        raise UsageError(f"{PROG}: {error}", 1) from None
    if args.sequence:
        print(version)
    return 0


def put(args: Arguments) -> int:
    ops: list[list[Any]] = []
    for text in args.operands:
        key, equals, content = text.partition("=")
        if not equals or not key:
            args.command.fail(f"expected KEY=VALUE, found {text!r}")
        found: Any = content if args.raw else parse_value(content)
        if args.raw and content == "-":
            found = sys.stdin.buffer.read()
        elif args.append and not isinstance(found, str):
            found = content
        ops.append([key, found, "append"] if args.append else [key, found])
    return _commit(args, ops)


def _listing(store: KVS, key: str, recursive: bool) -> dict[str, Any]:
    try:
        return store.lookup(key, dir=True, recursive=recursive)
    except FluxError as error:
        raise _failure(key, error) from None


def dir_(args: Arguments) -> int:
    top = args.operands[0] if args.operands else "."
    with connect() as handle:
        found = _listing(_store(handle, args), top, args.recursive)
    width = (terminal_width() if sys.stdout.isatty() else 0) if args.width is None else args.width
    prefix = "" if top in (".", "") else f"{top}."
    dirs, links = set(found.get("dirs") or ()), found.get("links") or {}
    for path, content in _walk(found["dir"], dirs, ""):
        if path in dirs:
            if not args.recursive or not content:
                print(f"{prefix}{path}.")
            continue
        if args.directory:
            print(f"{prefix}{path}")
            continue
        if path in links:
            print(f"{prefix}{path} -> {links[path]}")
            continue
        line = f"{prefix}{path} = {show(content)}"
        if width and len(line) > width:
            line = line[: max(0, width - 3)] + "..."
        _write(line + "\n")
    return 0


def _walk(found: dict[str, Any], dirs: set[str], prefix: str) -> Iterator[tuple[str, Any]]:
    """Every entry with its path, sorted; the store bounds the depth."""
    for name in sorted(found):
        path = prefix + name
        yield path, found[name]
        if path in dirs and isinstance(found[name], dict):
            yield from _walk(found[name], dirs, f"{path}.")


def ls(args: Arguments) -> int:
    keys = args.operands or ["."]
    width = terminal_width() if args.width is None else args.width
    blocks: list[str] = []
    with connect() as handle:
        store = _store(handle, args)
        plain: list[str] = []
        for key in keys:
            if args.directory:
                plain.append(key)
                continue
            try:
                found = store.lookup(key, dir=True, recursive=args.recursive)
            except FluxError as error:
                if error.errno != errno.ENOTDIR:
                    raise _failure(key, error) from None
                plain.append(key)
                continue
            dirs, links = set(found.get("dirs") or ()), set(found.get("links") or ())
            blocks += _blocks(key, found["dir"], dirs, links, args, width, len(keys) > 1)
        if plain:
            blocks.insert(0, _grid(plain, width, args.one))
    _write("\n".join(blocks))
    return 0


def _blocks(
    key: str,
    found: dict[str, Any],
    dirs: set[str],
    links: set[str],
    args: Arguments,
    width: int,
    titled: bool,
) -> list[str]:
    blocks = []
    todo: list[tuple[str, str, dict[str, Any]]] = [(key, "", found)]
    while todo:
        title, prefix, entries = todo.pop()
        names = sorted(entries)
        shown = names
        if args.classify:
            shown = [
                name + ("." if prefix + name in dirs else "@" if prefix + name in links else "")
                for name in names
            ]
        text = _grid(shown, width, args.one)
        blocks.append(f"{title}:\n{text}" if titled or args.recursive else text)
        if args.recursive:
            base = "" if title == "." else f"{title}."
            todo += [
                (base + name, f"{prefix}{name}.", entries[name])
                for name in reversed(names)
                if prefix + name in dirs and isinstance(entries[name], dict)
            ]
    return blocks


def _grid(names: list[str], width: int, one: bool) -> str:
    """Names in columns down, as ``ls`` prints them; one a line when not on a terminal's width."""
    if not names:
        return ""
    if one:
        return "".join(f"{name}\n" for name in names)
    cell = max(map(len, names)) + 4
    columns = len(names) if width == 0 else max(1, width // cell)
    rows = -(-len(names) // columns)
    lines = []
    for row in range(rows):
        line = "".join(f"{name:<{cell}}" for name in names[row::rows])
        lines.append(line.rstrip() + "\n")
    return "".join(lines)


def unlink(args: Arguments) -> int:
    with connect() as handle:
        store = _store(handle, args)
        ops: list[list[Any]] = []
        for key in args.operands:
            try:
                found = store.lookup(key, dir=True)
            except FluxError as error:
                if error.errno == errno.ENOTDIR:
                    found = {"dir": {}}
                elif error.errno == errno.ENOENT and args.force:
                    continue
                else:
                    raise _failure(key, error) from None
            if found["dir"] and not args.recursive and not _is_link(store, key):
                raise UsageError(f"{PROG}: cannot unlink '{key}': Directory not empty", 1)
            ops.append([key, None, "unlink"])
        return _commit_to(store, args, ops) if ops else 0


def _is_link(store: KVS, key: str) -> bool:
    """A link to a directory is removed as a link."""
    try:
        return "target" in store.lookup(key, readlink=True)
    except FluxError:
        return False


def link(args: Arguments) -> int:
    target, name = args.operands
    if args.target_namespace:
        target = f"{args.target_namespace}::{target}"
    return _commit(args, [[name, target, "symlink"]])


def readlink(args: Arguments) -> int:
    with connect() as handle:
        store = _store(handle, args)
        for key in args.operands:
            try:
                target = store.lookup(key, readlink=True)["target"]
            except FluxError as error:
                raise _failure(key, error) from None
            namespace, _, path = target.rpartition("::")
            if args.namespace_only:
                if namespace:
                    print(namespace)
            else:
                print(path if args.key_only else target)
    return 0


def mkdir(args: Arguments) -> int:
    return _commit(args, [[key, None, "mkdir"] for key in args.operands])


def copy(args: Arguments) -> int:
    return _copy(args, remove=False)


def move(args: Arguments) -> int:
    return _copy(args, remove=True)


def _copy(args: Arguments, remove: bool) -> int:
    source, target = args.operands
    with connect() as handle:
        store = _store(handle, args)
        ops: list[list[Any]] = []
        try:
            ops.append([target, store.get(source)])
        except FluxError as error:
            if error.errno != errno.EISDIR:
                raise _failure(source, error) from None
            found = store.lookup(source, dir=True, recursive=True)
            dirs, links = set(found.get("dirs") or ()), found.get("links") or {}
            ops.append([target, None, "mkdir"])
            for path, content in _walk(found["dir"], dirs, ""):
                if path in dirs:
                    ops.append([f"{target}.{path}", None, "mkdir"])
                elif path in links:
                    ops.append([f"{target}.{path}", links[path], "symlink"])
                else:
                    ops.append([f"{target}.{path}", content])
        if remove:
            ops.append([source, None, "unlink"])
        return _commit_to(store, args, ops)


def version(args: Arguments) -> int:
    with connect() as handle:
        print(_store(handle, args).version)
    return 0


def getroot(args: Arguments) -> int:
    with connect() as handle:
        store = _store(handle, args)
        answer = handle.call("kvs.getroot", {"ns": store.namespace})
    if args.owner:
        print(answer["owner"])
    elif args.sequence:
        print(answer["version"])
    else:
        print(json.dumps(answer, separators=(",", ":")))
    return 0


def wait(args: Arguments) -> int:
    text = args.operands[0]
    if not text.isdigit():
        args.command.fail(f"expected a version number, found {text!r}")
    with connect() as handle:
        _store(handle, args).wait_version(int(text), args.timeout)
    return 0


def ns_create(args: Arguments) -> int:
    with connect() as handle:
        for name in args.operands:
            request: dict[str, Any] = {"ns": name}
            if args.owner is not None:
                request["owner"] = args.owner
            handle.call("kvs.namespace-create", request)
    return 0


def ns_remove(args: Arguments) -> int:
    with connect() as handle:
        for name in args.operands:
            handle.call("kvs.namespace-remove", {"ns": name})
    return 0


def ns_list(args: Arguments) -> int:
    with connect() as handle:
        found = handle.call("kvs.namespace-list", {})["namespaces"]
    if args.json:
        print(json.dumps({"namespaces": found}))
        return 0
    print(f"{'NAMESPACE':<37} {'OWNER':>9} {'FLAGS':>10}")
    for entry in found:
        flags = entry.get("flags") or 0
        shown = f"0x{flags:08x}" if isinstance(flags, int) else str(flags)
        print(f"{entry['namespace']:<37} {entry['owner']:>9} {shown:>10}")
    return 0


NAMESPACE = value("-N", "--namespace", metavar="NAME", help="Another namespace than primary.")
SEQUENCE = flag("-s", "--sequence", help="Print the new version.")
WIDTH = value(
    "-w", "--width", metavar="N", convert=integer(0), help="Columns to use (0: no limit)."
)
TIMEOUT = value("-t", "--timeout", metavar="SECONDS", convert=number(0), help="Give up after this.")
WATCHING = (
    flag("-f", "--full", help="Also notice when a directory above is replaced."),
    flag("-u", "--uniq", help="Only when the value differs."),
    flag("-l", "--label", help="Put KEY= before each value."),
    flag("-W", "--waitcreate", help="Wait until the key exists."),
    value("-c", "--count", metavar="N", default=0, convert=integer(1), help="Stop after N values."),
)

COMMAND = Command(
    "kvs",
    "Read and write the key-value store.",
    subcommands=(
        Command(
            "get",
            "Print values.",
            (
                NAMESPACE,
                flag("-r", "--raw", help="No newline after the value."),
                flag("-w", "--watch", help="Go on with each new value."),
                flag("-A", "--append", help="With --watch: only what was appended."),
                *WATCHING,
            ),
            operands="KEY...",
            minimum=1,
            run=get,
        ),
        Command(
            "put",
            "Set values, all or none.",
            (
                NAMESPACE,
                flag("-r", "--raw", help="Keep the value as bytes; - reads standard input."),
                flag("-A", "--append", help="Append to the value there is."),
                SEQUENCE,
            ),
            operands="KEY=VALUE...",
            minimum=1,
            run=put,
        ),
        Command(
            "dir",
            "Print a directory with its values.",
            (
                NAMESPACE,
                flag("-R", "--recursive", help="And those below."),
                flag("-d", "--directory", help="Names only."),
                WIDTH,
            ),
            operands="[KEY]",
            maximum=1,
            run=dir_,
        ),
        Command(
            "ls",
            "List names.",
            (
                NAMESPACE,
                flag("-R", "--recursive", help="And directories below."),
                flag("-d", "--directory", help="The directory itself."),
                flag("-1", "--1", help="One name a line.", dest="one"),
                flag("-F", "--classify", help="Mark directories (.) and links (@)."),
                WIDTH,
            ),
            operands="[KEY...]",
            run=ls,
        ),
        Command(
            "unlink",
            "Remove keys.",
            (
                NAMESPACE,
                flag("-R", "--recursive", help="Directories with all below."),
                flag("-f", "--force", help="Ignore keys that are not there."),
                SEQUENCE,
            ),
            operands="KEY...",
            minimum=1,
            run=unlink,
        ),
        Command(
            "link",
            "Make LINKNAME another name of TARGET.",
            (
                NAMESPACE,
                value("-T", "--target-namespace", metavar="NAME", help="Where TARGET is."),
                SEQUENCE,
            ),
            operands="TARGET LINKNAME",
            minimum=2,
            maximum=2,
            run=link,
        ),
        Command(
            "readlink",
            "Print the targets of links.",
            (
                NAMESPACE,
                flag("-o", "--namespace-only", help="Only the namespace."),
                flag("-k", "--key-only", help="Only the key."),
            ),
            operands="KEY...",
            minimum=1,
            run=readlink,
        ),
        Command(
            "mkdir",
            "Make empty directories.",
            (NAMESPACE, SEQUENCE),
            operands="KEY...",
            minimum=1,
            run=mkdir,
        ),
        Command(
            "copy",
            "Copy a value or a directory.",
            (NAMESPACE, SEQUENCE),
            operands="SOURCE TARGET",
            minimum=2,
            maximum=2,
            run=copy,
        ),
        Command(
            "move",
            "Rename a value or a directory.",
            (NAMESPACE, SEQUENCE),
            operands="SOURCE TARGET",
            minimum=2,
            maximum=2,
            run=move,
        ),
        Command(
            "watch",
            "Print a value now and whenever it changes.",
            (NAMESPACE, *WATCHING),
            operands="KEY",
            minimum=1,
            maximum=1,
            run=watch,
        ),
        Command("version", "Print the number of commits so far.", (NAMESPACE,), run=version),
        Command(
            "getroot",
            "Print what is known about the root.",
            (
                NAMESPACE,
                flag("-o", "--owner", help="Only the owner."),
                flag("-s", "--sequence", help="Only the version."),
            ),
            run=getroot,
        ),
        Command(
            "wait",
            "Wait until the store is at a version.",
            (NAMESPACE, TIMEOUT),
            operands="VERSION",
            minimum=1,
            maximum=1,
            run=wait,
        ),
        Command(
            "namespace",
            "Make, remove and list namespaces.",
            subcommands=(
                Command(
                    "create",
                    "Make namespaces.",
                    (
                        value(
                            "-o",
                            "--owner",
                            metavar="UID",
                            convert=integer(0),
                            help="User who may use it.",
                        ),
                    ),
                    operands="NAME...",
                    minimum=1,
                    run=ns_create,
                ),
                Command(
                    "remove",
                    "Remove namespaces with all that is in them.",
                    operands="NAME...",
                    minimum=1,
                    run=ns_remove,
                ),
                Command(
                    "list",
                    "List namespaces.",
                    (flag("--json", help="Print JSON."),),
                    run=ns_list,
                ),
            ),
        ),
    ),
)
