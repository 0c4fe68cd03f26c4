"""``flux-mpi top``: watch an instance and its jobs, and go down into those that are instances.

One thread, one loop: it sleeps until a key is pressed, an instance says that something happened, or
the running times on the screen are a second old. An instance is asked again when it has said so,
and not more often than twice a second.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time

from flux_mpi.cli.common import Ids, colored, terminal_width
from flux_mpi.cli.jobs import write
from flux_mpi.cli.options import Arguments, Command, UsageError, flag, optional, value
from flux_mpi.client import hierarchy, info
from flux_mpi.client.handle import Handle
from flux_mpi.client.resources import ResourceStatus
from flux_mpi.client.target import TargetError, resolve
from flux_mpi.message.errors import FluxError
from flux_mpi.view import top as view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux_mpi.client.handle import Future

PROG = "flux-top"
TICK_S = 1.0
"""How old the times on the screen may be."""
PAUSE_S = 0.5
"""Between two times that an instance is asked, at least."""
MOST_JOBS = 1000
ATTRS = ["annotations", "name", "nnodes", "ntasks", "queue", "state", "t_run", "userid"]


class Feed:
    """An instance that is being watched: what is known of it, kept up to date by its events."""

    def __init__(self, uri: str, path: tuple[int, ...], queue: str = "") -> None:
        self.path = path
        self.queue = queue
        self.lost = ""
        """Why nothing more will come of it."""
        self.fresh = False
        """Whether there is something that was not shown yet."""
        self.queues: list[str] = []
        """The names of its queues."""
        self.cursor: int | None = None
        """The id of the selected job."""
        self.shot = view.Snapshot(title="/".join(map(Ids(), path)), trouble="...")
        self.handle = Handle(uri)
        self._open: dict[str, Any] = {}
        self._waiting: set[str] = set()
        self._stale = False
        self._asked = 0.0
        self._journal: Future | None = None
        self._resource_events = 0
        self.handle.rpc(
            "resource.journal", {"follow": True}, streaming=True, callback=self._resources_changed
        )
        self._ask()

    def close(self) -> None:
        self.handle.close()

    @property
    def due(self) -> float | None:
        """When `tick` has something to do (monotonic); None: not before something arrives."""
        if self._waiting:
            return self._asked + hierarchy.TIMEOUT_S
        return self._asked + PAUSE_S if self._stale else None

    def tick(self) -> None:
        """Ask again, or give up waiting, if it is time for that."""
        now = time.monotonic()
        if self.lost or self.due is None or now < self.due:
            return
        if self._waiting:
            self.shot.trouble = f"no answer within {hierarchy.TIMEOUT_S:g} s"
            self.fresh = True
            self._asked = now  # look again after as long
        else:
            self._ask()

    def read(self) -> None:
        """Take in what has arrived."""
        self.handle.dispatch(0)

    def choose_queue(self, queue: str) -> None:
        """Show the jobs of this queue only; '' for all."""
        if queue != self.queue:
            self.queue = queue
            self._stale = True
            self._asked = 0.0

    def _ask(self) -> None:
        self._asked = time.monotonic()
        self._stale = False
        request: dict[str, Any] = {
            "max_entries": MOST_JOBS,
            "states": info.RUNNING,
            "attrs": ATTRS,
        }
        if self.queue:
            request["queue"] = self.queue
        try:
            # Before the rest: what happens after that was asked must be heard of.
            if self._journal is None:
                self._journal = self.handle.rpc(
                    "job-manager.events-journal", {}, streaming=True, callback=self._jobs_changed
                )
            self._open = {"jobs": []}
            self._waiting = {"jobs", "stats", "resources", "attrs", "queues"}
            for name, topic in (
                ("stats", "job-list.stats"),
                ("resources", "resource.status"),
                ("attrs", "attr.list"),
                ("queues", "job-manager.queue-list"),
            ):
                self.handle.rpc(topic, {}, callback=lambda f, name=name: self._take(name, f))  # type: ignore[misc]
            self.handle.rpc(
                "job-list.list",
                request,
                streaming=True,
                callback=lambda future: self._take("jobs", future),
            )
        except FluxError as error:
            self._lose(error)

    def _lose(self, error: FluxError) -> None:
        gone = error.errno == errno.ECONNRESET
        self.lost = self.lost or ("the instance has ended" if gone else str(error))

    def _jobs_changed(self, future: Future) -> None:
        """One event is enough to ask again; a busy instance must not have to tell us of all."""
        try:
            future.get()
        except FluxError as error:
            self._lose(error)
            return
        self._stale = True
        if self._journal is not None:
            self._journal.cancel()
            self._journal = None

    def _resources_changed(self, future: Future) -> None:
        try:
            future.get()
        except FluxError as error:
            self._lose(error)
            return
        self._resource_events += 1
        if self._resource_events > 1:  # the first answer is the past
            self._stale = True

    def _take(self, name: str, future: Future) -> None:
        try:
            answer = future.get()
        except FluxError as error:
            if not (future.streaming and error.errno == errno.ENODATA):
                self._open["trouble"] = str(error)
                if error.errno in (errno.ECONNRESET, errno.ECONNREFUSED):
                    self._lose(error)
            self._waiting.discard(name)
        else:
            if future.streaming:
                self._open[name] += answer["jobs"]
            else:
                self._open[name] = answer
                self._waiting.discard(name)
        if not self._waiting:
            self._assemble()

    def _assemble(self) -> None:
        found = self._open
        resources = ResourceStatus(found.get("resources") or {})
        self.queues = (found.get("queues") or {}).get("queues") or []
        jobs = sorted(found["jobs"], key=lambda job: job.get("t_run", 0.0), reverse=True)
        self.shot = view.Snapshot(
            title=self.shot.title,
            attrs=(found.get("attrs") or {}).get("attrs"),
            stats=found.get("stats"),
            resources=resources.counts(),
            expiration=resources.expiration,
            jobs=jobs,
            queues=bool(self.queues),
            queue=self.queue,
            trouble=found.get("trouble", ""),
        )
        self.fresh = True

    # -- the cursor -----------------------------------------------------------------------------

    @property
    def position(self) -> int | None:
        """The index of the selected job; None when there is none."""
        for at, job in enumerate(self.shot.jobs):
            if job["id"] == self.cursor:
                return at
        return None

    def move(self, by: int) -> None:
        """Select another job."""
        jobs = self.shot.jobs
        if not jobs:
            self.cursor = None
            return
        at = self.position
        at = (0 if by > 0 else len(jobs) - 1) if at is None else at + by
        self.cursor = jobs[max(0, min(at, len(jobs) - 1))]["id"]

    @property
    def selected(self) -> dict[str, Any] | None:
        at = self.position
        return None if at is None else self.shot.jobs[at]


def run(args: Arguments) -> int:
    try:
        uri = resolve(args.operands[0] if args.operands else ".")
    except TargetError as error:
        raise UsageError(f"{PROG}: ERROR: {error}", 1) from None
    feed = Feed(uri, (), args.queue or "")
    try:
        _complete(feed)
        if args.queue and args.queue not in feed.queues:
            known = ", ".join(feed.queues) or "none has a name"
            raise UsageError(
                f"{PROG}: ERROR: --queue: unknown queue {args.queue!r}: expected one of {known}", 1
            )
        if args.test_exit or not (sys.stdin.isatty() and sys.stdout.isatty()):
            picture = view.picture(
                feed.shot, time.time(), width=terminal_width(80), ids=Ids(), details=True
            )
            write(view.plain(picture))
            return 0
    except BaseException:
        feed.close()
        raise
    return _watch(feed, colored(args.color))


def _complete(feed: Feed) -> None:
    """Wait for the first picture. Raises FluxError, or TimeoutError when there is no answer."""
    deadline = time.monotonic() + hierarchy.TIMEOUT_S
    while not feed.fresh:
        if feed.lost:
            raise FluxError(errno.ECONNRESET, feed.lost)
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{feed.handle.uri}: no answer within {hierarchy.TIMEOUT_S:g} s")
        feed.handle.dispatch(left)


def _watch(feed: Feed, colors: bool) -> int:
    import curses
    import locale

    locale.setlocale(locale.LC_ALL, "")
    os.environ.setdefault("ESCDELAY", "25")
    screen = _Screen([feed])
    why = curses.wrapper(screen.run, colors)
    if why:
        print(f"{PROG}: {why}", file=sys.stderr)
        return 1
    return 0


class _Screen:
    """The terminal, and the instances on the way down to the one that is shown."""

    def __init__(self, feeds: list[Feed]) -> None:
        self.feeds = feeds
        self.details = True
        self.message = ""
        self._styles: dict[str, int] = {}

    def run(self, window: Any, colors: bool) -> str:
        """Until the user has had enough, or the first instance has ended: then why."""
        import curses

        self._styles = _styles(colors)
        curses.curs_set(0)
        window.nodelay(True)
        try:
            while self.feeds:
                feed = self.feeds[-1]
                if feed.lost:
                    if len(self.feeds) == 1:
                        return feed.lost
                    self.message = f"{feed.shot.title}: {feed.lost}"
                    self._leave()
                    continue
                self._draw(window)
                self._sleep(feed)
                self._keys(window)
        except KeyboardInterrupt:
            return ""
        finally:
            for feed in self.feeds:
                feed.close()
        return ""

    def _sleep(self, feed: Feed) -> None:
        """Until a key, news, or the next tick."""
        deadline = time.monotonic() + TICK_S
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(feed.handle.fileno(), select.POLLIN)
        feed.fresh = False
        while not feed.fresh and not feed.lost:
            now = time.monotonic()
            due = feed.due
            left = (deadline if due is None else min(deadline, due)) - now
            ready = poll.poll(max(0.0, left) * 1000 + 1)
            for fd, _ in ready:
                if fd != 0:
                    feed.read()
            feed.tick()
            if any(fd == 0 for fd, _ in ready) or time.monotonic() >= deadline:
                return

    def _keys(self, window: Any) -> None:
        import curses

        while self.feeds:
            key = window.getch()
            if key == -1:
                return
            feed = self.feeds[-1]
            self.message = ""
            if key in (ord("j"), curses.KEY_DOWN):
                feed.move(1)
            elif key in (ord("k"), curses.KEY_UP):
                feed.move(-1)
            elif key in (ord("\n"), ord("\r"), curses.KEY_ENTER, curses.KEY_RIGHT):
                self._enter(feed)
            elif key == ord("q") or (key == curses.KEY_LEFT and len(self.feeds) > 1):
                self._leave()
            elif key in (ord("h"), ord("l")):
                names = ["", *feed.queues]
                at = names.index(feed.queue) if feed.queue in names else 0
                feed.choose_queue(names[(at + (1 if key == ord("l") else -1)) % len(names)])
            elif key == ord("d"):
                self.details = not self.details
            elif key in (0x0C, curses.KEY_RESIZE):
                window.clear()

    def _enter(self, feed: Feed) -> None:
        """Go down into the selected job, if it is an instance that can be reached."""
        job = feed.selected
        if job is None or not hierarchy.is_instance(job):
            return
        try:
            self.feeds.append(Feed(info.uri(job), (*feed.path, job["id"])))
        except FluxError as error:
            self.message = str(error)

    def _leave(self) -> None:
        self.feeds.pop().close()

    def _draw(self, window: Any) -> None:
        import curses

        feed = self.feeds[-1]
        height, width = window.getmaxyx()
        lines = view.picture(
            feed.shot,
            time.time(),
            width=width,
            height=height,
            ids=Ids(),
            cursor=feed.position,
            details=self.details,
            note=self.message,
        )
        window.erase()
        for y, line in enumerate(lines[:height]):
            x = 0
            for text, style in line:
                text = text[: max(0, width - x - (y == height - 1))]
                if text:
                    try:
                        window.addstr(y, x, text, self._styles.get(style, 0))
                    except curses.error:
                        break  # wider characters than they are many
                x += len(text)
        window.refresh()


def _styles(colors: bool) -> dict[str, int]:
    import curses

    pairs = dict.fromkeys(("yellow", "red", "green", "blue"), 0)
    if colors and curses.has_colors():
        curses.use_default_colors()
        for number, name in enumerate(pairs, 1):
            curses.init_pair(number, getattr(curses, f"COLOR_{name.upper()}"), -1)
            pairs[name] = curses.color_pair(number)
    return {
        view.TITLE: pairs["blue"] | curses.A_BOLD,
        view.USED: pairs["yellow"],
        view.DOWN: pairs["red"],
        view.DIM: curses.A_DIM,
        view.GOOD: pairs["green"] | curses.A_BOLD,
        view.BAD: pairs["red"] | curses.A_BOLD,
        view.HEADING: curses.A_REVERSE,
        view.INSTANCE: pairs["blue"] | curses.A_BOLD,
        view.SELECTED: curses.A_REVERSE,
        view.SELECTED_INSTANCE: pairs["blue"] | curses.A_BOLD | curses.A_REVERSE,
    }


COMMAND = Command(
    "top",
    "Watch an instance and its running jobs, and go down into those that are instances.",
    (
        value("-q", "--queue", metavar="NAME", help="Only jobs in this queue."),
        optional(
            "--color",
            metavar="WHEN",
            const="always",
            choices=("always", "never", "auto"),
            help="Colours: always, never, or auto (the default).",
        ),
        flag("--test-exit", help="Print one picture and exit, as when this is no terminal."),
    ),
    operands="[TARGET]",
    maximum=1,
    description="""
    TARGET is what 'flux-mpi uri' takes (default: the instance that FLUX_URI names). Keys: j k or
    the arrows up and down select a job; Enter or right goes down into it, if it is an instance (in
    blue); q or left goes back up, and q ends the program at the top; h and l go through the queues;
    d tells failed jobs from successful ones, or not; control-L draws anew.
    """,
    run=run,
)
