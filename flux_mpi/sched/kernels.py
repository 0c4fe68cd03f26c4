"""The match kernel of the bitmap door: plain loops over flat integer arrays.

The same text runs interpreted over ``array.array("q")`` and compiled by Numba over NumPy views of
the very same memory, so nothing is converted when the compiled form takes over. Three rules keep
that true: only ``int64`` values (hence 63 bits a word: no sign trouble), no calls of functions of
ours, and no container but the arrays passed in.

Bitmaps are word-major per node: id ``j`` of node ``i`` is bit ``j % 63`` of word
``i * words + j // 63``.
"""

from __future__ import annotations

from typing import Any

WORD_BITS = 63

Words = Any
"""``array.array("q")`` when interpreted, a NumPy int64 array when compiled."""


def place(
    count: int,
    n_nodes: int,
    core_words: int,
    gpu_words: int,
    want_nodes: int,
    want_slots: int,
    slot_cores: int,
    slot_gpus: int,
    exclusive: int,
    eligible: Words,
    core_bits: Words,
    core_free: Words,
    core_total: Words,
    gpu_bits: Words,
    gpu_free: Words,
    gpu_total: Words,
    order: Words,
    chosen: Words,
    bucket: Words,
    n_buckets: int,
    rows_of: Words,
    out: Words,
    out_rows: int,
) -> int:
    """Place up to ``count`` equal members, best fit first; returns how many were placed.

    ``want_nodes`` > 0: that many distinct nodes with ``want_slots`` slots on each; 0:
    ``want_slots`` slots on as few nodes as possible. ``exclusive`` takes whole empty nodes and
    needs ``want_nodes``. ``eligible[i]`` is 0 for nodes that may not be used. ``core_free`` and
    ``gpu_free`` count the set bits of the bitmaps and are kept up to date.

    Scratch: ``order`` and ``chosen`` (one a node; ``chosen`` is all zero on entry and exit) and
    ``bucket`` (``n_buckets``, more than the largest count of cores or GPUs of a node).
    Result: ``rows_of[m]`` rows for member ``m``; a row of ``out`` is ``node, slots, core words…,
    gpu words…``. Stops before a member whose rows would exceed ``out_rows``.

    The fullest nodes that still fit come first and ties go to the lower node, so empty nodes stay
    whole. The rows of one member ascend by node, and a row takes the lowest free ids.
    """
    stride = 2 + core_words + gpu_words
    single = want_nodes <= 1 and exclusive == 0
    need_cores = want_slots * slot_cores
    need_gpus = want_slots * slot_gpus
    current = -1
    n_sorted = -1
    at_sorted = 0
    placed = 0
    row = 0
    while placed < count:
        # -- choose: chosen[i] becomes the slots on node i, low..high spans the nodes chosen ----
        rows = 0
        low = n_nodes
        high = -1
        if single:
            # Filling the fullest node that fits makes it fuller still: it stays the best fit
            # for the next member until it is full, so one search serves many members.
            if current >= 0 and (core_free[current] < need_cores or gpu_free[current] < need_gpus):
                current = -1
            if current < 0 and n_sorted < 0 and placed > 0 and n_nodes > 8:
                # The second search of a call on a large machine: sort once for all that follow.
                for b in range(n_buckets):
                    bucket[b] = 0
                for i in range(n_nodes):
                    bucket[core_free[i]] += 1
                start = 0
                for b in range(n_buckets):
                    size = bucket[b]
                    bucket[b] = start
                    start += size
                for i in range(n_nodes):
                    order[bucket[core_free[i]]] = i
                    bucket[core_free[i]] += 1
                n_sorted = n_nodes
            if current < 0:
                if n_sorted >= 0:
                    while at_sorted < n_sorted:
                        i = order[at_sorted]
                        if (
                            eligible[i] != 0
                            and core_free[i] >= need_cores
                            and gpu_free[i] >= need_gpus
                        ):
                            current = i
                            break
                        at_sorted += 1
                else:
                    best = 0
                    for i in range(n_nodes):
                        if (
                            eligible[i] != 0
                            and core_free[i] >= need_cores
                            and gpu_free[i] >= need_gpus
                            and (current < 0 or core_free[i] < best)
                        ):
                            current = i
                            best = core_free[i]
            if current >= 0:
                chosen[current] = want_slots
                low = current
                high = current
                rows = 1
            elif want_nodes == 0 and want_slots > 1:
                # No one node holds it: largest nodes first, then the best fit for the rest.
                total = 0
                for b in range(n_buckets):
                    bucket[b] = 0
                for i in range(n_nodes):
                    cap = 0
                    if eligible[i] != 0:
                        cap = n_buckets - 1
                        if slot_cores > 0:
                            cap = core_free[i] // slot_cores
                        if slot_gpus > 0 and gpu_free[i] // slot_gpus < cap:
                            cap = gpu_free[i] // slot_gpus
                    total += cap
                    bucket[cap] += 1
                if total >= want_slots:
                    start = 0
                    for b in range(n_buckets - 1, -1, -1):
                        size = bucket[b]
                        bucket[b] = start
                        start += size
                    for i in range(n_nodes):
                        cap = 0
                        if eligible[i] != 0:
                            cap = n_buckets - 1
                            if slot_cores > 0:
                                cap = core_free[i] // slot_cores
                            if slot_gpus > 0 and gpu_free[i] // slot_gpus < cap:
                                cap = gpu_free[i] // slot_gpus
                        order[bucket[cap]] = i
                        bucket[cap] += 1
                    # `order` no longer is the sort by free cores.
                    n_sorted = -1
                    at_sorted = 0
                    left = want_slots
                    j = 0
                    fit = -1
                    fit_cap = 0
                    while left > 0:
                        i = order[j]
                        cap = n_buckets - 1
                        if slot_cores > 0:
                            cap = core_free[i] // slot_cores
                        if slot_gpus > 0 and gpu_free[i] // slot_gpus < cap:
                            cap = gpu_free[i] // slot_gpus
                        if eligible[i] == 0:
                            cap = 0
                        if cap >= left:
                            # Sorted descending: the smallest that holds the rest is further on.
                            if fit < 0 or cap < fit_cap:
                                fit = i
                                fit_cap = cap
                            j += 1
                            if j < n_nodes:
                                continue
                        if fit >= 0:
                            i = fit
                            cap = left
                        else:
                            j += 1
                        chosen[i] = cap
                        left -= cap
                        rows += 1
                        if i < low:
                            low = i
                        if i > high:
                            high = i
        else:
            # Several nodes, or whole ones: of those that fit, the fullest (smallest) first.
            fitting = 0
            for b in range(n_buckets):
                bucket[b] = 0
            for i in range(n_nodes):
                if (
                    eligible[i] != 0
                    and core_free[i] >= need_cores
                    and gpu_free[i] >= need_gpus
                    and (
                        exclusive == 0
                        or (core_free[i] == core_total[i] and gpu_free[i] == gpu_total[i])
                    )
                ):
                    fitting += 1
                    bucket[core_free[i]] += 1
            if fitting >= want_nodes:
                # All nodes with fewer free cores than `edge` are taken, and `spare` of those
                # that have exactly `edge`.
                left = want_nodes
                edge = 0
                while bucket[edge] < left:
                    left -= bucket[edge]
                    edge += 1
                for i in range(n_nodes):
                    if (
                        eligible[i] != 0
                        and core_free[i] <= edge
                        and core_free[i] >= need_cores
                        and gpu_free[i] >= need_gpus
                        and (
                            exclusive == 0
                            or (core_free[i] == core_total[i] and gpu_free[i] == gpu_total[i])
                        )
                    ):
                        if core_free[i] == edge:
                            if left == 0:
                                continue
                            left -= 1
                        chosen[i] = want_slots
                        rows += 1
                        if i < low:
                            low = i
                        high = i
        if rows == 0:
            break
        if row + rows > out_rows:
            for i in range(low, high + 1):
                chosen[i] = 0
            break
        # -- take the ids -----------------------------------------------------------------------
        rows_of[placed] = rows
        for i in range(low, high + 1):
            slots = chosen[i]
            if slots == 0:
                continue
            chosen[i] = 0
            at = row * stride
            row += 1
            out[at] = i
            out[at + 1] = slots
            at += 2
            left = slots * slot_cores
            if exclusive != 0:
                left = core_total[i]
            core_free[i] -= left
            base = i * core_words
            for w in range(core_words):
                bits = core_bits[base + w]
                take = 0
                while left > 0 and bits != 0:
                    lowest = bits & -bits
                    take |= lowest
                    bits ^= lowest
                    left -= 1
                core_bits[base + w] = bits
                out[at + w] = take
            at += core_words
            left = slots * slot_gpus
            if exclusive != 0:
                left = gpu_total[i]
            gpu_free[i] -= left
            base = i * gpu_words
            for w in range(gpu_words):
                bits = gpu_bits[base + w]
                take = 0
                while left > 0 and bits != 0:
                    lowest = bits & -bits
                    take |= lowest
                    bits ^= lowest
                    left -= 1
                gpu_bits[base + w] = bits
                out[at + w] = take
        placed += 1
    return placed
