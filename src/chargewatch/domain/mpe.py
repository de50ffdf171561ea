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

from chargewatch.errors import SettingError


@dataclass(frozen=True)
class RuleSet:
    """Limits of one regulation, with its first and last day of validity."""

    name: str
    regulation: str
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


@cache
def rule_sets() -> Mapping[str, RuleSet]:
    """Return the rule sets that ship with chargewatch, by name."""
    text = files("chargewatch.domain").joinpath("mpe_rules.json").read_text(encoding="utf-8")
    found = {}
    for row in json.loads(text)["rule_sets"]:
        until = row["valid_until"]
        found[row["name"]] = RuleSet(
            name=row["name"],
            regulation=row["regulation"],
            valid_from=date.fromisoformat(row["valid_from"]),
            valid_until=None if until is None else date.fromisoformat(until),
            mpe=row["mpe"],
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
