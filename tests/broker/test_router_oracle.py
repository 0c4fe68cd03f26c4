"""Whatever clients, brokers and the network do: each request ends once, and none stays behind."""

import errno

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_mpi.message.errors import ServiceError
from flux_mpi.message.message import STREAMING

from .harness import Fleet, finals

DELAY_S = 0.01


class Service:
    """Offered by every rank: answers at once, later, never, often, or fails."""

    def __init__(self, fleet, rank):
        self.fleet, self.rank = fleet, rank
        self.open, self.closed = [], []
        fleet.brokers[rank].register("svc", {n: getattr(self, n) for n in METHODS})

    def _watch(self, request):
        self.open.append(request)
        request.on_close(lambda: self.closed.append(request))

    def now(self, request):
        self._watch(request)
        request.respond(request.payload)
        if request.streaming:
            request.error(errno.ENODATA)

    def later(self, request):
        self._watch(request)
        self.fleet.reactor.call_later(DELAY_S, lambda: self._finish(request))

    def _finish(self, request):
        request.respond(request.payload)
        request.error(errno.ENODATA)
        request.respond("too late")

    def never(self, request):
        self._watch(request)

    def often(self, request):
        self._watch(request)

        def again(left):
            request.respond(request.payload)
            if not left:
                request.error(errno.ENODATA)
            elif request.open:
                self.fleet.reactor.call_later(DELAY_S / 4, lambda: again(left - 1))

        again(3)

    def fail(self, request):
        raise ServiceError(errno.EINVAL, "no")


METHODS = ("now", "later", "never", "often", "fail")


class Asked:
    def __init__(self, client, tag, method, streaming):
        self.client, self.tag, self.method, self.streaming = client, tag, method, streaming
        self.cancelled = False


ranks = st.integers(0, 11)
operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("ask"), ranks, st.integers(-1, 12), st.sampled_from([*METHODS, "missing"]),
            st.booleans(),
        ),
        st.tuples(st.just("ask-own"), ranks, st.integers(-1, 12), st.sampled_from(METHODS)),
        st.tuples(st.just("offer"), ranks, st.booleans()),
        st.tuples(st.just("ask-offered"), ranks, ranks, st.booleans()),
        st.tuples(st.just("reuse"), st.integers(0, 30)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("lose"), st.integers(1, 11)),
        st.tuples(st.just("wait"), st.sampled_from([0.0005, 0.002, 0.012])),
    ),
    max_size=25,
)  # fmt: skip


class World:
    """Carries out operations and keeps the books."""

    def __init__(self, hosts, fanout):
        self.fleet = Fleet(hosts, fanout)
        self.size = len(hosts)
        self.services = [Service(self.fleet, rank) for rank in range(self.size)]
        self.lost = set()
        self.asked = []
        self.clients = []
        self.calls = []
        self.providers = {}

    def do(self, operation):
        name, *arguments = operation
        getattr(self, name.replace("-", "_"))(*arguments)

    def _client(self, rank):
        client = self.fleet.client(rank)
        self.clients.append(client)
        return client

    def ask(self, at, to, method, streaming):
        at %= self.size
        if at not in self.lost:
            client = self._client(at)
            tag = client.ask(f"svc.{method}", at, rank=to, flags=STREAMING * streaming)
            self.asked.append(Asked(client, tag, method, streaming))

    def ask_own(self, at, to, method):
        at %= self.size
        if at not in self.lost:
            answers = []
            self.fleet.brokers[at].rpc(f"svc.{method}", at, answers.append, rank=to)
            self.calls.append((at, method, answers))

    def offer(self, at, withdraw):
        """A client offers a service that answers nothing; perhaps it withdraws the offer again."""
        at %= self.size
        if at not in self.lost and at not in self.providers:
            client = self._client(at)
            self.fleet.brokers[at].router.offer("offered", client.number)
            self.providers[at] = (client, withdraw)

    def ask_offered(self, at, to, streaming):
        at, to = at % self.size, to % self.size
        if at in self.lost:
            return
        client = self._client(at)
        tag = client.ask("offered.x", at, rank=to, flags=STREAMING * streaming)
        self.asked.append(Asked(client, tag, "never", streaming))
        _, withdraw = self.providers.get(to, (None, False))
        if withdraw:
            self.fleet.run(0.02)
            self.fleet.brokers[to].router.services.pop("offered", None)

    def _one(self, which):
        return self.asked[which % len(self.asked)] if self.asked else None

    def reuse(self, which):
        one = self._one(which)
        if one is None or one.client.gone or one.cancelled:
            return
        if not finals(one.client.answers(one.tag), one.streaming):
            one.client.ask("svc.never", 0, tag=one.tag)
            assert one.client.answers(one.tag)[-1][0] == errno.EPROTO
            one.streaming = True  # what had come of a stream before does not count

    def cancel(self, which):
        one = self._one(which)
        if one is not None and not one.client.gone:
            one.client.cancel(one.tag)
            one.before = len(one.client.answers(one.tag))
            one.cancelled = True

    def leave(self, which):
        if self.clients:
            self._go(self.clients[which % len(self.clients)])

    def _go(self, client):
        if not client.gone:
            client.leave()
            for at, (provider, _) in list(self.providers.items()):
                if provider is client:
                    del self.providers[at]

    def lose(self, rank):
        rank = max(1, rank % self.size)
        if self.size > 1 and rank not in self.lost:
            self.lost.add(rank)
            self.fleet.network.remove(rank)
            for client in self.clients:
                client.gone |= client.broker.rank == rank
            self.fleet.brokers[rank].test_clients = {}
            self.fleet.brokers[rank].attach_clients(lambda number, message: None, lambda: 0)

    def wait(self, seconds):
        self.fleet.run(seconds)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.integers(1, 4), operations)
def test_each_request_ends_once_and_nothing_stays_in_flight(hosts, fanout, operations):
    world = World(hosts, fanout)
    for operation in operations:
        world.do(operation)
    world.fleet.run()
    assert world.fleet.errors() == []

    for one in world.asked:
        answers = one.client.answers(one.tag)
        ended = finals(answers, one.streaming)
        if one.client.gone:
            continue
        if one.cancelled:
            assert ended <= 1
            assert len(answers) == getattr(one, "before", len(answers)), "an answer after a cancel"
        elif one.method == "never":
            assert ended <= 1  # an error, if it could not even be asked
        else:
            assert ended == 1, (one.method, answers)
            assert answers[-1][0] != 0 or not one.streaming
    for at, method, answers in world.calls:
        if at not in world.lost and method != "never":
            assert len(answers) == 1

    # Who is left hangs up: then nobody waits for anything.
    for client in world.clients:
        world._go(client)
    for broker in world.fleet.brokers:
        for call in list(broker._calls.values()):
            call.cancel()
    world.fleet.run()
    for rank, broker in enumerate(world.fleet.brokers):
        if rank not in world.lost:
            assert broker.router.inflight == 0, broker.router._flights
            assert not broker._calls
            assert not any(broker.router._of_client.values())
            assert not broker.router._providers
            service = world.services[rank]
            assert not any(request.open for request in service.open)
            assert len(service.closed) == len(set(map(id, service.closed))), "closed twice"
