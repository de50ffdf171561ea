"""A made-up city of sessions alone, with crossed errors, for `chargewatch bench engine`.

y = level + eps_i + c_v + n: connectors and vehicles meet at random, all is normal. So the model is
exactly that of any mixed-model software, and the true errors are known. All sessions end at the
same moment: none counts less for its age, and there is no change to be found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from chargewatch.benches.assess_city import VEHICLES_A_CONNECTOR
from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.risk.memory import CityStatistics, updated
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.run_inputs import (
    Anchors,
    FinishedSessions,
    Fleet,
    Intervals,
    References,
    RunInputs,
)
from chargewatch.risk.vehicles import SessionRows

SESSIONS_A_CONNECTOR = 30
CONNECTOR_SPREAD = 0.007
VEHICLE_SPREAD = 0.03
SESSION_SPREAD = 0.02
MEAN_SCALE = 0.015
"""What all sessions share: no error of a connector."""
MPE = 0.02
AS_OF_S = 1.8e9
DAYS = 30
BMS_ON_DC = 3
"""Kind of the sessions, see `risk.vehicles`."""

COMPARABLE = EngineConfig(model_mean_spread=1e-5)
"""The engine as it is, but that the mean error of all connectors, which sessions don't tell and
the other side takes for zero, is taken as zero."""


@dataclass(frozen=True, kw_only=True)
class CrossedSessions:
    """Sessions, shape (s,), and the true errors of the connectors, (n,)."""

    connector: Ints
    vehicle: Ints
    log_ratio: Floats
    error: Floats  # eps_i, fraction

    @property
    def connectors(self) -> int:
        """Number of connectors n."""
        return self.error.size


def crossed_sessions(connectors: int, *, seed: int) -> CrossedSessions:
    """Return the sessions of a city of that size; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    vehicles = connectors * VEHICLES_A_CONNECTOR
    count = connectors * SESSIONS_A_CONNECTOR
    error = rng.normal(0.0, CONNECTOR_SPREAD, connectors)
    scale = rng.normal(0.0, VEHICLE_SPREAD, vehicles)
    connector = rng.integers(0, connectors, count)
    vehicle = rng.integers(0, vehicles, count)
    log_ratio = rng.normal(MEAN_SCALE, SESSION_SPREAD, count)
    log_ratio += error[connector]
    log_ratio += scale[vehicle]
    return CrossedSessions(
        connector=connector,
        vehicle=vehicle,
        log_ratio=log_ratio,
        error=error,
    )


def engine_inputs(sessions: CrossedSessions) -> tuple[RunInputs, CityStatistics]:
    """Return what the engine's rounds begin with: a fleet of one model, and what sessions told."""
    n, s = sessions.connectors, sessions.connector.size
    none, nobody = np.zeros(0), np.zeros(0, dtype=np.int64)
    no_intervals = Intervals(
        instrument=nobody, slot=nobody, energy_wh=none, u_wh=none, quality=nobody.astype(np.int16)
    )
    inputs = RunInputs(
        as_of_s=AS_OF_S,
        from_s=AS_OF_S - DAYS * DAY_S,
        fleet=Fleet(
            connector=[str(number) for number in range(n)],
            number=np.arange(n),
            station=np.arange(n),
            operator=np.zeros(n, dtype=np.int64),
            model=np.zeros(n, dtype=np.int64),
            is_dc=np.ones(n, dtype=bool),
            cable_loss_compensated=np.ones(n, dtype=bool),
            mpe=np.full(n, MPE),
            rated_power_w=np.full(n, 120e3),
            max_current_a=np.full(n, 250.0),
            resolution_wh=np.ones(n),
            registered=np.ones(n, dtype=bool),
        ),
        references=References(
            meter=[],
            number=nobody,
            station=nobody,
            in_series=nobody.astype(bool),
            is_dc=nobody.astype(bool),
            standard_uncertainty=none,
            resolution_wh=none,
            valid_until_s=none,
            member_start=np.zeros(1, dtype=np.int64),
            members=nobody,
        ),
        connector_intervals=no_intervals,
        meter_intervals=no_intervals,
        sessions=FinishedSessions(
            connector=nobody,
            vehicle=nobody,
            interrupted=nobody.astype(bool),
            **dict.fromkeys(
                (
                    "started_s",
                    "ended_s",
                    "energy_wh",
                    "billed_wh",
                    "soc_start_pct",
                    "soc_stop_pct",
                    "battery_capacity_wh",
                    "bms_energy_wh",
                    "energy_price",
                ),
                none,
            ),
        ),
        anchors=Anchors(
            connector=nobody,
            verified_s=none,
            valid_until_s=none,
            relative_error=none,
            standard_uncertainty=none,
        ),
    )
    rows = SessionRows(
        connector=sessions.connector,
        vehicle=sessions.vehicle,
        kind=np.full(s, BMS_ON_DC),
        ended_s=np.full(s, AS_OF_S - DAY_S),
        log_ratio=sessions.log_ratio,
        soc_variance=np.zeros(s),
        looseness=np.ones(s),
        load=np.zeros(s),
        started_s=np.full(s, AS_OF_S - DAY_S),
        charge_s=np.zeros(s),
        energy_wh=np.zeros(s),
    )
    return inputs, replace(updated(inputs, config=COMPARABLE), sessions=rows)
