"""Sets of non-negative integers in their compact string form (RFC 22).

A set is kept as sorted, disjoint, non-adjacent ranges, so ``1-1000000`` costs as much as ``7``.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_ID = (1 << 63) - 1
"""Largest id accepted: what a signed 64-bit field of a message or an array can hold."""

MAX_MASK_BITS = 1 << 26
"""`IDSet.mask` refuses ids from here on: the integer would take more than 8 MiB."""


def _parse_id(text: str, whole: str) -> int:
    # str.isdigit() alone would let other scripts' digits through.
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"idset {_shown(whole)}: expected a decimal id, found {_shown(text)}")
    if text[0] == "0" and len(text) > 1:
        raise ValueError(f"idset {_shown(whole)}: leading zero in {_shown(text)}")
    # 19 digits hold MAX_ID: longer ones are not even converted.
    if len(text) > 19 or int(text) > MAX_ID:
        raise ValueError(f"idset {_shown(whole)}: id {_shown(text)} is above {MAX_ID}")
    return int(text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:61] + "...")


class IDSet:
    """An immutable, hashable set of ids, iterated in ascending order.

    ``IDSet(iterable)`` takes ids in any order and repeats; `parse` takes RFC 22 text.
    Raises ValueError for negative or too large ids, TypeError for what is not an int.
    """

    __slots__ = ("_cum", "_hi", "_lo")

    _lo: tuple[int, ...]
    _hi: tuple[int, ...]
    _cum: tuple[int, ...] | None

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._cum = None
        if isinstance(ids, IDSet):
            self._lo, self._hi = ids._lo, ids._hi
            return
        if isinstance(ids, range) and abs(ids.step) == 1 and len(ids):
            first, last = min(ids[0], ids[-1]), max(ids[0], ids[-1])
            _check(first)
            _check(last)
            self._lo, self._hi = (first,), (last,)
            return
        lo: list[int] = []
        hi: list[int] = []
        for value in sorted(_check(value) for value in ids):
            if hi and value <= hi[-1] + 1:
                hi[-1] = value
            else:
                lo.append(value)
                hi.append(value)
        self._lo, self._hi = tuple(lo), tuple(hi)

    @classmethod
    def _of(cls, lo: Iterable[int], hi: Iterable[int]) -> IDSet:
        new = cls.__new__(cls)
        new._lo, new._hi, new._cum = tuple(lo), tuple(hi), None
        return new

    @classmethod
    def parse(cls, text: str) -> IDSet:
        """The set that RFC 22 ``text`` names, e.g. ``"0-3,7"`` or ``"[0-3,7]"``.

        Ids ascend, without leading zeros or spaces; ``""`` and ``"[]"`` are empty.
        Raises ValueError saying what was found.
        """
        if not isinstance(text, str):
            raise ValueError(f"idset: expected a string, found {type(text).__name__}")
        body = text
        if len(body) >= 2 and body[0] == "[" and body[-1] == "]":
            body = body[1:-1]
        if "[" in body or "]" in body:
            raise ValueError(f"idset {_shown(text)}: mismatched or nested brackets")
        if not body:
            return EMPTY
        lo: list[int] = []
        hi: list[int] = []
        for part in body.split(","):
            first_text, dash, last_text = part.partition("-")
            first = _parse_id(first_text, text)
            last = _parse_id(last_text, text) if dash else first
            if dash and last <= first:
                raise ValueError(f"idset {_shown(text)}: range {part!r} does not ascend")
            if hi and first <= hi[-1]:
                raise ValueError(f"idset {_shown(text)}: {part!r} is out of order")
            if hi and first == hi[-1] + 1:
                hi[-1] = last
            else:
                lo.append(first)
                hi.append(last)
        return cls._of(lo, hi)

    @classmethod
    def from_ranges(cls, ranges: Iterable[tuple[int, int]]) -> IDSet:
        """The union of inclusive ``(first, last)`` ranges, in any order."""
        lo: list[int] = []
        hi: list[int] = []
        for first, last in sorted(ranges):
            if _check(last) < _check(first):
                raise ValueError(f"idset: range {first}-{last} does not ascend")
            if hi and first <= hi[-1] + 1:
                hi[-1] = max(hi[-1], last)
            else:
                lo.append(first)
                hi.append(last)
        return cls._of(lo, hi)

    @classmethod
    def from_mask(cls, mask: int) -> IDSet:
        """The positions of the one bits of ``mask`` (bit 0 is id 0); raises ValueError if < 0."""
        if mask < 0:
            raise ValueError(f"idset: negative mask {mask}")
        lo: list[int] = []
        hi: list[int] = []
        if mask.bit_length() > 4096:
            # Shifting would cost the square of the length; one pass over the digits does not.
            digits = bin(mask)[:1:-1]
            start = digits.find("1")
            while start >= 0:
                end = digits.find("0", start)
                if end < 0:
                    end = len(digits)
                lo.append(start)
                hi.append(end - 1)
                start = digits.find("1", end)
            return cls._of(lo, hi)
        base = 0
        while mask:
            zeros = (mask & -mask).bit_length() - 1
            mask >>= zeros
            ones = (~mask & (mask + 1)).bit_length() - 1
            mask >>= ones
            base += zeros
            lo.append(base)
            base += ones
            hi.append(base - 1)
        return cls._of(lo, hi)

    @property
    def mask(self) -> int:
        """The set as an integer with bit *id* set; raises ValueError above `MAX_MASK_BITS`."""
        if self._hi and self._hi[-1] >= MAX_MASK_BITS:
            raise ValueError(f"idset: id {self._hi[-1]} is too large for a mask")
        value = 0
        for first, last in self.ranges():
            value |= ((1 << (last - first + 1)) - 1) << first
        return value

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The maximal inclusive ``(first, last)`` ranges, ascending."""
        return zip(self._lo, self._hi, strict=True)

    @property
    def first(self) -> int:
        """Smallest id; raises ValueError when empty."""
        if not self._lo:
            raise ValueError("idset: an empty set has no first id")
        return self._lo[0]

    @property
    def last(self) -> int:
        """Largest id; raises ValueError when empty."""
        if not self._hi:
            raise ValueError("idset: an empty set has no last id")
        return self._hi[-1]

    def _cumulative(self) -> tuple[int, ...]:
        if self._cum is None:
            counts = (last - first + 1 for first, last in self.ranges())
            self._cum = tuple(accumulate(counts, initial=0))
        return self._cum

    def __len__(self) -> int:
        return self._cumulative()[-1]

    def __bool__(self) -> bool:
        return bool(self._lo)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges():
            yield from range(first, last + 1)

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int):
            return False
        at = bisect_right(self._lo, value) - 1
        return at >= 0 and value <= self._hi[at]

    def nth(self, k: int) -> int:
        """The ``k``-th smallest id, from 0 (negative counts from the end); raises IndexError."""
        cum = self._cumulative()
        index = k + cum[-1] if k < 0 else k
        if not 0 <= index < cum[-1]:
            raise IndexError(f"idset: no member number {k} of {cum[-1]}")
        at = bisect_right(cum, index) - 1
        return self._lo[at] + index - cum[at]

    def index(self, value: int) -> int:
        """How many members are below member ``value`` (so ``nth(index(v)) == v``).

        Raises ValueError when ``value`` is not a member.
        """
        at = bisect_right(self._lo, value) - 1
        if at < 0 or value > self._hi[at]:
            raise ValueError(f"idset: {value} is not in {self}")
        return self._cumulative()[at] + value - self._lo[at]

    def take(self, count: int) -> IDSet:
        """The ``count`` smallest ids (all of them when there are fewer)."""
        lo: list[int] = []
        hi: list[int] = []
        for first, last in self.ranges():
            if count <= 0:
                break
            lo.append(first)
            hi.append(min(last, first + count - 1))
            count -= last - first + 1
        return IDSet._of(lo, hi)

    def __or__(self, other: IDSet) -> IDSet:
        if not isinstance(other, IDSet):
            return NotImplemented
        if not other._lo:
            return self
        if not self._lo:
            return other
        return IDSet.from_ranges([*self.ranges(), *other.ranges()])

    def __and__(self, other: IDSet) -> IDSet:
        if not isinstance(other, IDSet):
            return NotImplemented
        lo: list[int] = []
        hi: list[int] = []
        i = j = 0
        while i < len(self._lo) and j < len(other._lo):
            first = max(self._lo[i], other._lo[j])
            last = min(self._hi[i], other._hi[j])
            if first <= last:
                lo.append(first)
                hi.append(last)
            if self._hi[i] < other._hi[j]:
                i += 1
            else:
                j += 1
        return IDSet._of(lo, hi)

    def __sub__(self, other: IDSet) -> IDSet:
        if not isinstance(other, IDSet):
            return NotImplemented
        lo: list[int] = []
        hi: list[int] = []
        j = 0
        for first, last in self.ranges():
            while j < len(other._hi) and other._hi[j] < first:
                j += 1
            k = j
            while k < len(other._lo) and other._lo[k] <= last:
                if other._lo[k] > first:
                    lo.append(first)
                    hi.append(other._lo[k] - 1)
                first = other._hi[k] + 1
                k += 1
            if first <= last:
                lo.append(first)
                hi.append(last)
        return IDSet._of(lo, hi)

    def __xor__(self, other: IDSet) -> IDSet:
        if not isinstance(other, IDSet):
            return NotImplemented
        return (self - other) | (other - self)

    def __le__(self, other: IDSet) -> bool:
        if not isinstance(other, IDSet):
            return NotImplemented
        return not self - other

    def isdisjoint(self, other: IDSet) -> bool:
        return not self & other

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IDSet):
            return NotImplemented
        return self._lo == other._lo and self._hi == other._hi

    def __hash__(self) -> int:
        return hash((self._lo, self._hi))

    def __str__(self) -> str:
        return ",".join(
            str(first) if first == last else f"{first}-{last}" for first, last in self.ranges()
        )

    def bracketed(self) -> str:
        """As ``str``, in brackets when there is more than one member: ``7``, ``[0-3,7]``."""
        text = str(self)
        return text if len(self._lo) == 1 and self._lo == self._hi else f"[{text}]"

    def __repr__(self) -> str:
        return f"IDSet.parse({str(self)!r})"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (IDSet.parse, (str(self),))


def _check(value: int) -> int:
    if type(value) is not int:
        # numpy's integers are welcome, floats and booleans are not.
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"idset: expected an int, found {type(value).__name__}")
        value = int(value)
    if not 0 <= value <= MAX_ID:
        raise ValueError(f"idset: id {value} is not in 0..{MAX_ID}")
    return value


EMPTY = IDSet()
"""The empty set."""
