"""How many of a resource: a fixed count, a set of counts, or a range (RFC 14 *count*, RFC 45).

The general form of a jobspec may say ``4``, ``"4,9,16,25"``, ``"2-16:2:*"``, ``"3+"`` or
``{"min": 3, "max": 30}``; `Count` is what all of them mean.
"""

from __future__ import annotations

from flux_mpi.formats.idset import IDSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

OPERATORS = "+*^"


class Count:
    """The acceptable counts of a resource: an id set, or ``min, min op operand, …`` up to ``max``.

    ``maximum`` is None when there is no upper bound.
    """

    __slots__ = ("ids", "maximum", "minimum", "operand", "operator")

    def __init__(
        self,
        minimum: int,
        maximum: int | None = None,
        operator: str = "+",
        operand: int = 1,
        ids: IDSet | None = None,
    ) -> None:
        """Raises ValueError naming the part that is out of its bounds."""
        if minimum < 1:
            raise ValueError(f"min: expected at least 1, found {minimum}")
        if maximum is not None and maximum < minimum:
            raise ValueError(f"max: expected at least min ({minimum}), found {maximum}")
        if len(operator) != 1 or operator not in OPERATORS:
            raise ValueError(f"operator: expected one of + * ^, found {operator!r}")
        least = 1 if operator == "+" else 2
        if operand < least:
            raise ValueError(f"operand: expected at least {least} with {operator}, found {operand}")
        if operator == "^" and minimum < 2:
            raise ValueError(f"min: expected at least 2 with operator ^, found {minimum}")
        self.minimum = minimum
        self.maximum = maximum
        self.operator = operator
        self.operand = operand
        self.ids = ids

    @classmethod
    def parse(cls, value: int | str | Mapping[str, Any]) -> Count:
        """What a ``count`` of RFC 14 means; raises ValueError saying what is wrong with it."""
        if isinstance(value, str):
            return cls._parse_text(value)
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise ValueError(f"expected at least 1, found {value}")
            return cls(value, value)
        if isinstance(value, dict):
            return cls._parse_object(value)
        raise ValueError(
            f"expected a positive integer, a string or an object, found {type(value).__name__}"
        )

    @classmethod
    def _parse_object(cls, value: Mapping[str, Any]) -> Count:
        for key in value:
            if key not in ("min", "max", "operator", "operand"):
                raise ValueError(f"expected only min, max, operator, operand, found {key!r}")
        if "min" not in value:
            raise ValueError("min: it is missing")
        if ("operator" in value) != ("operand" in value):
            raise ValueError("operator and operand: expected both or neither, found one")
        for key in ("min", "max", "operand"):
            number = value.get(key, 1)
            if not isinstance(number, int) or isinstance(number, bool):
                raise ValueError(f"{key}: expected an integer, found {type(number).__name__}")
        operator = value.get("operator", "+")
        if not isinstance(operator, str):
            raise ValueError(f"operator: expected one of + * ^, found {operator!r}")
        return cls(value["min"], value.get("max"), operator, value.get("operand", 1))

    @classmethod
    def _parse_text(cls, text: str) -> Count:
        body = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
        if "+" not in body and ":" not in body:
            ids = IDSet.parse(text)
            if not ids:
                raise ValueError("expected at least one count, found an empty set")
            return cls(ids.first, ids.last, ids=ids)
        shown = repr(text if len(text) <= 64 else text[:61] + "...")
        bounds, *rest = body.split(":")
        operator, operand = "+", 1
        if len(rest) > 2:
            raise ValueError(f"range {shown}: expected min-max:operand:operator")
        if rest:
            operand = _number(rest[0], shown)
        if len(rest) == 2:
            operator = rest[1]
        if bounds.endswith("+"):
            return cls(_number(bounds[:-1], shown), None, operator, operand)
        first, dash, last = bounds.partition("-")
        if not dash:
            raise ValueError(f"range {shown}: expected min-max or min+, found {bounds[:20]!r}")
        return cls(_number(first, shown), _number(last, shown), operator, operand)

    @property
    def fixed(self) -> bool:
        """Whether exactly one count is acceptable."""
        return self.minimum == self.maximum

    def values(self) -> Iterator[int]:
        """The acceptable counts, ascending (endless without a maximum)."""
        if self.ids is not None:
            yield from self.ids
            return
        value = self.minimum
        while self.maximum is None or value <= self.maximum:
            yield value
            if self.operator == "+":
                value += self.operand
            elif self.operator == "*":
                value *= self.operand
            else:
                value **= self.operand

    def best(self, available: int) -> int:
        """The largest acceptable count that ``available`` covers, 0 when none does."""
        limit = available if self.maximum is None else min(available, self.maximum)
        if limit < self.minimum:
            return 0
        if self.ids is not None:
            return (self.ids & IDSet(range(limit + 1))).last
        if self.operator == "+":
            return limit - (limit - self.minimum) % self.operand
        found = 0
        for value in self.values():
            if value > limit:
                break
            found = value
        return found

    def __contains__(self, value: int) -> bool:
        return value >= 1 and self.best(value) == value

    def __str__(self) -> str:
        if self.ids is not None:
            return str(self.ids)
        if self.fixed:
            return str(self.minimum)
        text = f"{self.minimum}+" if self.maximum is None else f"{self.minimum}-{self.maximum}"
        if self.operator != "+":
            return f"{text}:{self.operand}:{self.operator}"
        return text if self.operand == 1 else f"{text}:{self.operand}"

    def __repr__(self) -> str:
        return f"Count.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Count):
            return NotImplemented
        return str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def _number(text: str, shown: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or text[0] == "0":
        raise ValueError(f"range {shown}: expected a positive integer, found {text[:20]!r}")
    return int(text)
