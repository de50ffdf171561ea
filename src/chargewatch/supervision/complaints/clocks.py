"""By when a complaint must be accepted, ended, and its end be told: dated rules, kept as data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files

from chargewatch.domain.working_days import Calendar, calendars
from chargewatch.errors import ChargewatchError


class NoClocksError(ChargewatchError):
    """No rule says which clocks run."""


@dataclass(frozen=True)
class Clocks:
    """The terms of one regulation, in working days; the day that starts a clock does not count."""

    name: str
    regulation: str
    regulation_zh: str
    valid_from: date
    valid_until: date | None
    calendar: str
    accept_working_days: int
    end_working_days: int
    notify_working_days: int
    clauses: Mapping[str, str]
    source: str
    certainty: str
    note: str

    def in_force(self, day: date) -> bool:
        """Return whether the regulation holds on a day."""
        return self.valid_from <= day and (self.valid_until is None or day <= self.valid_until)

    @property
    def days(self) -> Calendar:
        """Which days count."""
        return calendars()[self.calendar]

    def accept_by(self, received: date) -> date:
        """Return the last day to accept or refuse, and to say so."""
        return self.days.after(received, self.accept_working_days)

    def end_by(self, accepted: date) -> date:
        """Return the last day to end what was accepted."""
        return self.days.after(accepted, self.end_working_days)

    def notify_by(self, ended: date) -> date:
        """Return the last day to tell the complainer how it ended."""
        return self.days.after(ended, self.notify_working_days)


@cache
def all_clocks() -> Sequence[Clocks]:
    """Return the rules that ship with chargewatch, the oldest first."""
    folder = files("chargewatch.supervision.complaints")
    rows = json.loads(folder.joinpath("clocks.json").read_text(encoding="utf-8"))["rules"]
    found = []
    for row in rows:
        until = row.pop("valid_until")
        found.append(
            Clocks(
                **row | {"valid_from": date.fromisoformat(row["valid_from"])},
                valid_until=None if until is None else date.fromisoformat(until),
            )
        )
    return tuple(sorted(found, key=lambda clocks: clocks.valid_from))


def clocks_on(day: date) -> Clocks:
    """Return the rule in force on the day on which a complaint came.

    Raises: NoClocksError.
    """
    for clocks in reversed(all_clocks()):
        if clocks.in_force(day):
            return clocks
    raise NoClocksError(f"no rule for complaints of {day}: add one to clocks.json")


def clocks_named(name: str) -> Clocks:
    """Return the rule that a complaint was received under.

    Raises: NoClocksError.
    """
    for clocks in all_clocks():
        if clocks.name == name:
            return clocks
    raise NoClocksError(f"no rule for complaints is called {name!r}: add it to clocks.json")
