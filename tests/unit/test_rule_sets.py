"""A rule set's facts are obeyed: its days, and the limit that it sets for clocks."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np

from chargewatch.domain.mpe import rule_set, rule_sets
from chargewatch.signals.rules.clock_skew import clock_findings
from chargewatch.signals.stations import Clocks, Messages

CN = rule_set("CN-2022")


def test_a_rule_set_holds_from_its_first_to_its_last_day() -> None:
    ended = replace(CN, valid_from=date(2022, 12, 28), valid_until=date(2026, 6, 30))
    days = [date(2022, 12, 27), date(2022, 12, 28), date(2026, 6, 30), date(2026, 7, 1)]
    assert [ended.in_force(day) for day in days] == [False, True, True, False]
    assert CN.in_force(date(2099, 1, 1))


def test_the_clock_limit_of_the_rules_is_that_of_the_checks() -> None:
    clocks = Clocks(station=np.array([0]), at_s=np.array([1.8e9]), offset_s=np.array([60.0]))
    nothing = Messages(station=np.empty(0, np.int64), sent_s=np.empty(0), received_s=np.empty(0))
    found = {
        limit_s: clock_findings(nothing, clocks, clock_limit_s=limit_s)
        for limit_s in (CN.clock_limit_s, 30.0)
    }
    assert found[180.0] == []
    assert [finding.limit for finding in found[30.0]] == [30.0]


def test_every_rule_set_that_ships_names_its_regulation() -> None:
    assert all(rules.regulation and rules.mpe for rules in rule_sets().values())
