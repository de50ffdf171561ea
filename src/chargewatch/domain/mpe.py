"""Maximum permissible errors, from rule sets that are kept as data."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from chargewatch.errors import SettingError

I_MIN, I_MAX = "i_min", "i_max"
"""The currents that the bands of limits are counted in."""
CONFIRMED = ("S1", "S2")
"""How sure a limit must be to decide: its text was read, or is told by others; M is memory."""


@dataclass(frozen=True)
class LimitRow:
    """The limit of one accuracy class in one band of current.

    Attributes:
        of: what `lower` and `upper` are multiples of, I_MIN or I_MAX.
        lower, upper: the band, lower bound included; upper None: up to I_max, which is in it.
        limit: a fraction; None where none is known.
        clause: where the regulation has it, "" where not known.
        basis: how sure it is: S1, S2 or M.
    """

    accuracy_class: str
    of: str
    lower: float
    upper: float | None
    limit: float | None
    clause: str
    basis: str

    @property
    def decides(self) -> bool:
        """Whether the limit is confirmed, so that a verdict may rest on it."""
        return self.limit is not None and self.basis in CONFIRMED

    def holds(self, current_a: float, *, i_min_a: float, i_max_a: float) -> bool:
        """Return whether a current lies in the band."""
        ratio = current_a / (i_min_a if self.of == I_MIN else i_max_a)
        return self.lower <= ratio and (self.upper is None or ratio < self.upper)


@dataclass(frozen=True)
class RuleSet:
    """Limits of one regulation, with its first and last day of validity.

    mpe: of each class at full load, a fraction.
    """

    name: str
    regulation: str
    edition: str
    limits: tuple[LimitRow, ...]
    valid_from: date
    valid_until: date | None
    mpe: Mapping[str, float]
    verification_period_years: int | None
    clock_limit_s: float
    checked_against_source: bool

    def in_force(self, day: date) -> bool:
        """Return whether the regulation holds on a day."""
        return self.valid_from <= day and (self.valid_until is None or day <= self.valid_until)

    def mpe_of(self, accuracy_class: str) -> float:
        """Return the MPE of an accuracy class, a fraction; NaN when the class is not in the set."""
        return self.mpe.get(read_accuracy_class(accuracy_class), float("nan"))

    def limit_at(
        self, accuracy_class: str, current_a: float, *, i_min_a: float, i_max_a: float
    ) -> LimitRow | None:
        """Return the row for a class at a current, A; None where the set has none."""
        name = read_accuracy_class(accuracy_class)
        for row in self.limits:
            if row.accuracy_class == name and row.holds(
                current_a, i_min_a=i_min_a, i_max_a=i_max_a
            ):
                return row
        return None


_CLASS = re.compile(
    r"(?:class|cl\.?|等级)?\s*([0-9]+(?:\.[0-9]+)?|[A-Z]|[一二])\s*级?", re.IGNORECASE
)


def read_accuracy_class(text: str) -> str:
    """Return an accuracy class as the rule sets write it.

    "2级", "二级", "Class 2" and "2.0" are "2". What doesn't look like a class is returned as it is.
    """
    found = _CLASS.fullmatch(unicodedata.normalize("NFKC", text).strip())
    if found is None:
        return text
    name = {"一": "1", "二": "2"}.get(found[1], found[1].upper())
    return name.rstrip("0").rstrip(".") if "." in name else name


def _limit(row: Mapping[str, Any]) -> LimitRow:
    upper = row["upper"]
    return LimitRow(
        accuracy_class=row["class"],
        of=row["of"],
        lower=float(row["lower"]),
        upper=None if upper is None else float(upper),
        limit=row["limit"],
        clause=row["clause"],
        basis=row["basis"],
    )


@cache
def rule_sets() -> Mapping[str, RuleSet]:
    """Return the rule sets that ship with chargewatch, by name."""
    text = files("chargewatch.domain").joinpath("mpe_rules.json").read_text(encoding="utf-8")
    found = {}
    for row in json.loads(text)["rule_sets"]:
        until = row["valid_until"]
        limits = tuple(_limit(each) for each in row["limits"])
        found[row["name"]] = RuleSet(
            name=row["name"],
            regulation=row["regulation"],
            edition=row["edition"],
            limits=limits,
            valid_from=date.fromisoformat(row["valid_from"]),
            valid_until=None if until is None else date.fromisoformat(until),
            mpe={
                each.accuracy_class: each.limit
                for each in limits
                if each.upper is None and each.limit is not None
            },
            verification_period_years=row["verification_period_years"],
            clock_limit_s=float(row["clock_limit_s"]),
            checked_against_source=row["checked_against_source"],
        )
    return found


def rule_set(name: str) -> RuleSet:
    """Return a rule set by name.

    Raises: SettingError that lists the known names.
    """
    known = rule_sets()
    if name not in known:
        raise SettingError(
            f"CHARGEWATCH_MPE_RULES: no rule set {name!r}; known: {', '.join(sorted(known))}"
        )
    return known[name]
