"""A run judges each station alone: one whose data stop a step is left out of it, and told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import asyncpg
import numpy as np

from chargewatch.domain.arrays import Bools, Ints
from chargewatch.errors import ChargewatchError
from chargewatch.risk.run_inputs import Intervals, RunInputs
from chargewatch.signals.stations import LeftOut

log = logging.getLogger("chargewatch.runs")

MOST_LEFT_OUT = 50
"""A step that fails for more stations than this, and for more than half of all, fails for a reason
that lies in no station."""

_NOT_OF_THE_DATA = (
    ChargewatchError,
    MemoryError,
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)

Result = TypeVar("Result")
Columns = TypeVar("Columns")


def is_of_the_data(error: BaseException) -> bool:
    """Return whether an error may come from what was computed with, not from the machine."""
    return isinstance(error, Exception) and not isinstance(error, _NOT_OF_THE_DATA)


def each_apart(
    step: str, stations: Ints, attempt: Callable[[Ints], Result], *, costly: bool = False
) -> tuple[Result, list[LeftOut]]:
    """Return what a step makes of all stations that it can be done for, and the others.

    Only when the step fails is it tried for halves, down to single stations; then it is done once
    more for all the others together.

    Args:
        step: name of the step, for people.
        stations: numbers of stations, ascending.
        attempt: does the step for some of the stations, and nothing else.
        costly: a try for few stations takes as long as for many: give up after MOST_LEFT_OUT.

    Raises: what the step raises when that is not due to single stations' data.
    """
    try:
        return attempt(stations), []
    except Exception as exc:
        if not is_of_the_data(exc):
            raise
        most = MOST_LEFT_OUT if costly else max(MOST_LEFT_OUT, stations.size // 2)
        culprits = _culprits(stations, attempt, most=most)
        if not culprits:
            raise
        # The whole trace of one is what mends it; of the others the names are enough.
        log.error("step_failed step=%s stations=%d", step, len(culprits), exc_info=exc)
    rest = np.setdiff1d(stations, np.array(sorted(culprits), np.int64))
    left = [
        LeftOut(station, step, f"{type(error).__name__}: {error}"[:200])
        for station, error in sorted(culprits.items())
    ]
    return attempt(rest), left


def _culprits(
    stations: Ints, attempt: Callable[[Ints], object], *, most: int
) -> dict[int, Exception]:
    """Return the stations that fail alone; none when there are too many, or they fail together."""
    found: dict[int, Exception] = {}
    waiting = [stations]
    while waiting:
        part = waiting.pop()
        if part.size == 0:
            continue
        try:
            attempt(part)
        except Exception as exc:
            if not is_of_the_data(exc):
                raise
            if part.size == 1:
                found[int(part[0])] = exc
                if len(found) > most:
                    return {}
            else:
                middle = part.size // 2
                waiting += [part[:middle], part[middle:]]
    return found


def inputs_of(inputs: RunInputs, stations: Ints) -> RunInputs:
    """Return the inputs with intervals, sessions and verifications of some stations only."""
    of_connector = np.isin(inputs.fleet.station, stations)
    of_meter = np.isin(inputs.references.station, stations)
    sessions, anchors = inputs.sessions, inputs.anchors
    return replace(
        inputs,
        connector_intervals=_intervals_of(inputs.connector_intervals, of_connector),
        meter_intervals=_intervals_of(inputs.meter_intervals, of_meter),
        sessions=rows_of(sessions, of_connector[sessions.connector]),
        anchors=rows_of(anchors, of_connector[anchors.connector]),
    )


def _intervals_of(intervals: Intervals, wanted: Bools) -> Intervals:
    return intervals.take(np.flatnonzero(wanted[intervals.instrument]))


def rows_of(columns: Columns, wanted: Bools) -> Columns:
    """Return the wanted rows of a frozen dataclass all of whose fields are columns."""
    return type(columns)(**{name: values[wanted] for name, values in vars(columns).items()})
