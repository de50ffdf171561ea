"""Piles that err only in a situation, in a city with physics of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_city import DAY, City, make_city

from chargewatch.domain.verdict import Verdict
from chargewatch.risk.engine import advance, assess
from chargewatch.risk.feeders.nuisances import light_edges
from chargewatch.risk.rebuilding import part_of
from chargewatch.risk.results import EngineConfig, RunResult
from chargewatch.risk.run_inputs import Intervals, RunInputs
from chargewatch.risk.situations import FIRST, WINDOWS, active_slots

CONFIG = EngineConfig(utc_offset_s=0.0)
SIZE = 6
PILE = 8
MPE = 0.02


def charging(intervals: Intervals) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each interval's energy since its charging began, its whole length and number."""
    new = np.ones(intervals.slot.size, dtype=bool)
    new[1:] = (np.diff(intervals.slot) != 1) | (np.diff(intervals.instrument) != 0)
    new |= intervals.energy_wh <= 0
    begin = np.flatnonzero(new)
    number = np.cumsum(new) - 1
    total = np.cumsum(intervals.energy_wh) - intervals.energy_wh
    length = np.bincount(number)[number] * 0.25
    return total - total[begin][number], length, number


SITUATIONS = {
    "hours": lambda x, own: (
        (x.slot * 900 % 86400 // 3600 >= 18) & (x.slot * 900 % 86400 < 23 * 3600)
    ),
    "days": lambda x, own: (x.slot * 900 // 86400 + 3) % 7 >= 5,
    "load": lambda x, own: x.energy_wh / 0.25 > 0.8 * 7000.0,
    "energy": lambda x, own: charging(x)[0] > 10_000.0,
    "duration": lambda x, own: charging(x)[1] > 2.0,
}


def tampered(inputs: RunInputs, code: str, by: float, pile: int = PILE) -> tuple[RunInputs, float]:
    """Return the inputs with one pile's meter off in a situation, and its share of the energy."""
    told = inputs.connector_intervals
    where = (told.instrument == pile) & (told.energy_wh > 0) & SITUATIONS[code](told, pile)
    energy = np.where(where, told.energy_wh * (1 + by), told.energy_wh)
    mine = told.instrument == pile
    share = told.energy_wh[where].sum() / told.energy_wh[mine].sum()
    return replace(inputs, connector_intervals=replace(told, energy_wh=energy)), float(share)


@pytest.fixture(scope="module")
def honest() -> City:
    """Return a city without offenders, metered, without vehicles."""
    city = make_city(7, stations=4, size=SIZE, offenders=0, sessions_per_day=3.0)
    none = city.inputs.sessions
    empty = replace(none, **{name: values[:0] for name, values in vars(none).items()})
    return replace(city, inputs=replace(city.inputs, sessions=empty))


def said(result: RunResult) -> list[tuple[int, str]]:
    """Return connector and kind of every situation."""
    return [(one.connector, one.code) for one in result.situations]


def test_an_honest_city_has_no_situations(honest: City) -> None:
    result = assess(honest.inputs, config=CONFIG)
    assert said(result) == []
    assert set(result.verdict) == {Verdict.CONFORMING}


@pytest.mark.parametrize("by", [0.06, -0.06])
@pytest.mark.parametrize("code", SITUATIONS)
def test_a_pile_that_errs_in_a_situation_is_found(honest: City, code: str, by: float) -> None:
    inputs, share = tampered(honest.inputs, code, by)
    assert 0.05 < share < 0.95
    result = assess(inputs, config=CONFIG)
    assert said(result) == [(PILE, code)]
    [one] = result.situations
    assert result.verdict[PILE] == Verdict.NONCONFORMING
    inside = (1 + honest.error[PILE]) * (1 + by) - 1
    if abs(one.error - inside) > abs(one.error_otherwise - inside):
        pytest.fail(f"the wrong side is told: {one}")
    assert one.error == pytest.approx(inside, abs=0.012)
    # Over all its energy, as the customers of these weeks paid it.
    overall = (1 + honest.error[PILE]) * (1 + by * share) - 1
    assert result.relative_error[PILE] == pytest.approx(overall, abs=0.006)
    others = np.arange(SIZE * 4) != PILE
    assert {v for v, o in zip(result.verdict, others, strict=True) if o} == {Verdict.CONFORMING}


def test_the_hours_are_local_ones(honest: City) -> None:
    inputs, _ = tampered(honest.inputs, "hours", 0.08)
    [one] = assess(inputs, config=replace(CONFIG, utc_offset_s=8 * 3600.0)).situations
    assert (one.low, one.high) == (2.0, 7.0)


def test_a_night_finds_what_a_full_run_finds(honest: City) -> None:
    inputs, _ = tampered(honest.inputs, "hours", 0.06)
    full = assess(inputs, config=CONFIG)

    def until(days: float, begin: float) -> RunInputs:
        as_of = inputs.from_s + days * DAY
        parts = {}
        for name in ("connector_intervals", "meter_intervals"):
            told = getattr(inputs, name)
            at = told.slot * 900
            parts[name] = told.take(np.flatnonzero((at >= begin) & (at < as_of)))
        return replace(inputs, as_of_s=as_of, from_s=begin, **parts)

    days = (inputs.as_of_s - inputs.from_s) / DAY
    state = advance(until(days - 2, inputs.from_s), config=CONFIG)
    last = until(days, inputs.from_s + (days - 2) * DAY)
    blind = assess(last, config=CONFIG, state=state)
    assert said(blind) == []
    night = assess(
        last,
        config=CONFIG,
        state=state,
        history=lambda meters, connectors, from_s: part_of(inputs, meters, connectors, from_s),
    )
    assert said(night) == said(full) == [(PILE, "hours")]
    assert night.relative_error[PILE] == pytest.approx(full.relative_error[PILE], abs=1e-4)


def test_a_part_of_a_city_is_numbered_anew(honest: City) -> None:
    part = part_of(honest.inputs, np.array([1, 3]), np.array([6, 7, 18, 20]), honest.inputs.from_s)
    fleet = honest.inputs.fleet
    assert part.fleet.connector == [fleet.connector[k] for k in (6, 7, 18, 20)]
    assert part.references.members.tolist() == [0, 1, 2, 3]
    assert part.references.member_start.tolist() == [0, 2, 4]
    told, whole = part.connector_intervals, honest.inputs.connector_intervals
    for new, old in enumerate((6, 7, 18, 20)):
        assert (
            told.energy_wh[told.instrument == new].tolist()
            == whole.energy_wh[whole.instrument == old].tolist()
        )


def test_slots_lie_in_one_bin_of_every_family() -> None:
    energy = np.zeros((1, 96, 1))
    energy[0, 40:44, 0] = 1750.0
    energy[0, 60, 0] = 300.0
    edge = np.array([[0.19]])
    active = active_slots(energy, np.array([[7000.0]]), light=edge, begin_s=20500 * DAY)
    assert active.slot.tolist() == [40, 41, 42, 43, 60]
    hours, days, load, since, duration, light = active.bins - np.array(FIRST[:-1])[:, None]
    assert hours.tolist() == [10, 10, 10, 10, 15]
    assert set(days.tolist()) == {0}
    assert load.tolist() == [9, 9, 9, 9, 1]
    assert since.tolist() == [0, 1, 1, 2, 0]
    assert duration.tolist() == [1, 1, 1, 1, 0]
    assert light.tolist() == [1, 1, 1, 1, 0]


def test_a_window_and_its_complement_fill_the_family() -> None:
    for window in WINDOWS:
        low, high = window.limits
        if window.complement is not None:
            assert window.complement in (
                (high, low),
                (high, np.inf),
                (0.0, low),
                (0.0, 5.0),
                (5.0, 7.0),
            )
            assert window.complement != (low, high)


def with_light_charging(inputs: RunInputs, pile: int, by: float) -> RunInputs:
    """Return the inputs with every third charge of a pile at a seventh of its power.

    Its meter is off by `by` there. Its feeder sees 0.3 % more than the pile tells.
    """
    own, other = inputs.connector_intervals, inputs.meter_intervals
    new = np.ones(own.slot.size, dtype=bool)
    new[1:] = (np.diff(own.slot) != 1) | (np.diff(own.instrument) != 0)
    number = np.cumsum(new)
    light = (own.instrument == pile) & (number % 3 == 0) & (own.energy_wh > 0)
    less = np.where(light, own.energy_wh * 6.0 / 7.0, 0.0)
    energy = np.where(light, own.energy_wh / 7.0 * (1 + by), own.energy_wh)
    by_slot = dict(zip(own.slot[light].tolist(), less[light].tolist(), strict=True))
    mine = other.instrument == pile // SIZE
    taken = np.array([by_slot.get(slot, 0.0) for slot in other.slot.tolist()])
    meter = other.energy_wh - np.where(mine, taken * 1.003, 0.0)
    return replace(
        inputs,
        connector_intervals=replace(own, energy_wh=energy),
        meter_intervals=replace(other, energy_wh=meter),
    )


@pytest.mark.parametrize("by", [0.15, -0.15])
def test_the_error_at_light_load_is_told_apart(honest: City, by: float) -> None:
    inputs = with_light_charging(honest.inputs, PILE, by)
    result = assess(inputs, config=CONFIG)
    light = (1 + honest.error[PILE]) * (1 + by) - 1
    u = result.standard_uncertainty_light[PILE]
    assert result.relative_error_light[PILE] == pytest.approx(light, abs=2.5 * u)
    assert u < 0.04
    # Where no vehicle charges below I_min nothing is known of it.
    others = np.arange(SIZE * 4) != PILE
    assert np.isnan(result.relative_error_light[others]).all()


def test_the_edge_of_light_load_is_a_tenth_and_not_below_6_ampere(honest: City) -> None:
    fleet = replace(
        honest.inputs.fleet,
        is_dc=np.arange(24) >= 12,
        rated_power_w=np.full(24, 7360.0),
        max_current_a=np.array([32.0, 63.0, 16.0] + [np.nan] * 9 + [250.0] + [np.nan] * 11),
    )
    edges = light_edges(fleet)
    assert edges[[0, 1, 2, 3, 12, 13]].tolist() == pytest.approx(
        [6 / 32, 0.1, 6 / 16, 6 / 32, 0.1, 0.1]
    )
