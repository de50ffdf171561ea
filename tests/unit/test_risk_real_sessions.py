"""The engine on 1,878 real DC sessions (DESL, EPFL; MIT), of two connectors of one station."""

import csv
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files

import numpy as np
import pytest
from engine_city import finished_sessions, no_anchors, no_intervals

from chargewatch.domain.verdict import Verdict
from chargewatch.risk.engine import assess
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.run_inputs import Anchors, Fleet, References, RunInputs

# Fourteen months of few sessions: no forgetting, and all days are kept.
CONFIG = EngineConfig(half_life_days=1e5, drift_days=500)


def seconds(text):
    # Local times as they are: only their order and days matter here.
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def group_of(row):
    """Return what stands for the vehicle, which the data don't tell.

    Cars of one model ask for one largest power and state one capacity, so such a group shares a
    scale, its usable capacity. The same cars ask 1,035 W less of CCS2 (353,265 W against
    352,230 W, 224,907 against 223,872, and so on).
    """
    power_w = float(row["preq_max_w"]) + 1035.0 * (row["connector"] == "CCS2")
    return row["total_capacity_wh"], round(power_w, -2)


@cache
def real_inputs():
    """Return the sessions as inputs, a vehicle being a group of cars alike."""
    path = files("chargewatch.simulators").joinpath("data", "desl_epfl_dc_sessions.csv")
    with path.open("r", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda r: r["departure"])
    number = {}
    vehicle = [number.setdefault(group_of(r), len(number)) for r in rows]
    energy = np.array([float(r["energy_wh"]) for r in rows])
    ended = np.array([seconds(r["departure"]) for r in rows])
    none = np.zeros(0)
    sessions = finished_sessions(
        np.array([int(r["connector"] == "CCS2") for r in rows]),
        vehicle=np.array(vehicle),
        ended_s=ended,
        started_s=np.array([seconds(r["arrival"]) for r in rows]),
        energy_wh=energy,
        billed_wh=energy,
        soc_start_pct=np.array([float(r["soc_arrival_pct"]) for r in rows]),
        soc_stop_pct=np.array([float(r["soc_departure_pct"]) for r in rows]),
    )
    return RunInputs(
        as_of_s=float(ended.max()) + 60.0,
        from_s=float(ended.min()) - 86400.0,
        fleet=Fleet(
            connector=["CCS1", "CCS2"],
            number=np.arange(2),
            station=np.zeros(2, np.int64),
            operator=np.zeros(2, np.int64),
            model=np.zeros(2, np.int64),
            is_dc=np.ones(2, bool),
            cable_loss_compensated=np.zeros(2, bool),
            mpe=np.full(2, 0.02),
            rated_power_w=np.full(2, 180e3),
            max_current_a=np.full(2, 500.0),
            resolution_wh=np.ones(2),
            registered=np.ones(2, bool),
        ),
        references=References(
            meter=[],
            number=np.zeros(0, np.int64),
            station=np.zeros(0, np.int64),
            in_series=np.zeros(0, bool),
            is_dc=np.zeros(0, bool),
            standard_uncertainty=none,
            resolution_wh=none,
            valid_until_s=none,
            member_start=np.zeros(1, np.int64),
            members=np.zeros(0, np.int64),
        ),
        connector_intervals=no_intervals(),
        meter_intervals=no_intervals(),
        sessions=sessions,
        anchors=no_anchors(),
    )


def with_first_verified(inputs):
    """Return the inputs as if CCS1 had been verified that day, at 0 with u = 0.1 %."""
    return replace(
        inputs,
        anchors=Anchors(
            connector=np.array([0]),
            verified_s=np.array([inputs.as_of_s]),
            valid_until_s=np.array([np.inf]),
            relative_error=np.zeros(1),
            standard_uncertainty=np.array([0.001]),
        ),
    )


def with_error(inputs, connector, error):
    sessions = inputs.sessions
    factor = np.where(sessions.connector == connector, 1.0 + error, 1.0)
    return replace(inputs, sessions=replace(sessions, energy_wh=sessions.energy_wh * factor))


def test_without_a_reference_two_connectors_alone_can_not_be_judged():
    result = assess(real_inputs(), config=CONFIG)
    assert set(result.verdict) == {Verdict.NOT_IDENTIFIABLE}
    assert result.n_sessions.sum() > 1800


def test_the_two_connectors_agree_within_their_uncertainty():
    result = assess(with_first_verified(real_inputs()), config=CONFIG)
    assert abs(result.relative_error[1]) < 2 * result.standard_uncertainty[1]
    assert result.standard_uncertainty[1] < 0.01
    assert result.verdict[1] is not Verdict.NONCONFORMING


@pytest.mark.parametrize("error", [0.05, -0.05])
def test_five_per_cent_injected_in_one_connector_is_found(error):
    inputs = with_first_verified(real_inputs())
    before = assess(inputs, config=CONFIG)
    after = assess(with_error(inputs, 1, error), config=CONFIG)
    moved = after.relative_error[1] - before.relative_error[1]
    expected = error * (1.0 + before.relative_error[1])
    assert moved == pytest.approx(expected, abs=0.5 * after.standard_uncertainty[1])
    assert abs(after.relative_error[1]) > 3 * after.standard_uncertainty[1]
    assert after.verdict[1] is Verdict.NONCONFORMING
    assert after.verdict[0] is not Verdict.NONCONFORMING
