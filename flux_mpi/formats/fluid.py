"""Job ids: FLUIDs and all their spellings (RFC 19).

A FLUID is 64 bits: 40 of milliseconds since the instance started, 14 of generator, 10 of sequence.
Within one generator the (timestamp, sequence) pairs are consecutive numbers, which makes an array
of jobs an arithmetic progression: member *k* of the array that starts at ``first`` is
``nth(first, k)``, and ``index`` inverts that without a table.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SEQUENCE_BITS = 10
GENERATOR_BITS = 14
TIMESTAMP_BITS = 40

MAX_GENERATOR = (1 << GENERATOR_BITS) - 1
MAX_FLUID = (1 << 64) - 1
FORMS = ("f58", "f58plain", "dec", "hex", "dothex", "kvs", "words", "emoji")

_SHIFT = SEQUENCE_BITS + GENERATOR_BITS
_SEQUENCE_MASK = (1 << SEQUENCE_BITS) - 1
_POSITIONS = 1 << (TIMESTAMP_BITS + SEQUENCE_BITS)

_F58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_F58_VALUE = {digit: value for value, digit in enumerate(_F58)}
_F58_SQUARED = 58 * 58
# Two digits at a time; filled by the first encode() so that importing stays free.
_F58_PAIRS: list[str] = []


def _position(fluid: int) -> int:
    return (fluid >> _SHIFT) << SEQUENCE_BITS | fluid & _SEQUENCE_MASK


def _at(position: int, generator_id: int) -> int:
    return (
        (position >> SEQUENCE_BITS) << _SHIFT
        | generator_id << SEQUENCE_BITS
        | position & _SEQUENCE_MASK
    )


def nth(first: int, k: int) -> int:
    """The id ``k`` places after ``first`` in the order its generator hands them out.

    Raises OverflowError when that leaves the 64 bits.
    """
    position = _position(first) + k
    if not 0 <= position < _POSITIONS:
        raise OverflowError(f"job id {k} places from {first} does not exist")
    return _at(position, generator(first))


def index(first: int, fluid: int) -> int:
    """How many places ``fluid`` comes after ``first`` (negative: before).

    Raises ValueError when another generator made it: no array holds both.
    """
    if (first ^ fluid) >> SEQUENCE_BITS & MAX_GENERATOR:
        raise ValueError(f"job ids {first} and {fluid} are of different generators")
    return _position(fluid) - _position(first)


def indexes(first: int, fluids: Sequence[int]) -> list[int]:
    """`index` of many ids at once.

    Raises ValueError when another generator made one of them.
    """
    made_by, base = first >> SEQUENCE_BITS & MAX_GENERATOR, _position(first)
    found = [
        ((each >> _SHIFT) << SEQUENCE_BITS | each & _SEQUENCE_MASK) - base
        for each in fluids
        if each >> SEQUENCE_BITS & MAX_GENERATOR == made_by
    ]
    if len(found) != len(fluids):
        raise ValueError(f"job ids from {first} on: some are of different generators")
    return found


def timestamp(fluid: int) -> int:
    """Milliseconds between the generator's epoch and the id."""
    return fluid >> _SHIFT


def generator(fluid: int) -> int:
    """The id of the generator that made ``fluid``."""
    return fluid >> SEQUENCE_BITS & MAX_GENERATOR


class Generator:
    """Hands out ids; never one twice, whatever the clock does.

    Raises ValueError when ``generator_id`` is not in 0..16383.
    """

    __slots__ = ("_next", "generator_id")

    def __init__(self, generator_id: int = 0) -> None:
        if not 0 <= generator_id <= MAX_GENERATOR:
            raise ValueError(f"generator id: expected 0..{MAX_GENERATOR}, found {generator_id}")
        self.generator_id = generator_id
        self._next = 0

    def take(self, count: int, now_ms: int) -> int:
        """The first of ``count`` consecutive ids, at ``now_ms`` ms since the epoch or later.

        More than 1,024 ids a millisecond run ahead of the clock, and so does a clock that steps
        back: the next ids then follow the last ones. Raises ValueError for a count below 1 and
        OverflowError after 34 years.
        """
        if count < 1:
            raise ValueError(f"job ids: expected a count of at least 1, found {count}")
        position = max(self._next, int(now_ms) << SEQUENCE_BITS)
        if position + count > _POSITIONS:
            raise OverflowError(f"no {count} job ids are left at {now_ms} ms")
        self._next = position + count
        return _at(position, self.generator_id)

    def skip(self, fluid: int, count: int = 1) -> None:
        """Never hand out the ``count`` ids from ``fluid`` on, nor any before (after a restart)."""
        self._next = max(self._next, _position(fluid) + count)


def encode(fluid: int, form: str = "f58") -> str:
    """``fluid`` in one of `FORMS`; raises ValueError for another form or a number out of 64 bits.

    ``f58plain`` is F58 with an ASCII ``f``; ``kvs`` is ``job.`` and the dotted hexadecimal.
    """
    if form == "f58":
        return "ƒ" + _f58(fluid)
    if not 0 <= fluid <= MAX_FLUID:
        raise ValueError(f"job id: {fluid} is not in 0..2^64-1")
    if form == "f58plain":
        return "f" + _f58(fluid)
    if form == "dec":
        return str(fluid)
    if form == "hex":
        return f"0x{fluid:x}"
    if form in ("dothex", "kvs"):
        text = f"{fluid:016x}"
        dotted = f"{text[:4]}.{text[4:8]}.{text[8:12]}.{text[12:]}"
        return dotted if form == "dothex" else "job." + dotted
    if form == "words":
        from mnemonicode import mnformat

        return str(mnformat(fluid.to_bytes(8, "little")))
    if form == "emoji":
        from flux_mpi.formats.emoji_digits import DIGITS

        emoji = ""
        while True:
            fluid, digit = divmod(fluid, len(DIGITS))
            emoji = DIGITS[digit] + emoji
            if not fluid:
                return emoji
    raise ValueError(f"job id form: expected one of {' '.join(FORMS)}, found {form!r}")


def _f58(fluid: int) -> str:
    if not 0 <= fluid <= MAX_FLUID:
        raise ValueError(f"job id: {fluid} is not in 0..2^64-1")
    if not _F58_PAIRS:
        _F58_PAIRS.extend([high + low for high in _F58 for low in _F58])
    text = ""
    while fluid >= _F58_SQUARED:
        fluid, pair = divmod(fluid, _F58_SQUARED)
        text = _F58_PAIRS[pair] + text
    return (_F58[fluid] if fluid < 58 else _F58_PAIRS[fluid]) + text


def parse(text: str | int) -> int:
    """The job id that ``text`` spells, in any form of RFC 19 (or ``kvs``), or ``text`` itself.

    The spelling tells the form: a dot is dotted hexadecimal, a hyphen words, a leading ``ƒ`` or
    ``f`` F58, an emoji emoji, ``0x`` hexadecimal, anything else decimal. Surrounding white space
    does not count. Raises ValueError naming the text and what is wrong with it.
    """
    if isinstance(text, int):
        if isinstance(text, bool) or not 0 <= text <= MAX_FLUID:
            raise ValueError(f"invalid job id {text!r}: expected a number in 0..2^64-1")
        return int(text)
    if not isinstance(text, str):
        raise ValueError(f"invalid job id: expected text, found {type(text).__name__}")
    word = text.strip()
    shown = repr(word if len(word) <= 64 else word[:61] + "...")
    if not word:
        raise ValueError("invalid job id: it is empty")
    if "." in word:
        return _parse_dothex(word.removeprefix("job."), shown)
    if "-" in word:
        return _parse_words(word, shown)
    if word[0] in "ƒf":
        return _number(word[1:], _F58_VALUE, shown, "base-58 digit")
    if word[0] >= "\U0001f000":
        from flux_mpi.formats.emoji_digits import DIGITS

        values = {digit: value for value, digit in enumerate(DIGITS)}
        return _number(word, values, shown, "RFC 19 emoji")
    if word.startswith("0x"):
        return _number(word[2:].lower(), _HEX_VALUE, shown, "hexadecimal digit")
    return _number(word, _DEC_VALUE, shown, "decimal digit")


_HEX_VALUE = {digit: value for value, digit in enumerate("0123456789abcdef")}
_DEC_VALUE = {digit: value for value, digit in enumerate("0123456789")}


def _number(digits: str, values: dict[str, int], shown: str, kind: str) -> int:
    if not digits:
        raise ValueError(f"invalid job id {shown}: no digits follow its prefix")
    base = len(values)
    value = 0
    for digit in digits:
        if digit not in values:
            raise ValueError(f"invalid job id {shown}: {digit!r} is no {kind}")
        value = value * base + values[digit]
        if value > MAX_FLUID:
            raise ValueError(f"invalid job id {shown}: it is above 2^64-1")
    return value


def _parse_dothex(word: str, shown: str) -> int:
    groups = word.split(".")
    if len(groups) != 4 or any(len(group) != 4 for group in groups):
        raise ValueError(f"invalid job id {shown}: expected xxxx.xxxx.xxxx.xxxx in hexadecimal")
    return _number("".join(groups).lower(), _HEX_VALUE, shown, "hexadecimal digit")


def _parse_words(word: str, shown: str) -> int:
    from mnemonicode import mnformat, mnparse

    words = [part for part in word.lower().split("-") if part]
    # Hyphens may be doubled or not: six words are two groups of three, 32 bits each.
    text = f"{'-'.join(words[:3])}--{'-'.join(words[3:])}"
    try:
        data = mnparse(text) if len(words) == 6 else b""
    except ValueError as err:
        raise ValueError(f"invalid job id {shown}: not mnemonic words ({err})") from None
    # Three words can say a little more than 32 bits; such a number would not come back as it was.
    if len(data) != 8 or mnformat(data) != text:
        raise ValueError(f"invalid job id {shown}: expected the six mnemonic words of a number")
    return int.from_bytes(data, "little")
