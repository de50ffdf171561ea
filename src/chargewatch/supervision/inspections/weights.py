"""What a pile weighs in a draw: dated factors, multiplied, with the arithmetic in words.

Weights are decimals and the product is exact, so that a person comes to the same figure. The words
stand in the frozen list, which is published: they are the list's, and not translated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache, lru_cache
from importlib.resources import files

from chargewatch.draws.frame import DrawError

UNKNOWN = "none"
"""Key of a factor for a pile without a tier, or an operator without a grade."""
ALIKE = "all alike"
"""Rule of a draw whose uniform share is 1: nothing weighs, and the list tells nothing of a pile."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightRule:
    """Factors that hold from a day on; each multiplies the weight."""

    name: str
    valid_from: date
    source: str
    tier: Mapping[str, Decimal]
    credit: Mapping[str, Decimal]
    verified: tuple[tuple[int, Decimal], ...]  # below so many whole years since, the factor
    never_verified: Decimal
    each_complaint: Decimal  # added to a factor of 1
    most_complaints: Decimal  # the factor at most
    complaint_months: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a pile's weight is made of."""

    tier: str | None
    grade: str | None
    verified_on: date | None  # the last time that it passed
    complaints: int


def _decimals(row: Mapping[str, str]) -> dict[str, Decimal]:
    return {name: Decimal(value) for name, value in row.items()}


@cache
def weight_rules() -> tuple[WeightRule, ...]:
    """Return the rules that ship with chargewatch, the oldest first."""
    text = files(__package__).joinpath("weights.json").read_text("utf-8")
    found = [
        WeightRule(
            name=row["name"],
            valid_from=date.fromisoformat(row["valid_from"]),
            source=row["source"],
            tier=_decimals(row["tier"]),
            credit=_decimals(row["credit"]),
            verified=tuple(
                (int(step["below_years"]), Decimal(step["factor"])) for step in row["verified"]
            ),
            never_verified=Decimal(row["never_verified"]),
            each_complaint=Decimal(row["complaint"]["each"]),
            most_complaints=Decimal(row["complaint"]["most"]),
            complaint_months=int(row["complaint"]["months"]),
        )
        for row in json.loads(text)["rules"]
    ]
    return tuple(sorted(found, key=lambda one: one.valid_from))


def rule_on(day: date) -> WeightRule:
    """Return the rule that holds on a day.

    Raises: DrawError before the first one.
    """
    held = [one for one in weight_rules() if one.valid_from <= day]
    if not held:
        raise DrawError(f"no rule of weights holds on {day}: the first is of 2026")
    return held[-1]


def _whole_years(first: date, last: date) -> int:
    return last.year - first.year - ((last.month, last.day) < (first.month, first.day))


@lru_cache(maxsize=200_000)
def weigh(rule: WeightRule, facts: Facts, today: date) -> tuple[Decimal, str]:
    """Return a pile's weight and how it comes about, in the words of the list."""
    parts: list[tuple[str, Decimal]] = [
        (f"tier {facts.tier or UNKNOWN}", rule.tier[facts.tier or UNKNOWN]),
        (f"credit {facts.grade or UNKNOWN}", rule.credit[facts.grade or UNKNOWN]),
    ]
    if facts.verified_on is None:
        parts.append(("never verified", rule.never_verified))
    else:
        years = _whole_years(facts.verified_on, today)
        factor = next(factor for below, factor in rule.verified if years < below)
        parts.append((f"verified {facts.verified_on}", factor))
    if facts.complaints:
        factor = min(1 + facts.complaints * rule.each_complaint, rule.most_complaints)
        parts.append((f"complaints {facts.complaints}", factor))
    weight = Decimal(1)
    for _, factor in parts:
        weight *= factor
    told = " x ".join(f"{words}: {factor.normalize():f}" for words, factor in parts)
    return weight, f"{told} = {weight.normalize():f}"
