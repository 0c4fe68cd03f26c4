"""``flux-mpi ping``: measure the round trip to a broker or service."""

from __future__ import annotations

import sys
import time

from flux_mpi.cli.common import connect
from flux_mpi.cli.options import Arguments, Command, UsageError, flag, integer, number, value
from flux_mpi.message.message import ANY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux_mpi.client.handle import Future

UPSTREAM = -2
_UNITS = {"k": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_rank(text: str) -> int:
    """A rank, ``any`` or ``upstream``. Raises ValueError."""
    if text == "any":
        return ANY
    if text == "upstream":
        return UPSTREAM
    if text.isdigit():
        return int(text)
    raise ValueError(f"invalid rank {text!r}: expected a number, any or upstream")


def parse_size(text: str) -> int:
    """``1.5k`` as bytes. Raises ValueError."""
    unit = _UNITS.get(text[-1:], 1)
    try:
        return int(float(text[:-1] if unit > 1 else text) * unit)
    except ValueError:
        raise ValueError(
            f"invalid size {text!r}: expected bytes, or a number with k, M or G"
        ) from None


def run(args: Arguments) -> int:
    target = args.operands[0]
    rank = args.rank
    if args.batch and not args.count:
        args.command.fail("--batch needs --count")
    if "!" in target and rank is None:
        where, _, target = target.partition("!")
        try:
            rank = parse_rank(where)
        except ValueError as error:
            args.command.fail(str(error))
    elif target.isdigit() and rank is None:
        rank, target = int(target), "broker"
    rank = ANY if rank is None else rank
    shown = {ANY: "any", UPSTREAM: "upstream"}.get(rank, str(rank))
    topic = f"{target}.ping"
    print(f"flux-ping {shown}!{target}")
    sys.stdout.flush()
    pad = "p" * args.pad
    sent: dict[int, float] = {}

    with connect() as handle:

        def request(sequence: int) -> Future:
            sent[sequence] = time.perf_counter()
            payload: dict[str, Any] = {"seq": sequence, "pad": pad}
            if rank == UPSTREAM:
                return handle.rpc(topic, payload, upstream=True)
            return handle.rpc(topic, payload, rank)

        def answer(future: Future, sequence: int) -> None:
            try:
                payload = future.get()
            except OSError as error:
                raise UsageError(f"flux-ping: {shown}!{topic}: {error}", 1) from None
            took = (time.perf_counter() - sent[sequence]) * 1e3
            who = f" userid={payload.get('userid')}" if args.userid else ""
            route = "!".join(str(hop) for hop in payload.get("route") or ())
            print(
                f"{payload.get('rank')}!{topic} pad={args.pad} seq={sequence} "
                f"time={took:0.3f} ms ({route}){who}"
            )
            sys.stdout.flush()

        if args.batch:
            futures = [request(sequence) for sequence in range(args.count)]
            for sequence, future in enumerate(futures):
                answer(future, sequence)
            return 0
        sequence = 0
        while not args.count or sequence < args.count:
            begun = time.monotonic()
            answer(request(sequence), sequence)
            sequence += 1
            if args.interval and (not args.count or sequence < args.count):
                # Reading meanwhile notices a broker that ends.
                while (left := begun + args.interval - time.monotonic()) > 0:
                    handle._check()
                    handle.dispatch(left)
    return 0


COMMAND = Command(
    "ping",
    "Measure the round trip to a broker or service.",
    (
        value("-r", "--rank", metavar="RANK", convert=parse_rank, help="A rank, any or upstream."),
        value(
            "-p",
            "--pad",
            metavar="N",
            default=0,
            convert=parse_size,
            help="Send N bytes along (k, M, G allowed).",
        ),
        value(
            "-i",
            "--interval",
            metavar="N",
            default=1.0,
            convert=number(0),
            help="Seconds between requests (default 1).",
        ),
        value("-c", "--count", metavar="N", default=0, convert=integer(1), help="Send N requests."),
        flag("-b", "--batch", help="Send all requests before reading answers (needs --count)."),
        flag("-u", "--userid", help="Show the user id that the broker saw."),
    ),
    operands="RANK|SERVICE|RANK!SERVICE",
    minimum=1,
    maximum=1,
    run=run,
)
