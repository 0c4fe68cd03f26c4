"""RFC 19: the vectors of the RFC and of a real Flux, and ids that never repeat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats import fluid
from flux_mpi.formats.emoji_digits import DIGITS
from flux_mpi.formats.fluid import MAX_FLUID, Generator

fluids = st.integers(0, MAX_FLUID)

# One FLUID in each form, as the RFC gives it.
RFC_FLUID = 6731191091817518
RFC_FORMS = {
    "f58": "ƒuZZybuNNy",
    "f58plain": "fuZZybuNNy",
    "dec": "6731191091817518",
    "hex": "0x17e9fb8df16c2e",
    "dothex": "0017.e9fb.8df1.6c2e",
    "kvs": "job.0017.e9fb.8df1.6c2e",
    "words": "reform-remote-galileo--heart-package-academy",
    "emoji": "👩💅📓😸👑🚓",  # not in the RFC, whose emoji are those of other ids
}
# The other examples of the RFC: spellings of the same number.
RFC_GROUPS = [
    ("0xedaf97d000000", "000e.daf9.7d00.0000", "random-idea-yoyo--sugar-printer-academy"),
]


@pytest.mark.parametrize("form", fluid.FORMS)
def test_the_examples_of_the_rfc(form: str) -> None:
    assert fluid.encode(RFC_FLUID, form) == RFC_FORMS[form]
    assert fluid.parse(RFC_FORMS[form]) == RFC_FLUID


def test_the_other_examples_of_the_rfc_agree_with_each_other() -> None:
    for group in RFC_GROUPS:
        assert len({fluid.parse(text) for text in group}) == 1
    for text in ("ƒZemgA8Bzf", "ƒ278oEf7zGf"):
        assert fluid.encode(fluid.parse(text)) == text
    for text in ("🚹💂🙌😳💱🏃", "😄😹🎇📥🏧🙉🔞", "🚹💂🈳💰🎩🏃"):
        number = fluid.parse(text)
        assert fluid.encode(number, "emoji") == text
        # Ids of generator 0, first in their millisecond: only the right digit order gives these.
        assert number % (1 << 24) == 0


def test_words_are_read_as_they_are_said() -> None:
    assert fluid.parse("Reform-Remote-Galileo-heart-package-ACADEMY") == RFC_FLUID


def test_what_flux_printed() -> None:
    job = fluid.parse("ƒAuh4bsm")
    assert fluid.encode(job, "kvs") == "job.0000.0057.d300.0000"
    assert fluid.encode(job, "words") == "hello-salt-enjoy--bruno-academy-academy"
    assert fluid.parse("ƒ63VmJis") == 191981682688
    # Array members and single submits of one broker: neighbours differ by one sequence number.
    assert fluid.index(fluid.parse("ƒxYa6NK"), fluid.parse("ƒxYa6NL")) == 1


@given(fluids, st.sampled_from(fluid.FORMS))
def test_every_form_round_trips(number: int, form: str) -> None:
    text = fluid.encode(number, form)
    assert fluid.parse(text) == number
    assert fluid.parse(f" \t{text}\n") == number
    assert fluid.parse(number) == number


@given(fluids)
def test_f58_is_base_58(number: int) -> None:
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    value = 0
    for digit in fluid.encode(number)[1:]:
        value = value * 58 + alphabet.index(digit)
    assert value == number


def test_the_emoji_are_the_four_byte_ones_of_unicode_6() -> None:
    assert len(set(DIGITS)) == len(DIGITS) == 576
    assert all(digit.encode()[:2] == b"\xf0\x9f" for digit in DIGITS)
    assert fluid.encode(0, "emoji") == "😃"
    assert fluid.encode(1, "emoji") == "😄"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "f",
        "ƒ",
        "because",
        "f0",
        "fO",
        "ƒIl",
        "12x",
        "-1",
        "+1",
        "1_000",
        "1 2",
        "0x",
        "0xg",
        "0x1_0",
        "1.2",
        "0017.e9fb.8df1.6c2",
        "0017.e9fb.8df1.6c2e.0000",
        "0017.e9fb.8df1.6c2z",
        "job.",
        "job.f58",
        "no-such-words",
        "academy-academy-academy--academy-academy",
        "academy-academy-academy--academy-academy-academy-academy",
        "visible-visible-zoom--academy-academy-ego",
        "🚹x",
        "☃",
        "١٢",
        "18446744073709551616",
        "0x10000000000000000",
        "ƒ" + "z" * 12,
        "f" + "z" * 100_000,
        "1" * 100_000,
        True,
        -1,
        1 << 64,
        None,
        1.5,
        b"f1",
    ],
)
def test_what_is_no_job_id_is_refused_briefly(text: object) -> None:
    with pytest.raises(ValueError, match="invalid job id") as caught:
        fluid.parse(text)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


def test_numbers_out_of_range_and_unknown_forms_do_not_encode() -> None:
    for number in (-1, 1 << 64):
        for form in fluid.FORMS:
            with pytest.raises(ValueError, match="is not in"):
                fluid.encode(number, form)
    with pytest.raises(ValueError, match="expected one of f58 f58plain"):
        fluid.encode(1, "roman")


@given(
    st.integers(0, fluid.MAX_GENERATOR),
    st.lists(st.tuples(st.integers(1, 5000), st.integers(-50, 50)), min_size=1, max_size=30),
)
def test_no_id_is_handed_out_twice(generator_id: int, calls: list[tuple[int, int]]) -> None:
    source = Generator(generator_id)
    now, last = 100_000, -1
    for count, step in calls:
        now += step
        first = source.take(count, now)
        assert first > last
        assert fluid.timestamp(first) >= now
        assert fluid.generator(first) == generator_id
        last = fluid.nth(first, count - 1)
        assert fluid.index(first, last) == count - 1


def test_two_generators_never_collide() -> None:
    one, two = Generator(1), Generator(2)
    ids = {fluid.nth(g.take(3000, 7), k) for g in (one, two) for k in range(3000)}
    assert len(ids) == 6000


@given(fluids, st.integers(-(10**6), 10**6))
def test_nth_and_index_are_inverse(first: int, k: int) -> None:
    try:
        member = fluid.nth(first, k)
    except OverflowError:
        return
    assert fluid.index(first, member) == k
    assert (member > first) == (k > 0)


def test_ids_of_other_generators_have_no_index() -> None:
    with pytest.raises(ValueError, match="different generators"):
        fluid.index(Generator(0).take(1, 5), Generator(1).take(1, 5))
    with pytest.raises(ValueError, match="different generators"):
        fluid.indexes(Generator(0).take(1, 5), [Generator(n).take(1, 5) for n in (0, 1)])


@given(first=st.integers(0, MAX_FLUID >> 1), ks=st.lists(st.integers(0, 5000)))
def test_many_are_indexed_as_each_is(first: int, ks: list[int]) -> None:
    assert fluid.indexes(first, [fluid.nth(first, k) for k in ks]) == ks


def test_a_generator_can_be_told_what_is_taken() -> None:
    before, after = Generator(), Generator()
    first = before.take(10, 1000)
    after.skip(first, 10)
    assert after.take(1, 3) == fluid.nth(first, 10)
    after.skip(first)  # never backwards
    assert after.take(1, 3) == fluid.nth(first, 11)


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="count"):
        Generator().take(0, 1)
    with pytest.raises(ValueError, match="generator id"):
        Generator(1 << 14)
    with pytest.raises(OverflowError):
        Generator().take(1, 1 << 40)
    with pytest.raises(OverflowError):
        fluid.nth(MAX_FLUID, 1)
    with pytest.raises(OverflowError):
        fluid.nth(0, -1)
