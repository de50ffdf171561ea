"""How figures, times and ages are written on pages: with sign, unit and uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from chargewatch.domain.times import DAY_S
from chargewatch.web.language import Translator

MINUS = "\N{MINUS SIGN}"
NARROW = "\N{NO-BREAK SPACE}"
UNKNOWN = "\N{EN DASH}"
COVERAGE_FACTOR = 2
"""k of the expanded uncertainty that pages show after the sign for plus-minus."""


def is_known(value: float | None) -> bool:
    """Return whether a figure is known: neither missing nor NaN."""
    return value is not None and not math.isnan(value)


def signed(value: float, digits: int) -> str:
    """Return a number with its sign; zero has none."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else MINUS) + text


def uncertainty_digits(uncertainty_percent: float) -> int:
    """Return the decimals that show an uncertainty with one to two significant digits."""
    if uncertainty_percent >= 10:
        return 0
    return 1 if uncertainty_percent >= 0.2 else 2


@dataclass(frozen=True)
class Formats:
    """Writes figures for one visitor: language, time zone, currency, and what time it is."""

    t: Translator
    zone: ZoneInfo
    currency: str
    now: datetime

    def percent(self, fraction: float | None, digits: int = 2) -> str:
        """Return a fraction as per cent."""
        if fraction is None or math.isnan(fraction):
            return UNKNOWN
        return f"{fraction * 100:.{digits}f}{NARROW}%"

    def signed_percent(self, fraction: float | None, digits: int = 2) -> str:
        """Return a fraction as per cent with its sign."""
        if fraction is None or math.isnan(fraction):
            return UNKNOWN
        return f"{signed(fraction * 100, digits)}{NARROW}%"

    def expanded(self, standard_uncertainty: float | None, digits: int = 2) -> str:
        """Return the expanded uncertainty (k = 2) of a fraction as per cent with plus-minus."""
        if standard_uncertainty is None or math.isnan(standard_uncertainty):
            return UNKNOWN
        return f"±{NARROW}{standard_uncertainty * 100 * COVERAGE_FACTOR:.{digits}f}{NARROW}%"

    def error(self, error: float | None, standard_uncertainty: float | None) -> str:
        """Return `+3.1 % ± 0.4 %`; both with the digits that the uncertainty deserves."""
        if error is None or math.isnan(error):
            return UNKNOWN
        if standard_uncertainty is None or math.isnan(standard_uncertainty):
            return self.signed_percent(error)
        digits = uncertainty_digits(standard_uncertainty * 100 * COVERAGE_FACTOR)
        written = self.expanded(standard_uncertainty, digits)
        return f"{self.signed_percent(error, digits)} {written}"

    def probability(self, p: float | None) -> str:
        """Return a probability as per cent; never a false 0 or 100."""
        if p is None or math.isnan(p):
            return UNKNOWN
        if p > 0.9995:
            return f"> 99.9{NARROW}%"
        if p < 0.0005:
            return f"< 0.1{NARROW}%"
        return self.percent(p, 1)

    def integer(self, value: float | None) -> str:
        """Return a whole number with thin groups of three digits."""
        if value is None or math.isnan(value):
            return UNKNOWN
        return f"{value:,.0f}"

    def money(self, value: float | None) -> str:
        """Return an amount of money."""
        if value is None or math.isnan(value):
            return UNKNOWN
        return f"{self._symbol}{value:,.0f}"

    def amount(self, value: float | None) -> str:
        """Return an amount of money to the cent; in words where it is not known."""
        if value is None or math.isnan(value):
            return self.t("money.unknown")
        return f"{MINUS if value < -0.005 else ''}{self._symbol}{abs(value):,.2f}"

    def signed_amount(self, value: float | None) -> str:
        """Return an amount with its sign: plus is too much."""
        if value is None or math.isnan(value):
            return self.t("money.unknown")
        sign = "" if abs(value) < 0.005 else "+" if value > 0 else MINUS
        return f"{sign}{self._symbol}{abs(value):,.2f}"

    def amounts(self, low: float, high: float) -> str:
        """Return an interval of money to the cent."""
        return f"{low:,.2f}{NARROW}\N{EN DASH}{NARROW}{high:,.2f}"

    def month(self, month: date) -> str:
        """Return a month like 2026-11."""
        return month.isoformat()[:7]

    @property
    def _symbol(self) -> str:
        symbols = {"CNY": "¥", "EUR": "€", "USD": "$"}
        return symbols.get(self.currency, self.currency) + NARROW

    def kilowatt_hours(self, energy_wh: float | None, digits: int = 3) -> str:
        """Return an energy in kWh."""
        if energy_wh is None or math.isnan(energy_wh):
            return UNKNOWN
        return f"{energy_wh / 1000:,.{digits}f}"

    def number(self, value: float | None, digits: int = 1) -> str:
        """Return a number with fixed decimals."""
        if value is None or math.isnan(value):
            return UNKNOWN
        return f"{value:,.{digits}f}"

    def in_zone(self, at: datetime) -> datetime:
        """Return a time in the page's zone, as it is where the calendar has no room for a shift."""
        return at.astimezone(self.zone) if 1 < at.year < 9999 else at

    def time(self, at: datetime | None, *, seconds: bool = False) -> str:
        """Return a time in the page's zone."""
        if at is None:
            return UNKNOWN
        return self.in_zone(at).strftime("%Y-%m-%d %H:%M" + (":%S" if seconds else ""))

    def day(self, day: date | None) -> str:
        """Return a date."""
        return UNKNOWN if day is None else day.isoformat()

    def age(self, at: datetime | None) -> str:
        """Return how old something is, in the largest unit that fits."""
        if at is None:
            return self.t("age.never")
        seconds = (self.now - at).total_seconds()
        if seconds < -60:
            return self.t("age.future")
        for unit, length_s in (("days", DAY_S), ("hours", 3600), ("minutes", 60)):
            if seconds >= length_s * (2 if unit == "days" else 1):
                return self.t(f"age.{unit}", n=int(seconds // length_s))
        return self.t("age.now")

    def is_stale(self, at: datetime | None, limit_s: float = 3600.0) -> bool:
        """Return whether something is missing or older than a limit."""
        return at is None or (self.now - at).total_seconds() > limit_s

    @property
    def zone_name(self) -> str:
        """The time zone with its present offset from UTC."""
        offset = self.now.astimezone(self.zone).strftime("%z")
        return f"{self.zone.key} (UTC{offset[:3]}:{offset[3:]})"
