"""What a change of one connector's error does to its own estimate and to its neighbours'."""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from engine_city import DAY, START_DAY
from engine_city import make_city as engine_city

from chargewatch.domain.reason import in_english
from chargewatch.domain.verdict import Verdict
from chargewatch.evaluation.city_inputs import known_inputs
from chargewatch.risk.engine import assess
from chargewatch.risk.feeders.blocks import Group
from chargewatch.risk.feeders.statements import GainStatement, leaks
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.rounds_input import misfit
from chargewatch.risk.run_inputs import DeclaredChanges
from chargewatch.simulators.city import make_city

TO = datetime(2026, 3, 30, 16, tzinfo=UTC)


def statement_of(precision):
    b, q = precision.shape[:2]
    group = Group(
        size=q,
        meter=np.arange(b),
        member=np.arange(b * q).reshape(b, q),
        same_side=np.ones((b, q), dtype=bool),
    )
    return GainStatement(group=group, precision=precision, information=np.ones((b, q)))


def test_a_change_leaks_to_those_who_charge_along_by_hand():
    precision = np.array([[[4.0, 2.0, 0.0], [2.0, 8.0, 1.0], [0.0, 1.0, 5.0]]])
    leak = leaks(statement_of(precision), size=np.array([0.05, 0.0, 0.0]))
    # Connector 0 changed: nothing leaks to itself, 2 / 8 of it to the second, nothing to the third.
    assert leak[0] == pytest.approx([0.0, (0.11 * 0.05 * 2.0 / 8.0) ** 2, 0.0])
    assert (leaks(statement_of(precision), size=np.zeros(3)) == 0).all()


def test_a_statement_that_is_less_sure_says_the_same_with_a_wider_margin():
    whole = statement_of(np.array([[[4.0, 1.0], [1.0, 9.0]]]))
    half = whole.less_sure(np.array([0.5]))
    same = np.linalg.solve(whole.precision[0], whole.information[0])
    assert np.linalg.solve(half.precision[0], half.information[0]) == pytest.approx(same)
    assert half.precision == pytest.approx(0.5 * whole.precision)


def series_of(rng, feeders, q, days, *, scale):
    """Return statistics of feeders whose days scatter by ``scale`` of their stated uncertainty."""
    u = rng.uniform(0.004, 0.02, (feeders * q, days))
    x = rng.normal(0, 1, u.shape) * u * np.repeat(scale, q)[:, None]
    groups = (statement_of(np.tile(np.eye(q), (feeders, 1, 1))).group,)
    layout = SimpleNamespace(groups=groups)
    return SimpleNamespace(metered=x, metered_precision=u**-2.0, layout=layout)


def test_a_feeder_whose_days_disagree_is_trusted_less_and_no_other_more():
    rng = np.random.default_rng(31)
    scale = np.ones(40)
    scale[3] = 2.0
    scale[4] = 0.5
    (factor,) = misfit(series_of(rng, 40, 8, 30, scale=scale), crossing=(np.zeros(40, dtype=bool),))
    assert factor[3] == pytest.approx(4.0, rel=0.3)
    assert factor[4] == 1.0
    assert np.median(factor) < 1.1
    # A handful of feeders tells nothing of what is usual.
    few = series_of(rng, 3, 8, 30, scale=scale[2:5])
    assert (misfit(few, crossing=(np.zeros(3, dtype=bool),))[0] == 1.0).all()
    nothing = SimpleNamespace(
        metered=np.zeros((6, 0)), metered_precision=np.zeros((6, 0)), layout=few.layout
    )
    nothing.layout = series_of(rng, 2, 3, 1, scale=np.ones(2)).layout
    assert (misfit(nothing, crossing=(np.zeros(2, dtype=bool),))[0] == 1.0).all()


def test_a_pile_that_steps_takes_no_evidence_from_its_neighbours():
    rng = np.random.default_rng(32)
    statistics = series_of(rng, 40, 4, 30, scale=np.ones(40))
    quiet = misfit(statistics, crossing=(np.zeros(40, dtype=bool),))[0]
    # The second pile of feeder 3 steps by ten of its days' uncertainties.
    statistics.metered[13, 12:] += 0.1
    stepped = misfit(statistics, crossing=(np.zeros(40, dtype=bool),))[0]
    assert stepped[3] < quiet[3] + 0.2


@pytest.mark.parametrize(
    ("fault", "least_red"),
    [("step", 1.0), ("drift", 1.0)],
)
def test_the_present_error_of_a_changed_meter_is_within_its_uncertainty(fault, least_red):
    """By vehicles alone: what came before the change calibrates them, and does not pull."""
    city = make_city(
        "roaming-vehicles",
        seed=9,
        to=TO,
        stations=16,
        dc_share=1.0,
        faults=[{"fault": fault, "count": 10, "magnitude_mpe": 3.0}],
    )
    known = known_inputs(city)
    result = assess(known.inputs, config=EngineConfig())
    changed = np.array(sorted(city.faults.of_kind(fault)))
    assert result.drift_alarm[changed].mean() == least_red
    z = (result.relative_error - known.relative_error) / result.standard_uncertainty
    assert np.mean(np.abs(z[changed]) < 2.6) >= 0.8
    assert np.sqrt(np.mean(z[changed] ** 2)) < 2.0
    # Half of what is known of a steady meter, and not much less, is known of a changed one.
    steady = np.setdiff1d(np.arange(z.size), changed)
    u = result.standard_uncertainty
    assert np.median(u[changed]) < 3.0 * np.median(u[steady])
    assert np.sqrt(np.nanmean(z[steady] ** 2)) < 1.2


@pytest.mark.parametrize("fault", ["unit", "stuck", "withheld"])
def test_a_connector_that_hides_its_energy_bends_no_neighbour(fault):
    city = make_city(
        "quiet-city",
        seed=4,
        to=TO,
        stations=6,
        dc_share=0.0,
        faults=[{"fault": fault, "count": 6}],
    )
    known = known_inputs(city)
    result = assess(known.inputs, config=EngineConfig())
    others = np.setdiff1d(np.arange(len(result.verdict)), list(city.faults.of_kind(fault)))
    z = (result.relative_error - known.relative_error) / result.standard_uncertainty
    assert np.mean(np.abs(z[others]) < 1.96) > 0.88
    assert np.abs(z[others]).max() < 5
    assert not any(result.verdict[k] is Verdict.NONCONFORMING for k in others)


def declared(city, rows, *, at_s, replaced):
    rows = np.asarray(rows)
    return DeclaredChanges(
        connector=rows, at_s=np.full(rows.size, at_s), replaced=np.full(rows.size, replaced)
    )


def test_a_declared_new_meter_has_an_error_of_its_own():
    """A verification of the old one says nothing of it; nobody is alarmed of what was declared."""
    days, day = 24, 19
    city = engine_city(13, days=days, step_day=day, offenders=3, offence_mpe=2.5, anchors=36)
    stepped = np.flatnonzero(np.abs(city.error) > 0.02)
    at_s = (START_DAY + day) * DAY
    new = declared(city, stepped, at_s=at_s, replaced=True)
    inputs = replace(city.inputs, declared=new)
    result = assess(inputs, config=EngineConfig())
    z = (result.relative_error - city.error) / result.standard_uncertainty
    assert np.abs(z[stepped]).max() < 3.5
    assert not result.drift_alarm.any()
    assert "verification" not in [result.method[k] for k in stepped]
    for k in range(city.error.size):
        assert ("its meter was replaced on" in in_english(result.reason[k])) == (k in stepped)
    # One that is verified on the same day, which ends later, counts.
    anchors = city.inputs.anchors
    mine = np.isin(anchors.connector, stepped)
    again = replace(
        anchors,
        verified_s=np.where(mine, at_s + 0.4 * DAY, anchors.verified_s),
        relative_error=np.where(mine, city.error[anchors.connector], anchors.relative_error),
    )
    verified = assess(replace(inputs, anchors=again), config=EngineConfig())
    assert all("verification" in verified.method[k] for k in stepped)
    assert (verified.standard_uncertainty[stepped] < result.standard_uncertainty[stepped]).all()


def test_a_meter_replaced_after_the_run_is_not_known_to_it():
    city = engine_city(12, days=12)
    late = declared(city, [0, 3], at_s=city.inputs.as_of_s + 1.0, replaced=True)
    before = assess(city.inputs, config=EngineConfig())
    after = assess(replace(city.inputs, declared=late), config=EngineConfig())
    assert (before.relative_error == after.relative_error).all()


def test_a_meter_replaced_long_ago_ends_its_verification_only():
    city = engine_city(12, days=12, anchors=36)
    old = declared(city, [0], at_s=(START_DAY - 20) * DAY, replaced=True)
    before = assess(city.inputs, config=EngineConfig())
    after = assess(replace(city.inputs, declared=old), config=EngineConfig())
    assert "verification" in before.method[0]
    assert "verification" not in after.method[0]
    assert "verification" in after.method[1]


def test_a_declared_work_makes_a_weak_change_likelier():
    city = engine_city(12, days=24, step_day=19, offenders=3, offence_mpe=1.2)
    stepped = np.flatnonzero(np.abs(city.error) > 0.02)
    work = declared(city, stepped, at_s=(START_DAY + 19) * DAY - 60.0, replaced=False)
    before = assess(city.inputs, config=EngineConfig())
    after = assess(replace(city.inputs, declared=work), config=EngineConfig())
    gain = after.drift_statistic - before.drift_statistic
    assert (gain[stepped] > 2.0).all()
    quiet = np.setdiff1d(np.arange(gain.size), stepped)
    assert np.nanmax(np.abs(gain[quiet])) < 1.0
    # What nothing shows isn't found for having been declared.
    everywhere = declared(city, quiet, at_s=(START_DAY + 12) * DAY, replaced=False)
    result = assess(replace(city.inputs, declared=everywhere), config=EngineConfig())
    assert not result.drift_alarm[quiet].any()
