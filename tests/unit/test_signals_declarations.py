"""A declared change explains the fall or jump of its time, and no other."""

import numpy as np
import pytest
from facts import block_of

from chargewatch.domain.times import DAY_S
from chargewatch.signals.declarations import CLOCK_S, Declarations, Resets
from chargewatch.signals.registers import Piles, Readings, pairs_of
from chargewatch.signals.registry import findings_of
from chargewatch.signals.rules import register_discontinuity
from chargewatch.signals.sessions import BilledSessions

T0 = 20_500 * DAY_S
PILES = Piles(rated_power_w=np.full(3, 7000.0), resolution_wh=np.ones(3))


def readings(*energies, step_s=600.0):
    """Return registers of connectors 0, 1, ... at the same times."""
    size = [len(energy) for energy in energies]
    at = np.concatenate([T0 + step_s * np.arange(n) for n in size])
    nothing = np.zeros(at.size, bool)
    return Readings(
        connector=np.repeat(np.arange(len(size)), size),
        at_s=at,
        energy_wh=np.concatenate([np.asarray(energy, float) for energy in energies]),
        power_w=np.full(at.size, np.nan),
        session=np.zeros(at.size, np.int64),
        is_reset=nothing,
        is_begin=nothing,
        is_end=nothing,
    )


def declared(*events):
    """Return declarations: (connector, s after T0, replaced)."""
    rows = sorted(events)
    return Declarations(
        connector=np.array([row[0] for row in rows], np.int64),
        at_s=T0 + np.array([row[1] for row in rows], float),
        replaced=np.array([row[2] for row in rows], bool),
    )


def found(given, *events):
    return [(f.code, f.row, round(f.first_s - T0)) for f in findings(given, declared(*events))]


def findings(given, declarations):
    """Return what readings alone prove: whatever else flows, flows outside any session."""
    found = findings_of(block_of(given, PILES, declarations=declarations))
    return [f for f in found if f.code != "idle_consumption"]


FALL = [50_000, 50_100, 200, 300, 400]  # between 600 and 1200 s


@pytest.mark.parametrize("at_s", [600 - CLOCK_S, 600, 900, 1200, 1200 + CLOCK_S])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_declared_fall_is_no_finding(at_s, replaced):
    assert found(readings(FALL)) == [("register_decrease", 0, 600)]
    assert found(readings(FALL), (0, at_s, replaced)) == []


@pytest.mark.parametrize("at_s", [600 - CLOCK_S - 1, 1200 + CLOCK_S + 1, 0, 86_400])
def test_a_declaration_of_another_time_explains_nothing(at_s):
    assert found(readings(FALL), (0, at_s, False)) == [("register_decrease", 0, 600)]


def test_a_declaration_of_another_connector_explains_nothing():
    two = readings(FALL, FALL)
    assert found(two, (1, 900, True)) == [("register_decrease", 0, 600)]
    assert found(two, (0, 900, True), (2, 900, True)) == [("register_decrease", 1, 600)]


def test_one_declaration_silences_one_fall():
    twice = [50_000, 50_100, 40_000, 200, 300]  # falls after 600 and after 1200 s
    assert len(found(readings(twice, step_s=60.0))) == 1  # both on one day: one finding of two
    (left,) = findings(readings(twice, step_s=60.0), declared((0, 150, False)))
    assert (left.count, left.first_s) == (1, T0 + 60)
    both = declared((0, 100, False), (0, 150, False))
    assert findings(readings(twice, step_s=60.0), both) == []


def test_a_jump_and_a_change_of_unit_are_explained_too():
    assert found(readings([1000, 1010, 900_000, 900_010]), (0, 700, True)) == []
    changed = [50_000, 50_100, 50_200_000, 50_200_100]
    assert [code for code, *_ in found(readings(changed))] == ["unit_fault"]
    assert found(readings(changed), (0, 700, False)) == []


def test_a_new_meter_ends_what_its_step_could_say():
    given = readings([1000, 1010, 1500, 1510])  # 490 Wh in 10 min: could be energy
    for replaced in (False, True):
        pairs = pairs_of(given, PILES, declarations=declared((0, 700, replaced)))
        assert pairs.declared.tolist() == [False, replaced, False]


def test_a_declared_change_between_two_sessions_explains_their_registers():
    sessions = BilledSessions(
        name=np.array([1, 2]),
        connector=np.array([0, 0]),
        started_s=T0 + np.array([0.0, 7200.0]),
        ended_s=T0 + np.array([3600.0, 9000.0]),
        start_wh=np.array([100_000.0, 0.0]),
        stop_wh=np.array([110_000.0, 9000.0]),
        billed_wh=np.array([10_000.0, 9000.0]),
    )

    def codes(*events):
        return [
            finding.code
            for finding in register_discontinuity.find(
                block_of(
                    readings([]),
                    PILES,
                    sessions=sessions,
                    declarations=declared(*events),
                    as_of_s=T0 + DAY_S,
                    base_s=T0,
                )
            )
        ]

    assert codes() == codes((0, 9600, True)) == codes((1, 5000, True)) == ["register_discontinuity"]
    assert codes((0, 5000, True)) == []


def test_a_declaration_every_week_is_a_finding():
    weekly = declared(*((0, k * 7 * DAY_S, False) for k in range(6)), (1, 0, True))
    often = findings_of(weekly)
    assert [(f.code, f.row, f.day) for f in often] == [
        ("frequent_declarations", 0, 20_500 + 7 * k) for k in (3, 4, 5)
    ]
    assert often[0].value == 4
    monthly = declared(*((0, k * 31 * DAY_S, False) for k in range(6)))
    one_day = declared(*((0, k * 60, False) for k in range(10)))
    for honest in (monthly, one_day, declared()):
        assert findings_of(honest) == []


def counted(*days, resets=(), times=1):
    """Return what is raised of connector 0 by events and by readings that declare resets."""
    at = np.array([(20_500 + day) * DAY_S + k * 60.0 for day in days for k in range(times)])
    events = Declarations(
        connector=np.zeros(at.size, np.int64), at_s=at, replaced=np.zeros(at.size, bool)
    )
    told = np.array([(20_500 + day) * DAY_S + 7.0 for day in resets])
    declared = events.with_resets(Resets(np.zeros(told.size, np.int64), told))
    return sorted(finding.day - 20_500 for finding in findings_of(declared))


def test_resets_that_readings_declare_count_as_events_do():
    assert counted(resets=[0, 7, 14]) == []
    assert counted(resets=[0, 7, 14, 21]) == [21]
    assert counted(0, 7, resets=[14, 21, 28]) == [21, 28]
    assert counted(resets=[0, 31, 62, 93]) == []


def test_many_declarations_of_a_few_days_are_a_finding_too():
    assert counted(0, times=10) == []
    assert counted(0, times=11) == [0]
    assert counted(0, 5, times=6) == [5]
