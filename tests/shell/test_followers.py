"""Chains of tasks, against plain lists."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.shell.followers import Followers


def spawn(tid: int) -> list[Any]:
    return ["spawn", tid]


def test_a_chain_from_end_to_end() -> None:
    followers = Followers()
    followers.add(1, spawn(2))
    followers.add(2, spawn(3))
    assert len(followers) == 2
    assert 3 in followers
    assert 1 not in followers
    assert followers.pop(1) == spawn(2)
    assert 2 not in followers
    assert followers.pop(2) == spawn(3)
    assert followers.pop(3) is None
    assert not followers


def test_two_behind_the_same_go_one_after_the_other() -> None:
    followers = Followers()
    followers.add(1, spawn(2))
    followers.add(1, spawn(3))
    assert followers.pop(1) == spawn(2)
    assert followers.pop(2) == spawn(3)


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "pop", "remove", "clear"]), st.integers(0, 30)),
        max_size=60,
    )
)
def test_as_lists_would_do_it(steps: list[tuple[str, int]]) -> None:
    followers = Followers()
    chains: dict[int, list[int]] = {0: [], 1: [], 2: []}  # who follows each that runs
    numbers = iter(range(3, 1000))
    for what, n in steps:
        if what == "add":
            known = [tid for head, chain in chains.items() for tid in (head, *chain)]
            before, tid = known[n % len(known)], next(numbers)
            followers.add(before, spawn(tid))
            next(chain for head, chain in chains.items() if before in (head, *chain)).append(tid)
        elif what == "pop":
            head = sorted(chains)[n % len(chains)]
            chain = chains[head]
            found = followers.pop(head)
            assert found == (spawn(chain[0]) if chain else None)
            if chain:
                del chains[head]
                chains[chain[0]] = chain[1:]
        elif what == "remove":
            waiting = sorted(tid for chain in chains.values() for tid in chain)
            tid = waiting[n % len(waiting)] if waiting and n % 4 else 2000
            assert followers.remove(tid) == (tid in waiting)
            for chain in chains.values():
                if tid in chain:
                    chain.remove(tid)
        else:
            waiting = sorted(tid for chain in chains.values() for tid in chain)
            assert sorted(followers.clear()) == waiting
            chains = {head: [] for head in chains}
        assert len(followers) == sum(map(len, chains.values()))
