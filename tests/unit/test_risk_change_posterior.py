"""The posterior of changes: against enumeration, against other code, and by what it promises."""

import numpy as np
import pytest
import ruptures
from scipy.stats import norm, t

from chargewatch.risk.change_likelihood import normal_log_factors
from chargewatch.risk.change_posterior import change_posterior
from chargewatch.risk.change_votes import SessionVotes, VoteHistory, pulled_in
from chargewatch.risk.priors import (
    CHANGE_SIZE_MPE,
    CHANGE_TAIL_DEGREES,
    GARBAGE_SHARE,
    GARBAGE_SPREAD,
)

MPE = 0.02
RATE = 0.05 / 365.25


def votes_of(connector, at, value, variance):
    order = np.lexsort((at, connector))
    connector, at, value, variance = (x[order] for x in (connector, at, value, variance))
    # Pulled in towards the median of the connector's five around it.
    near = value.copy()
    for k in np.unique(connector):
        mine = np.flatnonzero(connector == k)
        for place, row in enumerate(mine):
            first = max(min(place - 2, mine.size - 5), 0)
            centre = np.median(value[mine[first : first + 5]])
            far = 3 * np.sqrt(variance[row])
            near[row] = np.clip(value[row], centre - far, centre + far)
    return SessionVotes(
        connector=connector,
        at=at,
        value=value,
        variance=variance,
        near=near,
        weight=np.ones(at.size),
    )


def no_sessions():
    empty = np.zeros(0)
    return votes_of(np.zeros(0, np.int64), empty, empty, empty)


def history(metered, precision, sessions=None):
    return VoteHistory(
        metered=metered,
        metered_precision=precision,
        metered_near=pulled_in(metered, precision),
        day_weight=np.ones(metered.shape[1]),
        sessions=sessions if sessions is not None else no_sessions(),
    )


def posterior(one, *, rate=RATE, smallest=0.0):
    n, days = one.metered.shape
    return change_posterior(
        one,
        mpe=np.full(n, MPE),
        smallest=np.full(n, smallest),
        prior=np.full((n, days, 2), 0.5 * rate),
    )


def series(rng, n, days, *, u=0.003):
    spread = rng.uniform(0.5 * u, 2 * u, (n, days))
    return rng.normal(0, spread), spread**-2.0


def with_both(rng, n, days, *, error, u=0.004, u_session=0.008, sessions=15):
    """Meters and vehicles that see one error (n, days), each from a level of its own."""
    spread = rng.uniform(0.6 * u, 1.8 * u, (n, days))
    metered = error + rng.normal(0, 0.01, (n, 1)) + rng.normal(0, spread)
    seen = rng.random((n, days)) < 0.8
    who = np.repeat(np.arange(n), sessions)
    at = rng.uniform(0, days, who.size)
    u_own = rng.uniform(0.6 * u_session, 1.8 * u_session, who.size)
    value = error[who, at.astype(int)] + rng.normal(0, 0.01, n)[who] + rng.normal(0, u_own)
    garbage = rng.random(who.size) < 0.05
    value = np.where(garbage, value + rng.normal(0, 0.4, who.size), value)
    return history(
        np.where(seen, metered, 0.0),
        np.where(seen, spread**-2.0, 0.0),
        votes_of(who, at, value, u_own**2),
    )


def test_normal_bayes_factors_are_those_of_the_linear_model():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 0.01, 9), rng.normal(0, 0.01, 9)
    p, q = rng.uniform(1e4, 9e4, 9), rng.uniform(1e4, 9e4, 9)
    q[3] = 0.0
    step, drift = normal_log_factors(
        [(p[None], (p * x)[None]), (q[None], (q * y)[None])], spread=np.array([0.04])
    )
    known = np.r_[np.ones(9, bool), q > 0]
    precision = np.r_[p, q][known]
    both = np.r_[x, y][known]
    levels = np.stack([np.r_[np.ones(9), np.zeros(9)], np.r_[np.zeros(9), np.ones(9)]], axis=1)
    middle = np.r_[np.arange(9), np.arange(9)] + 0.5
    for c in range(2, 8):
        for found, shape in ((step, middle > c), (drift, np.maximum(middle - c, 0) / (9 - c))):
            logs = []
            for columns, variances in ((levels, [1e6] * 2), (np.c_[levels, shape], [1e6] * 2)):
                wide = [*variances, 0.04**2][: columns.shape[1]]
                columns = columns[known]
                cover = np.diag(1 / precision) + columns @ np.diag(wide) @ columns.T
                logs.append(
                    -0.5 * np.linalg.slogdet(cover)[1] - 0.5 * both @ np.linalg.solve(cover, both)
                )
            assert found[0, c] == pytest.approx(logs[1] - logs[0], abs=1e-3)


def log_density(away, u):
    tame = (1 - GARBAGE_SHARE) * t.pdf(away / u, CHANGE_TAIL_DEGREES) / u
    return np.log(tame + GARBAGE_SHARE * norm.pdf(away, 0, np.sqrt(u**2 + GARBAGE_SPREAD**2)))


def enumerated(one, k):
    """Return the odds of a change and the probability of each first day, by summing over grids."""
    levels, sizes = np.linspace(-0.06, 0.06, 81), np.linspace(-0.15, 0.15, 91)
    seen = one.metered_precision[k] > 0
    days = seen.size
    mine = one.sessions.connector == k
    witnesses = [
        (
            one.metered[k, seen],
            one.metered_precision[k, seen] ** -0.5,
            (np.arange(days) + 0.5)[seen],
        ),
        (
            one.sessions.value[mine],
            one.sessions.variance[mine] ** 0.5,
            one.sessions.at[mine],
        ),
    ]
    voted = seen.copy()
    voted[one.sessions.at[mine].astype(int)] = True

    def log_of(shape):
        total = np.zeros(sizes.size)
        for x, u, at in witnesses:
            log = np.zeros((levels.size, sizes.size))
            for value, spread, f in zip(x, u, shape(at), strict=True):
                log += log_density(value - levels[:, None] - f * sizes, spread)
            total += np.log(np.exp(log - log.max()).sum(axis=0)) + log.max()
        return total

    flat = log_of(lambda at: 0 * at)[0]
    prior = norm.logpdf(sizes, 0, CHANGE_SIZE_MPE * MPE) + np.log(sizes[1] - sizes[0])
    odds = np.zeros((2, days))
    for c in range(days):
        before, after = voted[:c].sum(), voted[c:].sum()
        if before >= 3 and after >= 3:
            odds[0, c] = np.exp(log_of(lambda at, c=c: at >= c) + prior - flat).sum()
            if after >= 6:
                ramp = lambda at, c=c: np.maximum(at - c, 0) / (days - c)  # noqa: E731
                odds[1, c] = np.exp(log_of(ramp) + prior - flat).sum()
    odds *= 0.5 * RATE
    return odds.sum(), odds.sum(axis=0) / odds.sum()


def test_the_posterior_is_that_of_enumeration():
    """Every level, size, day and shape, with scipy's Student density: odds and days agree."""
    rng = np.random.default_rng(2)
    size = np.array([0.0, 0.02, 0.025, -0.03, 0.035, 0.04])
    begin = np.array([0, 10, 8, 11, 6, 10])
    error = size[:, None] * (np.arange(15) >= begin[:, None])
    one = with_both(rng, 6, 15, error=error, u=0.012, u_session=0.012, sessions=9)
    found = posterior(one)
    closer = 0
    for k in range(6):
        odds, by_day = enumerated(one, k)
        chance = odds / (1 + odds)
        if chance < 0.008:
            assert 1 / (1 + np.exp(-found.log_odds[k])) < 0.01
            continue
        closer += 1
        # Laplace's method is an expansion: within a quarter of the odds, 0.06 of the probability.
        assert found.log_odds[k] == pytest.approx(np.log(odds), abs=0.25)
        assert 1 / (1 + np.exp(-found.log_odds[k])) == pytest.approx(chance, abs=0.06)
        if found.begin[k] >= 0:
            sums = np.cumsum(by_day)
            assert by_day[found.begin[k]] > 0.7 * by_day.max()
            assert abs(found.low[k] - np.argmax(sums > 0.025)) <= 1
            assert abs(found.high[k] - np.argmax(sums >= 0.975)) <= 1
    assert closer >= 4


def test_steps_are_found_among_thousands_and_hardly_anything_else():
    """The design's own test: 4,500 connectors, 60 of which step."""
    rng = np.random.default_rng(3)
    n, days = 4500, 30
    error = np.zeros((n, days))
    size = rng.choice([-1, 1], 60) * rng.uniform(1.5, 4.0, 60) * MPE
    begin = rng.integers(8, 24, 60)
    error[:60] = size[:, None] * (np.arange(days) >= begin[:, None])
    one = with_both(rng, n, days, error=error, u=0.012, u_session=0.012, sessions=12)
    found = posterior(one, smallest=0.25 * MPE)
    alarm = found.chance >= 0.9
    assert alarm[:60].sum() >= 58
    assert alarm[60:].sum() <= 2
    assert np.abs(found.begin[:60][alarm[:60]] - begin[alarm[:60]]).mean() < 1.0
    inside = (found.low[:60] <= begin) & (begin <= found.high[:60])
    assert inside[alarm[:60]].mean() > 0.88


def test_the_probability_of_a_change_is_one():
    """Drawn from the prior itself, as many changes happen as the probabilities say."""
    rng = np.random.default_rng(4)
    n, days, share = 3000, 24, 0.2
    changes = rng.random(n) < share
    begin = rng.integers(3, days - 2, n)
    size = rng.normal(0, CHANGE_SIZE_MPE * MPE, n)
    error = np.where(changes, size, 0.0)[:, None] * (np.arange(days) >= begin[:, None])
    u = rng.uniform(0.008, 0.02, (n, days))
    noise = u * rng.standard_t(CHANGE_TAIL_DEGREES, (n, days))
    noise = np.where(rng.random((n, days)) < GARBAGE_SHARE, rng.normal(0, 0.4, (n, days)), noise)
    # Steps only were drawn, so they have the whole rate.
    rate = 2.0 * share / (1.0 - share) / (days - 5)
    found = posterior(history(error + noise, u**-2.0), rate=rate)
    chance = 1 / (1 + np.exp(-found.log_odds))
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.9), (0.9, 1.01)):
        mine = (chance >= low) & (chance < high)
        expected, really = chance[mine].mean(), changes[mine].mean()
        assert really == pytest.approx(expected, abs=0.05 + 2 / np.sqrt(mine.sum()))


def test_a_witness_of_one_side_only_says_nothing():
    """Its level is its own: it neither votes for a change nor against one."""
    rng = np.random.default_rng(5)
    n, days = 20, 30
    spread = np.full((n, days), 0.006)
    metered = rng.normal(0, spread)
    metered[:, 20:] += 0.04
    alone = posterior(history(metered, spread**-2.0))
    who = np.repeat(np.arange(n), 40)
    at = rng.uniform(20.5, 30, who.size)
    late = votes_of(who, at, rng.normal(0, 0.004, who.size), np.full(who.size, 0.004**2))
    beside = posterior(history(metered, spread**-2.0, late))
    assert (alone.chance > 0.99).all()
    assert (beside.chance > 0.99).all()
    assert np.abs(beside.log_odds - alone.log_odds).max() < 1.0
    assert beside.size == pytest.approx(alone.size, abs=0.002)


def test_one_wild_day_or_session_is_no_change_and_hides_none():
    rng = np.random.default_rng(6)
    metered, precision = series(rng, 400, 30)
    metered[:, 17] += 0.5
    metered[:100, 22:] += 0.02
    found = posterior(history(metered, precision))
    assert (found.chance[:100] > 0.9).mean() > 0.97
    assert np.median(found.begin[:100]) == 22
    assert not (found.chance[100:] > 0.1).any()


def test_two_days_are_no_change():
    metered, precision = np.zeros((1, 20)), np.full((1, 20), 1e5)
    metered[0, -2:] = 0.3
    assert posterior(history(metered, precision)).chance[0] < 0.01


def test_a_change_too_small_to_matter_counts_as_none():
    rng = np.random.default_rng(7)
    metered, precision = series(rng, 50, 30, u=0.0005)
    metered[:, 15:] += 0.003
    one = history(metered, precision)
    assert (posterior(one).chance > 0.99).all()
    assert (posterior(one, smallest=0.005).chance < 0.01).all()


def test_a_drift_is_told_from_a_step():
    rng = np.random.default_rng(8)
    metered, precision = series(rng, 600, 30)
    metered[:200] += 0.002 * np.maximum(np.arange(30) + 0.5 - 5, 0)
    metered[200:400, 18:] += 0.02
    found = posterior(history(metered, precision))
    assert (found.chance[:400] > 0.9).all()
    assert found.is_drift[:200].mean() > 0.97
    assert not found.is_drift[200:400].any()
    assert np.median(found.begin[:200]) == pytest.approx(5, abs=1)
    assert ((found.low <= 5) & (found.high >= 5))[:200].mean() > 0.88
    z = (found.size[:200] - 0.05) / np.sqrt(found.variance[:200])
    assert np.mean(np.abs(z) < 1.96) > 0.85


def test_of_several_changes_the_last_one_counts():
    rng = np.random.default_rng(9)
    metered, precision = series(rng, 200, 45)
    column = np.arange(45)
    metered += 0.03 * ((column >= 12) & (column < 30))
    metered[:100] -= 0.02 * (column >= 38)
    found = posterior(history(metered, precision))
    assert (found.begin[:100] == 38).mean() > 0.9
    assert (found.begin[100:] == 30).mean() > 0.9
    true = np.repeat([-0.02, -0.03], 100)
    z = (found.size - true) / np.sqrt(found.variance)
    assert np.mean(np.abs(z) < 1.96) > 0.88


def test_exact_segmentation_by_other_code_finds_the_same_days():
    """Normal noise, no garbage: ruptures' dynamic programming with the same number of changes."""
    rng = np.random.default_rng(10)
    n, days = 60, 40
    metered = rng.normal(0, 0.004, (n, days))
    metered[:, 11:] += 0.02
    metered[:, 27:] -= 0.03
    found = posterior(history(metered, np.full((n, days), 0.004**-2)))
    same = 0
    for k in range(n):
        ends = ruptures.Dynp(model="l2", jump=1, min_size=3).fit(metered[k]).predict(n_bkps=2)
        same += ends[1] == found.begin[k]
    assert same >= 57


def test_a_possible_change_moves_what_the_estimate_does_not_hold_yet():
    """Half the weight lies after the step: the estimate has gone half of the way."""
    metered, precision = np.zeros((1, 20)), np.full((1, 20), 0.012**-2)
    metered[0, 10:] = 0.026
    one = posterior(history(metered, precision))
    assert 0.02 < one.first.chance[0] < 0.999
    assert one.first.shift[0] == pytest.approx(0.013, abs=0.003)


def test_how_the_city_is_cut_changes_nothing(monkeypatch):
    rng = np.random.default_rng(11)
    error = np.zeros((90, 25))
    error[::9, 14:] = 0.03
    one = with_both(rng, 90, 25, error=error)
    whole = posterior(one)
    monkeypatch.setattr("chargewatch.risk.change_posterior.CONNECTORS_AT_ONCE", 7)
    parts = posterior(one)
    assert (whole.begin >= 0).sum() >= 10
    for name in ("log_odds", "chance", "begin", "low", "high", "size", "variance"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-9, abs=1e-12)
    assert parts.session_fit == pytest.approx(whole.session_fit, nan_ok=True)
    assert parts.metered_fit == pytest.approx(whole.metered_fit, nan_ok=True)


def test_without_days_or_data_nothing_is_known():
    for days in (0, 5):
        found = posterior(history(np.zeros((3, days)), np.zeros((3, days))))
        assert (found.chance == 0).all()
        assert (found.begin == -1).all()
        assert not np.isnan(found.log_odds).any()
