"""A step that fails for one station is done for the others."""

import numpy as np
import pytest

from chargewatch.errors import DatabaseError
from chargewatch.runs.apart import MOST_LEFT_OUT, each_apart
from chargewatch.signals.registry import findings_of
from chargewatch.signals.stations import NotJudged

STATIONS = np.arange(40)


def failing_for(*bad, error=ZeroDivisionError):
    calls = []

    def attempt(stations):
        calls.append(stations.size)
        if set(stations.tolist()) & set(bad):
            raise error("odd data")
        return stations.tolist()

    return attempt, calls


def test_a_step_without_trouble_is_done_once():
    attempt, calls = failing_for()
    assert each_apart("step", STATIONS, attempt) == (STATIONS.tolist(), [])
    assert calls == [40]


def test_the_stations_that_fail_are_left_out_and_named():
    attempt, calls = failing_for(0, 17, 39)
    result, left = each_apart("step", STATIONS, attempt)
    assert result == [k for k in range(40) if k not in (0, 17, 39)]
    assert [item.station for item in left] == [0, 17, 39]
    assert left[0].error == "ZeroDivisionError: odd data"
    assert len(calls) < 45
    finding = findings_of(NotJudged(left=left, as_of_s=86_400.0 * 20_000))[1]
    assert (finding.code, finding.kind, finding.row) == ("not_judged", "station", 17)
    assert "step" in finding.detail


@pytest.mark.parametrize("error", [MemoryError, OSError, DatabaseError])
def test_the_machines_own_troubles_are_nobodys_data(error):
    attempt, calls = failing_for(3, error=error)
    with pytest.raises(error):
        each_apart("step", STATIONS, attempt)
    assert calls == [40]


def test_what_fails_for_everybody_lies_in_no_station():
    stations = np.arange(MOST_LEFT_OUT + 10)
    attempt, _ = failing_for(*stations.tolist())
    with pytest.raises(ZeroDivisionError):
        each_apart("step", stations, attempt)


def test_one_operator_with_many_bad_stations_stops_no_city():
    stations = np.arange(1_000)
    bad = range(200)
    attempt, _ = failing_for(*bad)
    result, left = each_apart("step", stations, attempt)
    assert (len(result), len(left)) == (800, 200)
    with pytest.raises(ZeroDivisionError):
        each_apart("step", stations, attempt, costly=True)


def test_what_fails_only_together_lies_in_no_station():
    def attempt(stations):
        if stations.size == 40:
            raise ZeroDivisionError("only the whole")
        return stations

    with pytest.raises(ZeroDivisionError, match="only the whole"):
        each_apart("step", STATIONS, attempt)
