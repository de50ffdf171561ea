"""Reference numbers that survive a telephone, and words without what reaches a person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.supervision.complaints.filing import plain_words
from chargewatch.supervision.complaints.privacy import without_contacts
from chargewatch.supervision.complaints.references import (
    RANDOM_DIGITS,
    check_digit,
    new_reference,
    read_reference,
)

DIGITS = st.text("0123456789", min_size=RANDOM_DIGITS, max_size=RANDOM_DIGITS)


def test_the_published_example_of_the_algorithm() -> None:
    # H. M. Damm's own: 572 has the check digit 4.
    assert check_digit("572") == "4"
    assert check_digit("5724") == "0"


@given(DIGITS, st.integers(0, RANDOM_DIGITS), st.integers(1, 9))
def test_every_single_wrong_digit_is_found(digits: str, place: int, more: int) -> None:
    whole = digits + check_digit(digits)
    wrong = whole[:place] + str((int(whole[place]) + more) % 10) + whole[place + 1 :]
    assert read_reference(whole) is not None
    assert read_reference(wrong) is None


@given(DIGITS, st.integers(0, RANDOM_DIGITS - 1))
def test_every_two_digits_that_changed_places_are_found(digits: str, at: int) -> None:
    whole = digits + check_digit(digits)
    swapped = whole[:at] + whole[at + 1] + whole[at] + whole[at + 2 :]
    assert (read_reference(swapped) is None) == (swapped != whole)


@pytest.mark.parametrize(
    "typed",
    ["12345-67890-12345", "123456789012345", " 12345 67890 12345\n", "12345－67890－12345",
     "１２３４５ ６７８９０ １２３４５", "12345.67890.12345"],
)  # fmt: skip
def test_it_is_read_however_it_is_typed(typed: str) -> None:
    assert read_reference(typed) == "12345-67890-12345"


@pytest.mark.parametrize("typed", ["", "1", "x" * 10_000, "12345-67890-1234", "٠" * 15, "1" * 16])
def test_what_is_none_is_not_read(typed: str) -> None:
    assert read_reference(typed) is None


def test_references_are_random() -> None:
    drawn = {new_reference() for _ in range(1_000)}
    assert len(drawn) == 1_000
    assert all(read_reference(one) == one for one in drawn)
    # Every digit stands at every random place.
    assert all({one.replace("-", "")[k] for one in drawn} == set("0123456789") for k in range(14))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("call 13812345678 now", "call … now"),
        ("call +86 138-1234-5678.", "call …."),
        ("mail wu.li@mail.example please", "mail … please"),
        ("tel13812345678x", "tel…x"),
        ("电话13812345678，谢谢", "电话…，谢谢"),
        ("邮箱：wu@mail.example。", "邮箱：…。"),
        ("on 2026-09-17 I paid 123.45 for 20.5 kWh", "on 2026-09-17 I paid 123.45 for 20.5 kWh"),
        ("from 10:30 to 11:15, pile TJ0001-01-1", "from 10:30 to 11:15, pile TJ0001-01-1"),
        ("order S-00012345", "order S-00012345"),
    ],
)
def test_words_lose_what_reaches_a_person(text: str, shown: str) -> None:
    assert without_contacts(text) == shown


def test_nothing_is_nothing() -> None:
    assert without_contacts(None) is None


def test_words_lose_what_nobody_sees() -> None:
    assert plain_words("a\x00b\u202ec\ufeff\r\nd\n\n\n\ne \x1b[31m") == "abc\nd\n\ne [31m"
    assert plain_words("e\u0301") == "é"
