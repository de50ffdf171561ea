"""Finished sessions as the checks see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.signals.findings import Finding
from chargewatch.signals.rule import DATA_FORM, USE, Limit

LONGEST_SESSION_S = Limit(
    30.0 * DAY_S, "s", "the longest session: a vehicle left plugged in through an absence", USE
)
BILLING_STEP_WH = Limit(10.0, "Wh", "billed energy may be rounded to 0.01 kWh", DATA_FORM)


@dataclass(frozen=True, kw_only=True)
class BilledSessions:
    """Finished sessions as operators sent them, sorted by (connector, started_s); shape (s,)."""

    name: Ints  # which session: index into a list of names, or the row of the database
    connector: Ints  # row of Fleet
    started_s: Floats
    ended_s: Floats
    start_wh: Floats
    stop_wh: Floats
    billed_wh: Floats

    def take(self, rows: Ints) -> BilledSessions:
        """Return the sessions of some rows."""
        return BilledSessions(
            **{name: getattr(self, name)[rows] for name in self.__dataclass_fields__}
        )

    @property
    def is_endless(self) -> Bools:
        """Sessions longer than any charge: their begin was told by a clock that wasn't set."""
        return np.asarray(self.ended_s - self.started_s > LONGEST_SESSION_S.value)


@dataclass(frozen=True, kw_only=True)
class BatterySessions:
    """What sessions tell of the battery, row by row beside BilledSessions; NaN: not told."""

    soc_start_pct: Floats
    soc_stop_pct: Floats
    battery_capacity_wh: Floats
    bms_energy_wh: Floats


@dataclass(frozen=True, kw_only=True)
class Charges:
    """Facts of checks: sessions with what their batteries told, and what was found before.

    They are those of the whole city: vehicles roam, and what they tell is held against what
    they tell elsewhere.
    """

    sessions: BilledSessions
    battery: BatterySessions
    vehicle: Ints
    """Key of each session's vehicle, shape (s,); 0: not told."""
    found: Sequence[Finding]
    asked: Bools
    """Connectors to judge by what all sessions tell, shape (n,)."""
