"""What would change a grade most: how much each item could add, and what it takes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from typing import Any

from chargewatch.supervision.credit.arithmetic import Fact, compute, read_facts
from chargewatch.supervision.credit.rules import GradedItem, GradeRules, read_rule_set

_MOST_MORE = 1 << 20
"""More good results than this are no advice."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one item could do for the next better grade.

    gain: points of score that it adds when nothing of it is bad.
    better: `more` good ones, or `fewer` bad ones.
    count: how many of them alone give the next grade; None when it can't alone.
    """

    item: str
    gain: float
    better: str
    count: float | None


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """The next better grade, its distance, and what would bring it, the most effective first."""

    grade: str | None
    next_grade: str | None
    missing: float | None
    needs: tuple[Need, ...]


def _smallest(holds: Callable[[int], bool], most: int) -> int | None:
    """Return the smallest number from 1 to `most` that holds; what holds once, holds beyond."""
    if most < 1 or not holds(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _changed(item: GradedItem, fact: Fact, count: Fraction) -> Fact:
    if item.better == "more":
        return replace(fact, all=fact.all + count)
    return replace(fact, bad=max(Fraction(0), fact.bad - count))


def _alone(
    rules: GradeRules, item: GradedItem, facts: Mapping[str, Fact], least: Fraction
) -> float | None:
    """Return how many changes of one item reach a score; None when no number does."""
    fact = facts[item.item]
    unit = Fraction(1) if fact.bad.denominator == 1 else Fraction(1, 100)
    most = _MOST_MORE if item.better == "more" else int(fact.bad / unit)

    def holds(count: int) -> bool:
        return _score_with(rules, {**facts, item.item: _changed(item, fact, count * unit)}) >= least

    found = _smallest(holds, most)
    return None if found is None else float(found * unit)


def outlook(told: Mapping[str, Any]) -> Outlook:
    """Return what would change a grade most, from its own arithmetic.

    Args:
        told: as `arithmetic.compute` gives it.
    """
    rules = read_rule_set(told["rules"])
    facts = read_facts(told["facts"])
    if told["grade"] is None:
        return Outlook(grade=None, next_grade=None, missing=None, needs=())
    names = [grade for grade, _ in rules.grades]
    place = names.index(told["grade"])
    if place == 0:
        return Outlook(
            grade=told["grade"], next_grade=None, missing=None, needs=_needs(rules, facts, told)
        )
    following, least = rules.grades[place - 1]
    return Outlook(
        grade=told["grade"],
        next_grade=following,
        missing=float(least - Fraction(told["score"])),
        needs=_needs(rules, facts, told, least=least),
    )


def _score_with(rules: GradeRules, facts: Mapping[str, Fact]) -> Fraction:
    told = compute(_quick(rules), facts, operator_id="", month=date(2000, 1, 1))
    return Fraction(told["score"] or 0)


def _quick(rules: GradeRules) -> GradeRules:
    """Return the rules without intervals, which decide nothing and take time."""
    return replace(rules, items=tuple(replace(one, interval=False) for one in rules.items))


def _needs(
    rules: GradeRules,
    facts: Mapping[str, Fact],
    told: Mapping[str, Any],
    *,
    least: Fraction | None = None,
) -> tuple[Need, ...]:
    score = Fraction(told["score"])
    found = []
    for item in rules.items:
        fact = facts.get(item.item)
        if fact is None or fact.all == 0 or fact.bad == 0:
            continue
        best = _score_with(rules, {**facts, item.item: replace(fact, bad=Fraction(0))})
        count = None
        if least is not None:
            count = _alone(rules, item, facts, least)
        found.append(
            Need(item=item.item, gain=float(best - score), better=item.better, count=count)
        )
    return tuple(sorted(found, key=lambda one: -one.gain))
