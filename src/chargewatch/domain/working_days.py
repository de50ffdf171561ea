"""Working days, from calendars that are kept as data.

Public holidays of a year are announced late in the year before. Of a year that no calendar has,
weekends are the only free days, and whoever counts over it is told so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files

ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class YearOfWork:
    """The days of one year that differ from the week, and who says so."""

    source: str
    certainty: str
    free: frozenset[date]
    worked: frozenset[date]


@dataclass(frozen=True)
class Calendar:
    """Which days are worked."""

    years: Mapping[int, YearOfWork]

    def is_worked(self, day: date) -> bool:
        """Return whether a day is a working day."""
        year = self.years.get(day.year)
        if year is not None and day in year.worked:
            return True
        return day.isoweekday() < 6 and (year is None or day not in year.free)

    def after(self, day: date, working_days: int) -> date:
        """Return the n-th working day after a day, which itself does not count.

        Raises: ValueError when n is not positive.
        """
        if working_days < 1:
            raise ValueError(f"{working_days} working days: at least 1")
        while working_days:
            day += ONE_DAY
            working_days -= self.is_worked(day)
        return day

    def unknown_years(self, first: date, last: date) -> tuple[int, ...]:
        """Return the years of a span whose holidays are not known."""
        return tuple(y for y in range(first.year, last.year + 1) if y not in self.years)


@cache
def calendars() -> Mapping[str, Calendar]:
    """Return the calendars that ship with chargewatch, by name."""
    text = files("chargewatch.domain").joinpath("working_days.json").read_text(encoding="utf-8")
    found = {}
    for row in json.loads(text)["calendars"]:
        years = {}
        for year in row["years"]:
            free: set[date] = set()
            for span in year["free"]:
                day, last = date.fromisoformat(span["from"]), date.fromisoformat(span["to"])
                free |= {day + n * ONE_DAY for n in range((last - day).days + 1)}
            worked = frozenset(map(date.fromisoformat, year["worked"]))
            years[int(year["year"])] = YearOfWork(
                year["source"], year["certainty"], frozenset(free), worked
            )
        found[row["name"]] = Calendar(years)
    return found
