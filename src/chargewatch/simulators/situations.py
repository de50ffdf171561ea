"""Situations in which a meter is wrong: when, and at which loads, for how much of a session.

Each tells where within a session it may begin or end, whether it holds between two such times,
and how truth.json names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.charging import air_temperature_c

THERMOMETER_S = 300
"""How often a pile looks at its thermometer: at these multiples of local time, s."""
SATURDAY = 5

Spans = tuple[tuple[float, float], ...]
"""Hours of the local day."""


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One session of one pile; times are local epoch seconds, power is the true one."""

    begin_s: float
    ends_s: Floats  # of its segments
    power_w: Floats
    rated_w: float

    def segment(self, t_s: Floats) -> Ints:
        """Return the segments in which times lie."""
        found = np.searchsorted(self.ends_s, t_s, side="right")
        return np.minimum(found, self.ends_s.size - 1)

    def load(self, t_s: Floats) -> Floats:
        """Return the power at times over the rated power."""
        return np.asarray(self.power_w[self.segment(t_s)] / self.rated_w)


class Situation(Protocol):
    """When a meter is wrong."""

    def edges(self, charge: Charge) -> Floats:
        """Return the times besides the ends of segments at which it may begin or end."""
        ...

    def holds(self, charge: Charge, t_s: Floats) -> Bools:
        """Return whether it holds at times that are no edges."""
        ...

    def told(self) -> dict[str, Any]:
        """Return its code and values."""
        ...


def _grid(charge: Charge, step_s: float) -> Floats:
    first = np.floor(charge.begin_s / step_s) + 1
    return np.arange(first, np.ceil(float(charge.ends_s[-1]) / step_s)) * step_s


_NO_EDGES = np.zeros(0)


@dataclass(frozen=True)
class Daily:
    """Between hours of the local day; a span that doesn't end after its begin passes midnight."""

    code: str
    spans_h: Spans

    def edges(self, charge: Charge) -> Floats:
        """Return the begins and ends of the spans."""
        days = np.arange(charge.begin_s // DAY_S, charge.ends_s[-1] // DAY_S + 1) * DAY_S
        hours = np.array([hour for span in self.spans_h for hour in span]) * 3600
        return np.asarray(days[:, None] + hours).ravel()

    def holds(self, charge: Charge, t_s: Floats) -> Bools:
        """Return whether times lie in a span."""
        hour = t_s % DAY_S / 3600
        inside = [(hour - a) % 24 < ((b - a) % 24 or 24) for a, b in self.spans_h]
        return np.asarray(np.any(inside, axis=0))

    def told(self) -> dict[str, Any]:
        """Return the spans in hours of the local day."""
        return {"code": self.code, "hours": [list(span) for span in self.spans_h]}


@dataclass(frozen=True)
class Weekend:
    """On Saturdays and Sundays of local time."""

    def edges(self, charge: Charge) -> Floats:
        """Return the midnights."""
        return _grid(charge, DAY_S)

    def holds(self, charge: Charge, t_s: Floats) -> Bools:
        """Return whether times lie on a weekend."""
        # 1970-01-01 was a Thursday.
        return np.asarray((t_s // DAY_S + 3) % 7 >= SATURDAY)

    def told(self) -> dict[str, Any]:
        """Return the code; there are no values."""
        return {"code": "weekend"}


@dataclass(frozen=True)
class Heat:
    """While the air was warmer than a limit when the pile last looked at its thermometer."""

    above_c: float

    def edges(self, charge: Charge) -> Floats:
        """Return when the pile looks."""
        return _grid(charge, THERMOMETER_S)

    def holds(self, charge: Charge, t_s: Floats) -> Bools:
        """Return whether the last look was at hot air."""
        looked = np.floor(t_s / THERMOMETER_S) * THERMOMETER_S
        return np.asarray(air_temperature_c(looked) > self.above_c)

    def told(self) -> dict[str, Any]:
        """Return the limit."""
        return {"code": "heat", "above_c": round(self.above_c, 2)}


@dataclass(frozen=True)
class LoadBand:
    """Where the power over the rated power lies above one limit and not above another."""

    code: str
    above: float = -np.inf
    upto: float = np.inf

    def edges(self, charge: Charge) -> Floats:
        """Return none: the power is constant on a segment."""
        return _NO_EDGES

    def holds(self, charge: Charge, t_s: Floats) -> Bools:
        """Return whether the load lies in the band."""
        load = charge.load(t_s)
        return np.asarray((load > self.above) & (load <= self.upto))

    def told(self) -> dict[str, Any]:
        """Return the limits, fractions of the rated power."""
        limits = {"above_load": self.above, "upto_load": self.upto}
        return {"code": self.code} | {k: v for k, v in limits.items() if np.isfinite(v)}


@dataclass(frozen=True)
class OnePhase:
    """At no more than what one phase carries, on a pile of three."""

    upto_w: float

    def edges(self, charge: Charge) -> Floats:
        """Return none: the power is constant on a segment."""
        return _NO_EDGES

    def holds(self, charge: Charge, t_s: Floats) -> Bools:
        """Return whether one phase would carry the power."""
        return np.asarray(charge.power_w[charge.segment(t_s)] <= self.upto_w)

    def told(self) -> dict[str, Any]:
        """Return the power."""
        return {"code": "one_phase", "upto_w": self.upto_w}


@dataclass(frozen=True)
class AfterEnergy:
    """After the first energy of a session."""

    first_wh: float

    def edges(self, charge: Charge) -> Floats:
        """Return when the energy has flowed, if it does."""
        length = np.diff(charge.ends_s, prepend=charge.begin_s)
        flowed = np.cumsum(charge.power_w * length / 3600)
        k = int(np.searchsorted(flowed, self.first_wh))
        if k == flowed.size:
            return _NO_EDGES
        before = flowed[k] - charge.power_w[k] * length[k] / 3600
        begin = charge.ends_s[k] - length[k]
        return np.array([begin + (self.first_wh - before) / charge.power_w[k] * 3600])

    def holds(self, charge: Charge, t_s: Floats) -> Bools:
        """Return whether the energy has flowed."""
        edge = self.edges(charge)
        return np.asarray(t_s > (edge[0] if edge.size else np.inf))

    def told(self) -> dict[str, Any]:
        """Return the energy."""
        return {"code": "after_energy", "first_wh": self.first_wh}


@dataclass(frozen=True)
class ShortSession:
    """In whole sessions that last less than a time: the pile knows what was ordered."""

    shorter_s: float

    def edges(self, charge: Charge) -> Floats:
        """Return none: it holds for the whole session or not at all."""
        return _NO_EDGES

    def holds(self, charge: Charge, t_s: Floats) -> Bools:
        """Return whether the session is short."""
        return np.full(t_s.shape, charge.ends_s[-1] - charge.begin_s < self.shorter_s)

    def told(self) -> dict[str, Any]:
        """Return the time."""
        return {"code": "short_session", "shorter_min": self.shorter_s / 60}


@dataclass(frozen=True)
class NotVerification:
    """Except at what looks like a verification: full load, steady for some time."""

    full: float
    settle_s: float

    def edges(self, charge: Charge) -> Floats:
        """Return when a full load has been steady for long enough."""
        return self._begins(charge) + self.settle_s

    def _begins(self, charge: Charge) -> Floats:
        """Return when a steady full load begins."""
        full = charge.load(charge.ends_s - 1e-3) >= self.full
        begins = np.concatenate([[charge.begin_s], charge.ends_s[:-1]])
        return np.asarray(begins[full & ~np.concatenate([[False], full[:-1]])])

    def holds(self, charge: Charge, t_s: Floats) -> Bools:
        """Return whether the load is not full, or not for long enough."""
        begins = np.concatenate([[-np.inf], self._begins(charge)])
        since = t_s - begins[np.searchsorted(begins, t_s, side="right") - 1]
        return np.asarray((charge.load(t_s) < self.full) | (since < self.settle_s))

    def told(self) -> dict[str, Any]:
        """Return the load and the time."""
        values = {"full_load": self.full, "settle_min": self.settle_s / 60}
        return {"code": "unverified_load", **values}


def situation_of(
    name: str,
    parameters: Mapping[str, Any],
    *,
    peak_h: Spans,
    hot: Callable[[float], float],
) -> Situation:
    """Return the situation of a fault.

    Args:
        name: the fault's name.
        parameters: its parameters.
        peak_h: spans of the dearest tariff period at its station.
        hot: returns the temperature that is exceeded for a part of the history.
    """
    p = parameters
    match name:
        case "cheat_hours":
            return Daily("hours", ((p["from_hour"], p["to_hour"]),))
        case "cheat_peak":
            return Daily("tariff_period", peak_h)
        case "cheat_weekend":
            return Weekend()
        case "cheat_heat":
            return Heat(hot(p["warmest_part"]))
        case "cheat_high_load":
            return LoadBand("high_load", above=p["above_load"])
        case "cheat_low_load":
            return LoadBand("low_load", upto=p["upto_load"])
        case "cheat_one_phase":
            return OnePhase(p["upto_w"])
        case "cheat_after_energy":
            return AfterEnergy(p["first_wh"])
        case "cheat_short_session":
            return ShortSession(p["shorter_min"] * 60)
        case "cheat_unless_verified":
            return NotVerification(p["full_load"], p["settle_min"] * 60)
    raise ValueError(f"fault {name} has no situation")
