"""Piles that err only in a situation, told by the vehicles that charge there alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from engine_city import DAY, make_city

from chargewatch.risk.session_situations import suspects_by_sessions, told_by_sessions, travelled
from chargewatch.risk.vehicles import session_rows

PILE = 3
BY = 0.08


def test_sessions_alone_tell_the_hours_in_which_a_pile_errs() -> None:
    city = make_city(11, stations=3, size=6, offenders=0, sessions_per_day=5.0)
    inputs = city.inputs
    n = inputs.fleet.size

    def in_hours(at_s: np.ndarray) -> np.ndarray:
        return (at_s % DAY >= 14 * 3600.0) & (at_s % DAY < 20 * 3600.0)

    own, sessions = inputs.connector_intervals, inputs.sessions
    wrong = (own.instrument == PILE) & in_hours(own.slot * 900.0)
    middle = 0.5 * (sessions.started_s + sessions.ended_s)
    off = (sessions.connector == PILE) & in_hours(middle)
    told = replace(own, energy_wh=np.where(wrong, own.energy_wh * (1 + BY), own.energy_wh))
    energy = np.where(off, sessions.energy_wh * (1 + BY), sessions.energy_wh)
    cheated = replace(
        inputs, connector_intervals=told, sessions=replace(sessions, energy_wh=energy)
    )
    for part, expected in ((inputs, []), (cheated, [(PILE, "hours")])):
        rows = session_rows(part.sessions, part.fleet, intervals=part.connector_intervals)
        known = travelled(rows, connectors=n)
        odd = suspects_by_sessions(known, part.fleet, utc_offset_s=0.0)
        assert np.flatnonzero(odd).tolist() == [k for k, _ in expected]
        found = told_by_sessions(
            known,
            part,
            np.arange(n),
            mpe=part.fleet.mpe,
            lone=np.ones(n, dtype=bool),
            utc_offset_s=0.0,
        )
        assert [(one.connector, one.window.code) for one in found.lone] == expected
        for one in found.lone:
            assert abs(abs(one.difference) - np.log1p(BY)) < 4 * one.u + 0.02
