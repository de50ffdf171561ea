"""The arithmetic of a grade: exact fractions, each line rounded once, and the next from that.

    rate            = bad / all, told for `per`
    weight in force = weight x all / (all + half_at): few results weigh little
    points          = by the rule's lines, from the rate
    score           = sum of weight in force x points / sum of weights in force, from 0 to 100

So nobody is ruined or saved by few results, and what isn't known neither helps nor harms: its
weight in force is 0. Every figure is rounded half up to the decimals with which it stands, and
the next one is computed from the figure as it stands: a person with a calculator gets the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Any

from chargewatch.supervision.canonical import canonical
from chargewatch.supervision.credit.interval import exact_interval
from chargewatch.supervision.credit.rules import (
    CreditError,
    GradedItem,
    GradeRules,
    exact,
    read_rule_set,
    rule_sets,
)

FORM = 1
PUBLISHED = "published"
"""Key of a published grade's file that tells its revision, when it was made, and why."""
RATE_DECIMALS = 9
WEIGHT_DECIMALS = 6
POINT_DECIMALS = 4
SCORE_DECIMALS = 2


def rounded(value: Fraction, decimals: int) -> Fraction:
    """Return a number rounded half up (away from minus infinity) to decimals."""
    scale = 10**decimals
    return Fraction((2 * value * scale + 1).__floor__() // 2, scale)


def written(value: Fraction, decimals: int) -> str:
    """Return a number that has at most so many decimals, with all of them."""
    scaled = value * 10**decimals
    if scaled.denominator != 1:
        raise CreditError(f"{value} has more than {decimals} decimals")
    digits = f"{abs(scaled.numerator):0{decimals + 1}d}"
    whole, part = digits[: len(digits) - decimals], digits[len(digits) - decimals :]
    return ("-" if scaled < 0 else "") + whole + ("." + part if decimals else "")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """What is known of one item of an operator.

    bad, all: how many went badly, of how many; hours and money as well.
    rows: how many rows of the tables they were counted from.
    estimate, most: of an estimated `bad` that is taken at its least: the estimate, and the most.
    """

    bad: Fraction
    all: Fraction
    rows: int
    estimate: Fraction | None = None
    most: Fraction | None = None

    def told(self) -> dict[str, Any]:
        """Return the fact as it is published."""
        found: dict[str, Any] = {"bad": _plain(self.bad), "all": _plain(self.all)}
        if self.estimate is not None and self.most is not None:
            found |= {"estimate": _plain(self.estimate), "most": _plain(self.most)}
        return found | {"rows": self.rows}


def _plain(value: Fraction) -> str:
    return written(value, 0 if value.denominator == 1 else 2)


def read_fact(told: Any, where: str) -> Fact:
    """Return a fact that was read from JSON.

    Raises: CreditError that names what is wrong.
    """
    if not isinstance(told, Mapping) or not {"bad", "all", "rows"} <= set(told):
        raise CreditError(f"{where}: a fact has bad, all and rows")
    bad, whole, rows = exact(told["bad"], where), exact(told["all"], where), told["rows"]
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        raise CreditError(f"{where}: rows is a whole number, not below 0")
    if bad < 0 or whole < 0:
        raise CreditError(f"{where}: bad and all are not below 0")
    estimate, most = told.get("estimate"), told.get("most")
    return Fact(
        bad=bad,
        all=whole,
        rows=rows,
        estimate=None if estimate is None else exact(estimate, where),
        most=None if most is None else exact(most, where),
    )


def _interval(item: GradedItem, fact: Fact) -> tuple[Fraction, Fraction] | None:
    if item.interval:
        low, high = exact_interval(min(fact.bad, fact.all), fact.all)
        return low * item.per, high * item.per
    if fact.most is not None:
        return fact.bad / fact.all * item.per, fact.most / fact.all * item.per
    return None


def _line(item: GradedItem, fact: Fact | None, lowest: Fraction) -> dict[str, Any]:
    """Return the line of one item; its figures are null where nothing is known."""
    line: dict[str, Any] = {"item": item.item, "weight": _plain(item.weight)}
    line |= {"months": item.months, "per": item.per}
    known = fact is not None and fact.all > 0
    for name in ("bad", "all", "rate", "low", "high", "points"):
        line[name] = None
    line["rows"] = 0 if fact is None else fact.rows
    line["weight_in_force"] = written(Fraction(0), WEIGHT_DECIMALS)
    if fact is None or not known:
        return line
    rate = rounded(fact.bad / fact.all * item.per, RATE_DECIMALS)
    interval = _interval(item, fact)
    force = rounded(item.weight * fact.all / (fact.all + item.half_at), WEIGHT_DECIMALS)
    points = rounded(item.points_of(rate, lowest), POINT_DECIMALS)
    return line | {
        "bad": _plain(fact.bad),
        "all": _plain(fact.all),
        "rate": written(rate, RATE_DECIMALS),
        "low": interval and written(rounded(interval[0], RATE_DECIMALS), RATE_DECIMALS),
        "high": interval and written(rounded(interval[1], RATE_DECIMALS), RATE_DECIMALS),
        "points": written(points, POINT_DECIMALS),
        "weight_in_force": written(force, WEIGHT_DECIMALS),
    }


def _score(lines: list[dict[str, Any]]) -> tuple[Fraction, Fraction | None]:
    """Return the weight in force, and the score that the lines give; None without any."""
    known = [line for line in lines if line["points"] is not None]
    force = sum((Fraction(line["weight_in_force"]) for line in known), Fraction(0))
    if not force:
        return force, None
    total = sum(
        (Fraction(line["weight_in_force"]) * Fraction(line["points"]) for line in known),
        Fraction(0),
    )
    return force, rounded(max(Fraction(0), total / force), SCORE_DECIMALS)


def compute(
    rules: GradeRules, facts: Mapping[str, Fact], *, operator_id: str, month: date
) -> dict[str, Any]:
    """Return a grade with its whole arithmetic, as it is kept and published.

    Args:
        rules: in force in the month.
        facts: by item; what isn't there is not known.
        operator_id: whose grade it is.
        month: its first day.
    """
    lines = [_line(item, facts.get(item.item), rules.lowest_points) for item in rules.items]
    force, score = _score(lines)
    enough = score is not None and force >= rules.least_weight
    worst = min(
        (line for line in lines if line["points"] is not None),
        key=lambda line: Fraction(line["points"]),
        default=None,
    )
    return {
        "form": FORM,
        "operator_id": operator_id,
        "month": f"{month:%Y-%m}",
        "rules": dict(rules.told),
        "facts": {name: fact.told() for name, fact in sorted(facts.items())},
        "lines": lines,
        "weight_in_force": written(force, WEIGHT_DECIMALS),
        "score": None if score is None or not enough else written(score, SCORE_DECIMALS),
        "grade": None if score is None or not enough else rules.grade_of(score),
        "worst": None if worst is None else worst["item"],
    }


def digest(told: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a grade's arithmetic in its canonical form (RFC 8785)."""
    return hashlib.sha256(canonical(told)).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What computing a published grade again gave.

    faults: each figure that is not what the arithmetic gives; empty when all are.
    rules_known: whether the rule set is one that chargewatch ships, unchanged.
    """

    operator_id: str
    month: str
    grade: str | None
    score: str | None
    rule_version: str
    faults: tuple[str, ...]
    rules_known: bool


def _month(told: Any) -> date:
    if not isinstance(told, str) or not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", told):
        raise CreditError(f"month {told!r} is none: write it as 2026-11")
    return date(int(told[:4]), int(told[5:]), 1)


def read_facts(told: Any) -> dict[str, Fact]:
    """Return the facts of a published grade.

    Raises: CreditError that names what is wrong.
    """
    if not isinstance(told, Mapping):
        raise CreditError("facts are a JSON object by item")
    return {str(name): read_fact(fact, f"fact {name!r}") for name, fact in told.items()}


def replay(told: Any) -> Replay:
    """Compute a published grade again from its own rules and facts, and compare every figure.

    Raises: CreditError when it is none, or was written by a later form.
    """
    if not isinstance(told, Mapping) or told.get("form") != FORM:
        raise CreditError(
            f"this is no grade of form {FORM}: `chargewatch credit export` writes such files"
        )
    missing = {"operator_id", "month", "rules", "facts", "lines"} - set(told)
    if missing:
        raise CreditError(f"the grade lacks {', '.join(sorted(missing))}")
    rules = read_rule_set(told["rules"])
    again = compute(
        rules,
        read_facts(told["facts"]),
        operator_id=str(told["operator_id"]),
        month=_month(told["month"]),
    )
    known = next((one for one in rule_sets() if one.version == rules.version), None)
    return Replay(
        operator_id=again["operator_id"],
        month=again["month"],
        grade=again["grade"],
        score=again["score"],
        rule_version=rules.version,
        faults=tuple(_differences("", {k: v for k, v in told.items() if k != PUBLISHED}, again)),
        rules_known=known is not None and known.told == rules.told,
    )


def _differences(where: str, told: Any, again: Any) -> list[str]:
    if isinstance(told, Mapping) and isinstance(again, Mapping):
        return [
            fault
            for name in dict.fromkeys((*told, *again))
            for fault in _differences(f"{where}{name}.", told.get(name), again.get(name))
        ]
    if isinstance(told, list) and isinstance(again, list) and len(told) == len(again):
        return [
            fault
            for place, (one, other) in enumerate(zip(told, again, strict=True))
            for fault in _differences(f"{where}{place}.", one, other)
        ]
    if told == again and isinstance(told, bool) == isinstance(again, bool):
        return []
    return [f"{where.rstrip('.')} is told as {told!r}, the arithmetic gives {again!r}"]
