"""Brokers over the loopback transport and a simulated clock, and clients without sockets."""

from __future__ import annotations

import errno
import itertools

from flux_mpi.broker.broker import Broker
from flux_mpi.message.message import (
    CONTROL,
    FIRST_CLIENT,
    REQUEST,
    RESPONSE,
    STREAMING,
    Message,
    pack,
)
from flux_mpi.overlay.loopback import Network
from flux_mpi.overlay.tree import Tree
from flux_mpi.reactor.simulated import SimulatedReactor

UID = 1000


class Fleet:
    """Brokers on ``hosts``, linked up; ``run`` lets everything happen that can."""

    def __init__(self, hosts, fanout=2, frame_limit=1 << 20, latency_s=0.001):
        self.reactor = SimulatedReactor(start=0.0)
        self.failures = []
        self.reactor.on_error = self.failures.append
        self.network = Network(self.reactor, list(hosts), latency_s)
        self.tree = Tree(hosts, fanout)
        self.brokers = [
            Broker(
                self.reactor, self.network.transport(rank), self.tree,
                uid=UID, frame_limit=frame_limit,
            )
            for rank in range(len(hosts))
        ]  # fmt: skip
        self._numbers = itertools.count(FIRST_CLIENT)
        for broker in self.brokers:
            broker.open()

    def run(self, seconds=None):
        self.reactor.call_soon(lambda: None)  # what was asked from outside leaves at a turn's end
        self.reactor.run(seconds)

    def client(self, rank):
        return Client(self.brokers[rank], next(self._numbers))

    def errors(self):
        """What went wrong inside the brokers themselves."""
        return [entry[4] for broker in self.brokers for entry in broker.ring.entries()
                if "failed" in entry[4]] + self.failures  # fmt: skip


class Client:
    """One client of a broker: remembers every message it got."""

    def __init__(self, broker, number):
        self.broker = broker
        self.number = number
        self.got = []
        self.gone = False
        self._tags = itertools.count(1)
        sinks = broker.__dict__.setdefault("test_clients", {})
        sinks[number] = self
        broker.attach_clients(
            lambda number, message: sinks[number].take(message) if number in sinks else None,
            lambda: len(sinks),
        )

    def take(self, message):
        assert not self.gone, "a message for a client that is gone"
        self.got.append(message)

    def ask(self, topic, payload=None, *, rank=-1, flags=0, tag=None):
        tag = next(self._tags) if tag is None else tag
        self.send(
            Message(
                REQUEST, topic, None if payload is None else pack(payload),
                flags=flags, tag=tag, target=rank,
            )
        )  # fmt: skip
        return tag

    def stream(self, topic, payload=None, *, rank=-1):
        return self.ask(topic, payload, rank=rank, flags=STREAMING)

    def cancel(self, tag):
        self.send(Message(CONTROL, "cancel", tag=tag))

    def send(self, message):
        self.broker.from_client(self.number, UID, message)

    def leave(self):
        self.gone = True
        del self.broker.test_clients[self.number]
        self.broker.client_gone(self.number)

    def answers(self, tag):
        """Responses with ``tag``, as (errnum, body)."""
        return [
            (m.errnum, m.body) for m in self.got if m.kind == RESPONSE and m.tag == tag
        ]  # fmt: skip

    def answer(self, tag):
        """The only response with ``tag``."""
        (only,) = self.answers(tag)
        return only

    def requests(self):
        return [m for m in self.got if m.kind == REQUEST]


def finals(answers, streaming):
    """How often a request was answered for good."""
    return sum(1 for errnum, _ in answers if errnum or not streaming)


ENDED = (errno.ENODATA, None)
