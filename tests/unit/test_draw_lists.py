"""What stands in a draw's list: names that any registry has, and weights a person can recompute."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.draws.frame import DrawError, listed_name, told_name
from chargewatch.draws.tickets import Domain, exact_key, ticket, uniform_order
from chargewatch.supervision.inspections.weights import Facts, rule_on, weigh, weight_rules

TODAY = date(2026, 12, 1)


@given(st.text(min_size=1, max_size=30))
def test_every_name_can_be_listed_and_told_again(name: str) -> None:
    listed = listed_name(name)
    assert told_name(listed) == name
    assert listed != "-"
    assert not any(c.isspace() or c == "|" for c in listed)


def test_plain_names_stand_as_they_are() -> None:
    for name in ("TJ0001-01-1", "王伟", "a_b"):
        assert listed_name(name) == name
    assert listed_name("A 1|2%") == "A%201%7C2%25"


def test_the_uniform_order_is_that_of_the_keys() -> None:
    numbers = {n: ticket(Domain.UNIFORM, draw="1", seed="2", name=n) for n in map(str, range(50))}
    by_key = sorted(numbers, key=lambda n: (exact_key(numbers[n], Decimal(1)), n))
    assert sorted(numbers, key=lambda n: uniform_order(n, numbers[n])) == by_key


@pytest.mark.parametrize(
    ("facts", "weight", "words"),
    [
        (("red", "D", None, 9), "216",
         "tier red: 8 x credit D: 3 x never verified: 3 x complaints 9: 3 = 216"),
        (("green", "A", date(2026, 1, 1), 0), "0.5",
         "tier green: 1 x credit A: 0.5 x verified 2026-01-01: 1 = 0.5"),
        ((None, None, date(2023, 12, 1), 1), "4.5",
         "tier none: 1.5 x credit none: 1 x verified 2023-12-01: 2 x complaints 1: 1.5 = 4.5"),
        (("yellow", "C", date(2023, 12, 2), 0), "6",
         "tier yellow: 2 x credit C: 2 x verified 2023-12-02: 1.5 = 6"),
    ],
)  # fmt: skip
def test_a_weight_is_the_product_that_its_words_say(
    facts: tuple[str | None, str | None, date | None, int], weight: str, words: str
) -> None:
    tier, grade, verified_on, complaints = facts
    told = Facts(tier=tier, grade=grade, verified_on=verified_on, complaints=complaints)
    assert weigh(rule_on(TODAY), told, TODAY) == (Decimal(weight), words)


def test_rules_hold_from_their_day_on() -> None:
    assert rule_on(TODAY) is weight_rules()[-1]
    with pytest.raises(DrawError, match="no rule of weights"):
        rule_on(date(2025, 12, 31))
