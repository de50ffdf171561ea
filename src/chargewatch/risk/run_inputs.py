"""What one risk run reads, as arrays; the same from the database, from Parquet or a simulator.

Indices are row numbers into `Fleet` (connectors) and `References` (meters); times are seconds
since 1970-01-01T00:00Z (float64); slots are 15-minute intervals since then (int64); energies are
Wh; relative quantities are fractions. NaN means "not known".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Bools, Floats, Ints


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Connectors under supervision; every array has shape (n,)."""

    connector: Sequence[str]
    number: Ints  # that stays with a connector from run to run, whatever its name
    station: Ints  # 0 .. n_stations-1
    operator: Ints  # 0 .. n_operators-1
    model: Ints  # 0 .. n_models-1; same model: same efficiency curve
    is_dc: Bools
    cable_loss_compensated: Bools
    mpe: Floats
    rated_power_w: Floats
    max_current_a: Floats
    resolution_wh: Floats
    registered: Bools

    @property
    def size(self) -> int:
        """Number of connectors n."""
        return len(self.connector)


@dataclass(frozen=True, kw_only=True)
class References:
    """Reference meters; arrays of shape (m,), members in compressed rows.

    The connectors measured by meter j are ``members[member_start[j]:member_start[j + 1]]``.
    """

    meter: Sequence[str]
    number: Ints  # that stays with a meter from run to run
    station: Ints
    in_series: Bools  # scope "connector": in series with its one connector
    is_dc: Bools
    standard_uncertainty: Floats  # relative_uncertainty / coverage_factor
    resolution_wh: Floats
    valid_until_s: Floats
    member_start: Ints  # shape (m + 1,)
    members: Ints

    @property
    def size(self) -> int:
        """Number of reference meters m."""
        return len(self.meter)


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Energy of instruments on the 15-minute grid; shape (k,), sorted by (instrument, slot).

    Intervals without energy and without defects may be left out for connectors (energy 0 is then
    meant) where the instrument has an interval before and after it on the same UTC day. A slot
    before a day's first interval or after its last one is not known.
    """

    instrument: Ints  # row of Fleet or of References
    slot: Ints
    energy_wh: Floats
    u_wh: Floats  # standard uncertainty from interpolation and resolution
    quality: NDArray[np.int16]  # bits of registers.Quality

    def take(self, rows: Ints) -> Intervals:
        """Return some of the intervals, in the order given."""
        return Intervals(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class FinishedSessions:
    """Finished charging sessions; shape (s,), sorted by (ended_s, session)."""

    connector: Ints
    vehicle: Ints  # -1 when unknown
    started_s: Floats
    ended_s: Floats
    energy_wh: Floats  # stop_wh - start_wh
    billed_wh: Floats
    soc_start_pct: Floats
    soc_stop_pct: Floats
    battery_capacity_wh: Floats
    bms_energy_wh: Floats
    interrupted: Bools
    energy_price: Floats  # mean price of the session, money per kWh


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Verifications with a stated error; shape (a,)."""

    connector: Ints
    verified_s: Floats
    valid_until_s: Floats
    relative_error: Floats
    standard_uncertainty: Floats


@dataclass(frozen=True, kw_only=True)
class DeclaredChanges:
    """What was declared that begins a new error, or may have; shape (e,)."""

    connector: Ints
    at_s: Floats
    replaced: Bools  # the meter is another one; else something that may have changed its error

    @staticmethod
    def none() -> DeclaredChanges:
        """Return no declaration."""
        return DeclaredChanges(
            connector=np.zeros(0, dtype=np.int64),
            at_s=np.zeros(0),
            replaced=np.zeros(0, dtype=bool),
        )


@dataclass(frozen=True, kw_only=True)
class RunInputs:
    """All that one run reads."""

    as_of_s: float
    from_s: float
    fleet: Fleet
    references: References
    connector_intervals: Intervals
    meter_intervals: Intervals
    sessions: FinishedSessions
    anchors: Anchors
    declared: DeclaredChanges = field(default_factory=DeclaredChanges.none)
