"""The rules of credit grades: dated data, that whoever is graded can read and recompute."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import Any

from chargewatch.errors import ChargewatchError

_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,9})?")


class CreditError(ChargewatchError):
    """A grade can't be computed, published or replayed as asked."""


def exact(told: Any, what: str) -> Fraction:
    """Return a number that is written as a decimal, exactly.

    Raises: CreditError that names `what`.
    """
    if isinstance(told, bool) or not isinstance(told, (str, int)):
        raise CreditError(f'{what}: {told!r} is no number in quotation marks, as "0.05"')
    if _NUMBER.fullmatch(str(told)) is None:
        raise CreditError(f"{what}: {told!r} is no decimal number of at most 9 decimals")
    return Fraction(str(told))


@dataclass(frozen=True, kw_only=True)
class GradedItem:
    """One thing that is graded: how often it went badly, of how many.

    weight: in per cent of the score, where it is fully known.
    months: how many, up to the graded one, are looked at.
    per: what the rate is told for, as 1000 for "of 1,000 sessions".
    half_at: with so many the item counts half its weight, with more of them more; 0: always full.
    interval: whether the rate is that of a sample, and has an interval.
    better: what raises it: `more` good ones or `fewer` bad ones.
    points: of a rate, a line from each pair to the next one and beyond the last one.
    source: tables and what of them is counted.
    """

    item: str
    weight: Fraction
    months: int
    per: int
    half_at: Fraction
    interval: bool
    better: str
    points: tuple[tuple[Fraction, Fraction], ...]
    source: str

    def points_of(self, rate: Fraction, lowest: Fraction) -> Fraction:
        """Return the points of a rate, at least `lowest`."""
        pairs = list(itertools.pairwise(self.points))
        left, right = next((pair for pair in pairs if rate <= pair[1][0]), pairs[-1])
        slope = (right[1] - left[1]) / (right[0] - left[0])
        return max(lowest, left[1] + slope * (rate - left[0]))


@dataclass(frozen=True, kw_only=True)
class GradeRules:
    """The arithmetic of grades from a day on.

    least_weight: with less of the weight in force there is no grade.
    lowest_points: of any item; the score itself is never below 0.
    grades: each with its least score, the best first.
    """

    version: str
    valid_from: date
    least_weight: Fraction
    lowest_points: Fraction
    grades: tuple[tuple[str, Fraction], ...]
    items: tuple[GradedItem, ...]
    told: Mapping[str, Any]

    def grade_of(self, score: Fraction) -> str:
        """Return the grade of a score."""
        return next(grade for grade, least in self.grades if score >= least)

    def item(self, name: str) -> GradedItem:
        """Return an item by name."""
        return next(one for one in self.items if one.item == name)


def _refuse(version: str, fault: str) -> CreditError:
    return CreditError(f"rule set {version!r}: {fault}")


def _points(told: Any, where: str) -> tuple[tuple[Fraction, Fraction], ...]:
    if not isinstance(told, list) or len(told) < 2:
        raise CreditError(f"{where}: at least two pairs [rate, points]")
    if any(not isinstance(pair, list) or len(pair) != 2 for pair in told):
        raise CreditError(f"{where}: a pair is [rate, points]")
    pairs = tuple((exact(rate, where), exact(points, where)) for rate, points in told)
    if pairs[0] != (Fraction(0), Fraction(100)):
        raise CreditError(f'{where}: the first pair is ["0", "100"]: nothing bad, all points')
    for (x1, y1), (x2, y2) in itertools.pairwise(pairs):
        if x2 <= x1 or y2 >= y1:
            raise CreditError(f"{where}: rates rise and points fall from pair to pair")
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.pairwise(pairs)]
    if slopes != sorted(slopes, reverse=True):
        # Else a good result could lower a score: it makes the item count more as well.
        raise CreditError(f"{where}: points fall by each pair as steeply as before, or more")
    return pairs


def _item(told: Mapping[str, Any], version: str) -> GradedItem:
    name = str(told.get("item", ""))
    where = f"rule set {version!r}, item {name!r}"
    if not re.fullmatch("[a-z_]{1,40}", name):
        raise CreditError(f"{where}: an item is called by small letters")
    if not isinstance(told["months"], int) or not 1 <= told["months"] <= 120:
        raise CreditError(f"{where}: months are a whole number from 1 to 120")
    if told["per"] not in {1, 1_000, 1_000_000} or told["better"] not in {"more", "fewer"}:
        raise CreditError(f"{where}: per is 1, 1000 or 1000000; better is more or fewer")
    weight, half_at = exact(told["weight"], where), exact(told["half_at"], where)
    if not 0 < weight <= 100 or half_at < 0:
        raise CreditError(f"{where}: a weight lies above 0 up to 100, half_at is not below 0")
    return GradedItem(
        item=name,
        weight=weight,
        months=told["months"],
        per=told["per"],
        half_at=half_at,
        interval=told["interval"] is True,
        better=told["better"],
        points=_points(told["points"], where),
        source=str(told["source"]),
    )


def _grades(told: Sequence[Mapping[str, Any]], version: str) -> tuple[tuple[str, Fraction], ...]:
    found = tuple((str(one["grade"]), exact(one["least_score"], "least_score")) for one in told)
    if [grade for grade, _ in found] != ["A", "B", "C", "D"] or found[-1][1] != 0:
        raise _refuse(version, "grades are A, B, C and D, and D's least score is 0")
    if any(high[1] <= low[1] for high, low in itertools.pairwise(found)):
        raise _refuse(version, "a better grade has a higher least score")
    return found


def read_rule_set(told: Any) -> GradeRules:
    """Return a rule set that was read from JSON.

    Raises: CreditError that names what is wrong with it.
    """
    if not isinstance(told, Mapping):
        raise CreditError("a rule set is a JSON object")
    version = str(told.get("version", ""))[:40]
    try:
        rules = GradeRules(
            version=version,
            valid_from=date.fromisoformat(told["valid_from"]),
            least_weight=exact(told["least_weight"], "least_weight"),
            lowest_points=exact(told["lowest_points"], "lowest_points"),
            grades=_grades(told["grades"], version),
            items=tuple(_item(one, version) for one in told["items"]),
            told=told,
        )
    except KeyError as exc:
        raise _refuse(version, f"{exc} is missing") from exc
    except (TypeError, ValueError, AttributeError) as exc:
        raise _refuse(version, f"can't be read: {exc}") from exc
    names = [one.item for one in rules.items]
    if len(set(names)) != len(names) or not names:
        raise _refuse(version, "each item stands once, and there is at least one")
    if not 0 < rules.least_weight <= sum(one.weight for one in rules.items):
        raise _refuse(version, "least_weight lies above 0, and the weights of all items reach it")
    if rules.lowest_points > 0:
        raise _refuse(version, "lowest_points is 0 or below")
    return rules


@cache
def rule_sets() -> tuple[GradeRules, ...]:
    """Return the rule sets that ship with chargewatch, the oldest first."""
    text = files("chargewatch.supervision.credit").joinpath("rules.json").read_text("utf-8")
    found = [read_rule_set(one) for one in json.loads(text)["rule_sets"]]
    return tuple(sorted(found, key=lambda one: one.valid_from))


def rules_for(month: date) -> GradeRules:
    """Return the rule set in force on a month's first day.

    Raises: CreditError when there is none.
    """
    in_force = [one for one in rule_sets() if one.valid_from <= month]
    if not in_force:
        raise CreditError(
            f"no rule set is in force in {month:%Y-%m}: the first is from "
            f"{rule_sets()[0].valid_from:%Y-%m} on"
        )
    return in_force[-1]
