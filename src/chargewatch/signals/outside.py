"""Which energy flowed outside any session."""

from __future__ import annotations

from functools import partial

import numpy as np

from chargewatch.domain.arrays import Bools
from chargewatch.domain.times import DAY_S
from chargewatch.signals.registers import CHARGING_FRACTION, Pairs, time_keys
from chargewatch.signals.rule import SIMULATED, Limit
from chargewatch.signals.sessions import BilledSessions

LONGEST_PAIR_S = Limit(
    1_800.0, "s", "readings farther apart say nothing of what was between", SIMULATED
)
IDLE_WH_PER_DAY = Limit(50.0, "Wh", "energy outside any session in a day", SIMULATED)


def _overlaps_session(pairs: Pairs, sessions: BilledSessions, *, base_s: float) -> Bools:
    """Return which pairs share time with a finished session whose times can be."""
    sessions = sessions.take(np.flatnonzero(~sessions.is_endless))
    if sessions.connector.size == 0:
        return np.zeros(pairs.valid.size, bool)
    key = partial(time_keys, base_s=base_s)
    # The latest end among the sessions that begin before the pair ends, per connector.
    ends = key(sessions.connector, sessions.ended_s)
    latest = np.maximum.accumulate(ends)
    k = np.searchsorted(key(sessions.connector, sessions.started_s), key(pairs.row, pairs.end_s))
    found = np.where(k > 0, latest[np.maximum(k - 1, 0)], -1)
    return np.asarray(found > key(pairs.row, pairs.start_s))


def may_be_charging(pairs: Pairs) -> Bools:
    """Return pairs whose step is what a charging vehicle could take."""
    rate = pairs.step_wh * 3600 / np.where(pairs.span_s > 0, pairs.span_s, np.inf)
    rated = np.where(np.isnan(pairs.rated_w), np.inf, pairs.rated_w)
    power = np.fmax(pairs.readings.power_w[1:], pairs.readings.power_w[:-1])
    least = np.where(np.isfinite(rated), CHARGING_FRACTION.value * rated, 100.0)
    return np.asarray((rate > least) & ((power > least) | np.isnan(power)))


def outside_sessions(
    pairs: Pairs,
    sessions: BilledSessions,
    *,
    complete: Bools,
    as_of_s: float,
    base_s: float,
) -> Bools:
    """Return pairs that are outside any session.

    Readings that name a session are inside it, even when its record is missing. A span of more
    than half an hour counts only where no message of the station is missing. After a connector's
    last finished session, charging of the last day may be a session still running.
    """
    named = pairs.readings.session != 0
    dense = (pairs.span_s <= LONGEST_PAIR_S.value) | complete[pairs.row]
    outside = pairs.sound & ~named[1:] & ~named[:-1] & dense
    outside &= ~_overlaps_session(pairs, sessions, base_s=base_s)
    return np.asarray(outside & ~_still_running(pairs, as_of_s=as_of_s))


def _still_running(pairs: Pairs, *, as_of_s: float) -> Bools:
    """Return pairs of charges that go on, without a pause, on the last day or as readings end."""
    charging = may_be_charging(pairs) & pairs.valid
    rows = np.flatnonzero(charging)
    goes_on = np.zeros(rows.size, bool)
    goes_on[1:] = (np.diff(rows) == 1) & (np.diff(pairs.row[rows]) == 0)
    charge = np.cumsum(~goes_on) - 1
    latest = np.full(int(charge.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(latest, charge, pairs.end_s[rows])
    is_last = np.append(np.diff(pairs.readings.connector[1:]) != 0, True)[: pairs.valid.size]
    is_last &= pairs.span_s <= LONGEST_PAIR_S.value
    latest[charge[is_last[rows]]] = np.inf
    result = np.zeros(charging.size, bool)
    result[rows] = (latest > as_of_s - DAY_S)[charge]
    return result
