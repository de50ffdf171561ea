from dataclasses import replace

import numpy as np
import pytest
from engine_city import DAY, START_DAY, make_city, no_anchors, no_intervals, no_sessions

from chargewatch.domain.reason import in_english
from chargewatch.domain.verdict import Verdict
from chargewatch.risk import parallel
from chargewatch.risk.engine import advance, assess
from chargewatch.risk.memory import outdated
from chargewatch.risk.results import BUDGET_COMPONENTS, EngineConfig
from chargewatch.risk.run_inputs import Anchors, Intervals, References

CONFIG = EngineConfig()


def run(city, **changes):
    return assess(replace(city.inputs, **changes), config=CONFIG)


def red(result):
    return np.array([v is Verdict.NONCONFORMING for v in result.verdict])


def between(table, low, high, name):
    at = getattr(table, name)
    keep = (at >= low) & (at < high)
    return type(table)(**{k: v[keep] for k, v in vars(table).items()})


def days_of(inputs, first, last):
    """Return the inputs of a part of the history, as a nightly run would load them."""
    begin, end = (START_DAY + first) * DAY, (START_DAY + last) * DAY
    return replace(
        inputs,
        from_s=begin,
        as_of_s=end,
        connector_intervals=between(inputs.connector_intervals, begin / 900, end / 900, "slot"),
        meter_intervals=between(inputs.meter_intervals, begin / 900, end / 900, "slot"),
        sessions=between(inputs.sessions, begin + 1e-6, end + 1e-6, "ended_s"),
    )


def test_offenders_are_flagged_and_good_piles_are_not_and_intervals_cover():
    z, false, missed = [], 0, 0
    for seed in range(4):
        city = make_city(seed, dc_stations=2, offenders=3, anchors=6)
        result = run(city)
        mpe = city.inputs.fleet.mpe
        z.append((result.relative_error - city.error) / result.standard_uncertainty)
        false += int((red(result) & (np.abs(city.error) <= mpe)).sum())
        missed += int((~red(result) & (np.abs(city.error) >= 1.5 * mpe)).sum())
    covered = np.mean(np.abs(np.concatenate(z)) <= 1.96)
    assert covered >= 0.93
    assert false == 0
    assert missed == 0


def test_vehicles_alone_find_offenders_once_a_few_piles_are_verified():
    city = make_city(3, stations=8, meters=False, anchors=12, vehicles=150, offence_mpe=3.0)
    result = run(city)
    known = np.isfinite(result.relative_error)
    assert known.mean() > 0.95
    assert red(result)[np.abs(city.error) > 0.04].all()
    assert not red(result)[np.abs(city.error) < 0.02].any()
    assert set(result.method) <= {"vehicles", "vehicles+verification"}
    gauge = BUDGET_COMPONENTS.index("gauge")
    assert (result.budget[known, gauge] > 0).all()
    assert (result.common_uncertainty[known] < result.standard_uncertainty[known]).all()


def test_without_anything_traceable_all_is_grey_with_a_reason():
    result = run(make_city(1, meters=False, days=10))
    assert set(result.verdict) == {Verdict.NOT_IDENTIFIABLE}
    assert np.isnan(result.relative_error).all()
    assert np.isnan(result.p_nonconforming).all()
    assert all("reference meter or verification" in in_english(why) for why in result.reason)


def test_an_empty_city_and_a_city_without_data_give_grey_results():
    city = make_city(1, days=2)
    result = run(
        city,
        sessions=no_sessions(),
        connector_intervals=no_intervals(),
        meter_intervals=no_intervals(),
    )
    assert set(result.verdict) == {Verdict.NOT_IDENTIFIABLE}
    assert result.n_intervals.sum() == 0


def test_the_same_inputs_give_the_same_bits():
    city = make_city(5, days=8, dc_stations=2)
    one, two = run(city), run(city)
    for name in (
        "relative_error",
        "standard_uncertainty",
        "p_nonconforming",
        "budget",
        "drift_statistic",
        "meter_shift",
    ):
        assert np.array_equal(getattr(one, name), getattr(two, name), equal_nan=True)
    assert one.reason == two.reason
    assert one.summary == two.summary
    assert all(
        np.array_equal(v, two.state[k], equal_nan=v.dtype.kind == "f") for k, v in one.state.items()
    )


@pytest.mark.parametrize("cores", [1, 3])
def test_the_number_of_cores_changes_no_bit(cores, monkeypatch):
    city = make_city(seed=5, stations=6)
    result = run(city)
    monkeypatch.setattr(parallel, "cores", lambda: cores)
    again = run(city)
    for name, values in vars(result).items():
        if isinstance(values, np.ndarray):
            np.testing.assert_array_equal(values, getattr(again, name), err_msg=name)


def arrived(inputs, first, last, *, behind):
    """Return what a night reads that begins at day `first`: the last hours are still missing."""
    part = days_of(inputs, first, last)
    end = part.as_of_s
    own, meters = part.connector_intervals, part.meter_intervals
    keep = (own.slot + 1) * 900 <= end - behind["connectors_h"] * 3600 * (own.instrument % 3)
    other = (meters.slot + 1) * 900 <= end - behind["meters_h"] * 3600 * (meters.instrument % 2)
    told = part.sessions.connector % 2 == 0
    told |= part.sessions.ended_s <= end - behind["sessions_h"] * 3600
    return replace(
        part,
        connector_intervals=own.take(np.flatnonzero(keep)),
        meter_intervals=meters.take(np.flatnonzero(other)),
        sessions=type(part.sessions)(**{k: v[told] for k, v in vars(part.sessions).items()}),
    )


@pytest.mark.parametrize(
    "behind",
    [
        {"connectors_h": 0, "meters_h": 0, "sessions_h": 0},
        {"connectors_h": 1, "meters_h": 0, "sessions_h": 6},
        {"connectors_h": 0.5, "meters_h": 6, "sessions_h": 0},
    ],
)
def test_nights_one_after_another_come_to_what_a_full_run_says(behind):
    city = make_city(6, days=9, dc_stations=2, anchors=4)
    night = None
    for last in range(1, 10):
        first = max(last - 3, 0)
        inputs = arrived(city.inputs, first, last, behind=behind)
        night = assess(inputs, config=CONFIG, state=None if night is None else night.state)
    full = assess(arrived(city.inputs, 0, 9, behind=behind), config=CONFIG)
    assert night.verdict == full.verdict
    assert night.n_intervals.tolist() == full.n_intervals.tolist()
    assert night.n_sessions.tolist() == full.n_sessions.tolist()
    np.testing.assert_allclose(night.relative_error, full.relative_error, rtol=1e-9)
    np.testing.assert_allclose(night.standard_uncertainty, full.standard_uncertainty, rtol=1e-9)


def test_hours_that_are_still_missing_hardly_move_an_estimate():
    city = make_city(22, days=10, dc_stations=2, anchors=4)
    whole = run(city)
    for hours in (2.0, 6.0):
        behind = {"connectors_h": hours / 2, "meters_h": 0, "sessions_h": 0}
        part = assess(arrived(city.inputs, 0, 10, behind=behind), config=CONFIG)
        away = (part.relative_error - whole.relative_error) / whole.standard_uncertainty
        assert np.nanmax(np.abs(away)) < 0.3


def test_a_member_that_is_missing_is_not_one_that_delivers_nothing():
    city = make_city(23, days=6, offenders=0)
    own = city.inputs.connector_intervals
    silent = (own.instrument == 0) & (own.slot >= (START_DAY + 4) * 96)
    result = run(city, connector_intervals=own.take(np.flatnonzero(~silent)))
    beside = slice(1, 6)
    assert (result.n_intervals[beside] > 0).all()
    early = run(replace(city, inputs=days_of(city.inputs, 0, 4)))
    assert result.n_intervals[beside].tolist() == early.n_intervals[beside].tolist()
    away = (result.relative_error - city.error)[beside] / result.standard_uncertainty[beside]
    assert np.abs(away).max() < 3


def test_a_member_that_was_never_heard_blinds_its_feeder_for_a_week_only():
    city = make_city(24, days=10, offenders=0)
    own = city.inputs.connector_intervals
    # One that delivers nothing: registered, and never built.
    inputs = city.inputs
    ghost = own.take(np.flatnonzero(own.instrument != 5))
    meters = inputs.meter_intervals
    energy = meters.energy_wh.copy()
    mine = own.instrument == 5
    place = own.slot[mine] - START_DAY * 96
    energy[place] -= own.energy_wh[mine] / (1 + city.error[5])
    meters = replace(meters, energy_wh=np.maximum(energy, 0.0))
    days = replace(
        inputs, connector_intervals=ghost, meter_intervals=meters, sessions=no_sessions()
    )
    blind = assess(days_of(days, 0, 7), config=CONFIG)
    assert blind.n_intervals[:5].sum() == 0
    after = assess(days, config=CONFIG)
    assert (after.n_intervals[:5] > 0).all()


@pytest.mark.parametrize("fact", ["cable_loss_compensated", "is_dc", "rated_power_w"])
def test_a_state_is_outdated_where_the_registry_has_changed(fact):
    city = make_city(25, days=4)
    state = run(city).state
    assert not outdated(state, city.inputs).any()
    fleet = city.inputs.fleet
    values = getattr(fleet, fact).copy()
    values[8] = ~values[8] if values.dtype == bool else 2 * values[8]
    changed = replace(city.inputs, fleet=replace(fleet, **{fact: values}))
    # With it all that share its feeder.
    assert np.flatnonzero(outdated(state, changed)).tolist() == list(range(6, 12))


def test_a_name_that_another_connector_has_taken_inherits_nothing():
    city = make_city(26, days=4)
    state = run(city).state
    number = city.inputs.fleet.number.copy()
    number[3] = 1000
    claimed = replace(city.inputs, fleet=replace(city.inputs.fleet, number=number))
    assert outdated(state, claimed)[3]
    assert outdated(state, claimed).sum() == 6


def test_rounds_go_on_until_they_move_nothing_by_more_than_a_fiftieth_of_u():
    city = make_city(27, days=12, offenders=3, dc_stations=2, anchors=4)
    usual = run(city)
    exact = replace(CONFIG, settled_u=1e-5, most_rounds=200)
    settled = assess(city.inputs, config=exact)
    away = (usual.relative_error - settled.relative_error) / settled.standard_uncertainty
    assert np.nanmax(np.abs(away)) < 0.02
    wider = usual.standard_uncertainty / settled.standard_uncertainty
    assert np.nanmax(np.abs(wider - 1)) < 0.02


def test_a_state_survives_a_connector_that_is_added():
    city = make_city(7, days=8)
    state = advance(days_of(city.inputs, 0, 7), config=CONFIG, state=None)
    last = days_of(city.inputs, 7, 8)
    order = np.roll(np.arange(city.inputs.fleet.size), 1)
    back = np.argsort(order)
    fleet = city.inputs.fleet
    moved = replace(
        last,
        fleet=replace(
            fleet,
            **{
                k: [v[i] for i in order] if isinstance(v, list) else v[order]
                for k, v in vars(fleet).items()
            },
        ),
        references=replace(last.references, members=back[last.references.members]),
        connector_intervals=replace(
            last.connector_intervals, instrument=back[last.connector_intervals.instrument]
        ),
        sessions=replace(last.sessions, connector=back[last.sessions.connector]),
    )
    straight = assess(last, config=CONFIG, state=state)
    turned = assess(moved, config=CONFIG, state=state)
    # The last station lost its place in the rows, so its members changed order: it starts anew.
    same = np.arange(fleet.size) < fleet.size - 6
    assert turned.relative_error[back][same] == pytest.approx(
        straight.relative_error[same], abs=5e-4
    )


def test_the_budget_adds_up_and_holds_every_component():
    result = run(make_city(8, dc_stations=2, anchors=5))
    total = np.sqrt((result.budget**2).sum(axis=1))
    assert total == pytest.approx(result.standard_uncertainty, rel=1e-9)
    assert (result.budget >= 0).all()
    assert result.budget.shape[1] == len(BUDGET_COMPONENTS) == 7
    dc = result.budget[-6:]
    assert (dc[:, BUDGET_COMPONENTS.index("efficiency_prior")] > 0.0001).all()
    assert (result.budget[:6, BUDGET_COMPONENTS.index("reference_meter")] > 0.0003).all()


def test_one_wrong_reference_meter_is_named_instead_of_its_piles():
    city = make_city(9, stations=8, wrong_meter=(3, -0.04), offenders=1)
    result = run(city)
    assert result.meter_suspect.tolist() == [j == 3 for j in range(8)]
    assert result.meter_shift[3] == pytest.approx(-0.04, abs=0.006)
    mine = city.inputs.fleet.station == 3
    good = np.abs(city.error) <= 0.02
    assert not red(result)[mine & good].any()
    assert all(
        "M003 is suspect" in in_english(why)
        for why, m in zip(result.reason, mine, strict=True)
        if m
    )


def test_a_station_with_one_offender_has_no_suspect_meter():
    result = run(make_city(10, stations=5, offenders=3, offence_mpe=4.0))
    assert not result.meter_suspect.any()
    assert red(result).sum() == 3


def with_garbage(sessions):
    rng = np.random.default_rng(1)
    bad = rng.uniform(size=sessions.energy_wh.size) < 0.05
    factor = np.where(bad, np.exp(rng.choice([-1, 1], bad.size) * rng.uniform(0.1, 0.9)), 1.0)
    return replace(sessions, energy_wh=sessions.energy_wh * factor)


def test_five_per_cent_of_garbage_sessions_move_no_good_pile_by_half_its_uncertainty():
    city = make_city(11, stations=6, vehicles=120, dc_stations=2)
    before, after = run(city), run(city, sessions=with_garbage(city.inputs.sessions))
    good = np.abs(city.error) <= city.inputs.fleet.mpe
    moved = np.abs(after.relative_error - before.relative_error)[good]
    assert (moved <= 0.5 * after.standard_uncertainty[good]).all()


def test_with_vehicles_alone_garbage_moves_piles_as_little_as_the_loss_of_those_sessions():
    city = make_city(11, stations=8, meters=False, anchors=16, vehicles=120)
    before, after = run(city), run(city, sessions=with_garbage(city.inputs.sessions))
    good = np.abs(city.error) <= 0.02
    moved = np.abs(after.relative_error - before.relative_error)[good]
    share = moved / after.standard_uncertainty[good]
    # Without a twentieth of its sessions a mean moves by sqrt(0.05 / 0.95) = 0.23 of its u.
    assert np.sqrt(np.mean(share**2)) < 0.4
    assert share.max() < 1.0


def test_a_step_is_alarmed_dated_and_flagged():
    city = make_city(12, days=24, step_day=18, offenders=3, offence_mpe=2.5, sessions_per_day=3.0)
    result = run(city)
    stepped = np.abs(city.error) > 0.02
    assert result.drift_alarm[stepped].all()
    assert not result.drift_alarm[~stepped].any()
    assert red(result)[stepped].all()
    days = result.drift_changed_s[stepped] / DAY - START_DAY
    assert (np.abs(days - 18) <= 1).all()
    assert (result.drift_low_s[stepped] <= result.drift_changed_s[stepped]).all()
    assert (result.drift_high_s[stepped] >= result.drift_changed_s[stepped]).all()


def test_a_verification_without_data_since_decides_nothing():
    city = make_city(13, days=3)
    empty = no_intervals()
    anchors = Anchors(
        connector=np.array([0]),
        verified_s=np.array([(START_DAY - 400) * DAY]),
        valid_until_s=np.array([(START_DAY + 900) * DAY]),
        relative_error=np.array([0.001]),
        standard_uncertainty=np.array([0.001]),
    )
    result = run(
        city,
        connector_intervals=empty,
        meter_intervals=empty,
        sessions=no_sessions(),
        anchors=anchors,
    )
    assert result.verdict[0] is Verdict.UNDECIDED
    assert "since the verification" in in_english(result.reason[0])
    assert result.n_direct[0] == 1


def test_two_piles_that_always_charge_alike_are_told_as_such():
    city = make_city(14, stations=1, size=4, days=6, offenders=1, offence_mpe=3.0)
    own = city.inputs.connector_intervals
    # Connectors 0 and 1 deliver the same at the same times.
    first, others = own.instrument == 0, own.instrument > 1
    index = np.concatenate([np.flatnonzero(first), np.flatnonzero(first), np.flatnonzero(others)])
    twin = Intervals(**{k: v[index] for k, v in vars(own).items()})
    twin.instrument[first.sum() : 2 * first.sum()] = 1
    result = run(city, connector_intervals=twin, sessions=no_sessions(), anchors=no_anchors())
    alone = result.standard_uncertainty[2:]
    for k in (0, 1):
        assert result.verdict[k] in (Verdict.UNDECIDED, Verdict.NOT_IDENTIFIABLE) or (
            result.standard_uncertainty[k] > 2 * np.nanmax(alone)
        )


def test_a_meter_in_series_judges_a_dc_pile_within_its_certificate():
    city = make_city(15, stations=4, dc_stations=4, days=10, offenders=2, meters=False)
    own = city.inputs.connector_intervals
    mine = own.instrument == 5
    true = own.energy_wh[mine] / (1 + city.error[5])
    series = Intervals(
        instrument=np.zeros(int(mine.sum()), np.int64),
        slot=own.slot[mine],
        energy_wh=true,
        u_wh=np.full(true.size, 0.4),
        quality=np.zeros(true.size, np.int16),
    )
    references = References(
        meter=["S1"],
        number=np.array([0]),
        station=np.array([0]),
        in_series=np.array([True]),
        is_dc=np.array([True]),
        standard_uncertainty=np.array([0.0008]),
        resolution_wh=np.array([1.0]),
        valid_until_s=np.array([np.inf]),
        member_start=np.array([0, 1]),
        members=np.array([5]),
    )
    result = run(city, references=references, meter_intervals=series)
    assert result.relative_error[5] == pytest.approx(city.error[5], abs=0.002)
    assert result.standard_uncertainty[5] < 0.0013
    assert result.method[5].startswith("direct")
    assert result.n_direct[5] == 10


def test_money_grows_with_the_error_and_is_none_for_a_good_pile():
    city = make_city(16, offenders=2, offence_mpe=4.0)
    result = run(city)
    bad = np.abs(city.error) > 0.02
    good = np.abs(city.error) < 0.012
    assert (result.overcharge_per_month[bad] > 100 * result.overcharge_per_month[good].max()).all()
    energy = 1.0
    for i in np.flatnonzero(bad):
        own = city.inputs.connector_intervals
        energy = own.energy_wh[own.instrument == i].sum() / 1000.0
        expected = (np.abs(result.relative_error[i]) - 0.02) * energy
        assert result.overcharge_per_month[i] == pytest.approx(expected, rel=0.25)


def test_garbage_in_the_intervals_is_left_out_not_believed():
    city = make_city(17)
    own = city.inputs.connector_intervals
    wild = own.energy_wh.copy()
    wild[100] = 4e5
    result = run(city, connector_intervals=replace(own, energy_wh=wild))
    assert np.abs(result.relative_error - city.error).max() < 0.004


def test_a_connector_without_accuracy_class_is_not_judged():
    city = make_city(18, days=5)
    mpe = city.inputs.fleet.mpe.copy()
    mpe[2] = np.nan
    result = run(city, fleet=replace(city.inputs.fleet, mpe=mpe))
    assert result.verdict[2] is Verdict.NOT_IDENTIFIABLE
    assert "accuracy class" in in_english(result.reason[2])
