"""Cities whose vehicles tell other things of their batteries, and a real graph of who charges."""

from datetime import UTC, datetime

import numpy as np
import pytest

from chargewatch.errors import InputFileError
from chargewatch.evaluation.city_inputs import known_inputs
from chargewatch.risk.engine import assess
from chargewatch.risk.results import EngineConfig
from chargewatch.simulators.city import make_city
from chargewatch.simulators.graph import WORKPLACE, charging_graph
from chargewatch.simulators.wire_form import OFFSET_S

TO = datetime(2026, 3, 30, 16, tzinfo=UTC)


def sessions_of(name, **overrides):
    city = make_city(name, seed=2, to=TO, **{"stations": 4, "days": 4, "faults": [], **overrides})
    return known_inputs(city).inputs.sessions


def test_vehicles_tell_what_their_make_tells():
    only, alone = sessions_of("soc-only"), sessions_of("soc-alone")
    assert not np.isfinite(only.bms_energy_wh).any()
    assert np.isfinite(only.battery_capacity_wh).sum() > 100
    assert not np.isfinite(alone.battery_capacity_wh).any()
    assert (alone.soc_stop_pct > alone.soc_start_pct).sum() > 100
    mixed = sessions_of("mixed-evidence")
    told = np.isfinite(mixed.soc_start_pct)
    kind = np.isfinite(mixed.bms_energy_wh) + 2 * np.isfinite(mixed.battery_capacity_wh)
    assert set(kind[told].tolist()) == {0, 2, 3}
    for vehicle in np.unique(mixed.vehicle[told])[:50]:
        assert len(set(kind[told & (mixed.vehicle == vehicle)].tolist())) == 1


def test_states_of_charge_are_told_in_steps_and_full_before_the_battery_is():
    coarse = sessions_of("soc-alone", soc_step_pct=5.0)
    told = np.isfinite(coarse.soc_stop_pct)
    assert not np.any(coarse.soc_stop_pct[told] % 5)
    without, with_reserve = (
        sessions_of("soc-alone", soc_noise=0.0, soc_reserve=reserve) for reserve in (0.0, 0.05)
    )
    told = np.isfinite(without.soc_stop_pct)
    assert np.all(with_reserve.soc_stop_pct[told] >= without.soc_stop_pct[told])
    assert (with_reserve.soc_stop_pct[told] == 100).sum() > (
        without.soc_stop_pct[told] == 100
    ).sum()
    # The meters don't see any of it.
    assert np.array_equal(with_reserve.energy_wh, without.energy_wh)


def components(pairs, connectors):
    """Return the sizes of the components of connectors that share vehicles, largest first."""
    name = np.arange(connectors)
    for _ in range(connectors):
        of_vehicle = {}
        for connector, vehicle in pairs:
            of_vehicle[vehicle] = min(of_vehicle.get(vehicle, connectors), name[connector])
        before = name.copy()
        for connector, vehicle in pairs:
            name[connector] = min(name[connector], of_vehicle[vehicle])
        if np.array_equal(before, name):
            break
    return sorted(np.unique(name, return_counts=True)[1].tolist(), reverse=True)


def test_the_real_graph_has_one_large_component_and_three_that_are_cut_off():
    graph = charging_graph(WORKPLACE, stations=25)
    connector = np.repeat(np.arange(105), np.diff(graph.first))
    assert (graph.sizes.sum(), graph.vehicles, graph.vehicle.size) == (105, 85, 456)
    pairs = list(zip(connector.tolist(), graph.vehicle.tolist(), strict=True))
    assert components(pairs, 105) == [98, 3, 2, 2]


def test_who_comes_is_drawn_as_often_as_they_came():
    graph = charging_graph(WORKPLACE, stations=25)
    draws = (np.arange(10_000) + 0.5) / 10_000
    came = graph.visitor(np.full(draws.size, 3), draws)
    mine = slice(graph.first[3], graph.first[4])
    expected = np.diff(graph.share[mine], prepend=0.0)
    share = np.array([(came == vehicle).mean() for vehicle in graph.vehicle[mine]])
    assert share == pytest.approx(expected, abs=1e-3)


def test_a_city_on_the_real_graph_has_its_pairs_and_no_others():
    graph = charging_graph(WORKPLACE, stations=25)
    city = make_city("workplace", seed=2, to=TO, days=6)
    stream = city.new_stream()
    real = set(
        zip(
            np.repeat(np.arange(105), np.diff(graph.first)).tolist(),
            graph.vehicle.tolist(),
            strict=True,
        )
    )
    block = stream.block(0).sessions
    real_rows = block.vehicle >= 0
    seen = set(
        zip(block.connector[real_rows].tolist(), block.vehicle[real_rows].tolist(), strict=True)
    )
    assert len(seen) > 30
    assert seen <= real
    with pytest.raises(InputFileError, match="has 25 sites, not 26: set stations"):
        make_city("workplace", stations=26)
    with pytest.raises(InputFileError, match="there is only 'workplace'"):
        make_city("workplace", graph="motorway")


def test_all_stations_can_have_both_kinds_of_piles():
    city = make_city("mixed-feeders", seed=2, to=TO)
    connectors = city.layout.connectors
    by_station = [connectors.is_dc[connectors.station == k] for k in range(20)]
    assert sum(bool(kind.any() and not kind.all()) for kind in by_station) >= 18


def test_a_city_of_states_of_charge_is_judged_within_its_stated_uncertainty():
    city = make_city("soc-alone", seed=102, to=TO, stations=12)
    known = known_inputs(city)
    result = assess(known.inputs, config=EngineConfig(utc_offset_s=OFFSET_S))
    away = result.relative_error - known.relative_error
    assert np.mean(np.abs(away) <= 1.96 * result.standard_uncertainty) > 0.88
    # 1 for whole per cent, and 12 (0.7)^2 for what cars don't know of their charge.
    assert result.summary["soc_factor_soc_dc"] == pytest.approx(6.9, rel=0.25)
