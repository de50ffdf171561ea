"""What of a state a nightly run can't go on from, and how that part is made again.

A state is closed up to a day. It is out of date for connectors of which the registry says something
else now, that readings or sessions of closed days came for since, or that are heard again after a
silence, which fills in the days between. Their part, and that of all who share a feeder with them,
is made again from all of the window, so that a night comes to what a full run would say.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import numpy as np

from chargewatch.domain.arrays import Bools, Ints
from chargewatch.domain.times import DAY_S, SLOT_S
from chargewatch.risk.engine import advance
from chargewatch.risk.feeders.blocks import feeder_layout, with_feeders
from chargewatch.risk.feeders.coverage import NEVER
from chargewatch.risk.memory import Arrays, outdated
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.run_inputs import DeclaredChanges
from chargewatch.risk.splice import other_sessions, spliced
from chargewatch.runs.load import Loaded, blocks, make_sessions, read_block
from chargewatch.runs.plan import RunPlan
from chargewatch.storage.bulk import seconds_of

MOST_RENEWED_SHARE = 0.1
"""When more of the connectors than this are out of date, a full run is quicker."""
LEAST_FOR_FULL = 1_000
"""So many are made again in any case."""


@dataclass(frozen=True, kw_only=True)
class Outdated:
    """Connectors whose part of a state is out of date, shape (n,), and why."""

    connectors: Bools  # with all that share a feeder with one
    registry: int  # number of those that the registry has changed for
    readings: int  # that readings of closed days came for
    sessions: int  # that sessions of closed days came for, or went

    @property
    def is_too_much(self) -> bool:
        """Whether a full run is quicker."""
        count = int(self.connectors.sum())
        return count > max(LEAST_FOR_FULL, MOST_RENEWED_SHARE * self.connectors.size)

    @property
    def text(self) -> str:
        """The causes, for people."""
        causes = {
            "the registry says something else": self.registry,
            "late readings": self.readings,
            "late sessions": self.sessions,
        }
        told = [f"{cause} of {count}" for cause, count in causes.items() if count]
        return f"{int(self.connectors.sum())} connectors: {', '.join(told)}"


def _numbered(numbers: Ints, wanted: set[int]) -> Bools:
    return np.isin(numbers, np.array(sorted(wanted), np.int64))


def _heard_again(
    state: Arrays, kind: str, numbers: Ints, *, last_s: Any, closed_slot: int
) -> Bools:
    """Return the instruments that were silent at the state's end and have told something since.

    Of one that the state never heard nothing is in it: what comes of closed days is late readings.
    """
    heard = state["heard" if kind == "connector" else "meter_heard"]
    silent = set(state[kind][(heard < closed_slot) & (heard != NEVER)].tolist())
    again = np.nan_to_num(last_s, nan=-np.inf) >= closed_slot * SLOT_S
    return np.asarray(_numbered(numbers, silent) & again)


def _late_readings(loaded: Loaded, plan: RunPlan, state: Arrays) -> Bools:
    """Return the connectors that readings came for, or for their meters, of closed days."""
    inputs, closed_slot = loaded.inputs, int(state["clock"][0])
    closed_day = closed_slot * SLOT_S // DAY_S
    late = {n for n, day in plan.late.connectors.items() if day < closed_day}
    own = _numbered(inputs.fleet.number, late)
    own |= _heard_again(
        state,
        "connector",
        inputs.fleet.number,
        last_s=loaded.last_reading_s,
        closed_slot=closed_slot,
    )
    late = {n for n, day in plan.late.meters.items() if day < closed_day}
    meters = _numbered(inputs.references.number, late)
    meters |= _heard_again(
        state,
        "meter",
        inputs.references.number,
        last_s=loaded.last_meter_s,
        closed_slot=closed_slot,
    )
    for meter in np.flatnonzero(meters).tolist():
        first, last = inputs.references.member_start[meter : meter + 2]
        own[inputs.references.members[first:last]] = True
    return own


def _late_sessions(loaded: Loaded, state: Arrays, config: EngineConfig) -> Bools:
    """Return the connectors that have other sessions of closed days than the state knows."""
    _, until_s, _ = state["clock"]
    since_s = max(loaded.inputs.from_s, until_s - config.drift_days * DAY_S)
    ended = seconds_of(loaded.sessions["ended_at"])
    records = loaded.sessions[(ended > since_s) & (ended <= until_s)]
    inputs = replace(loaded.inputs, sessions=make_sessions(loaded.registry, records))
    return other_sessions(state, inputs, since_s=since_s)


def find_outdated(loaded: Loaded, plan: RunPlan, state: Arrays, config: EngineConfig) -> Outdated:
    """Return the connectors that a state can't be gone on from."""
    inputs = loaded.inputs
    registry = outdated(state, inputs)
    readings = _late_readings(loaded, plan, state) & ~registry
    sessions = _late_sessions(loaded, state, config) & ~registry & ~readings
    layout = feeder_layout(inputs.fleet, inputs.references, as_of_s=inputs.as_of_s)
    return Outdated(
        connectors=with_feeders(layout, registry | readings | sessions),
        registry=int(registry.sum()),
        readings=int(readings.sum()),
        sessions=int(sessions.sum()),
    )


async def renewed(
    connection: asyncpg.Connection,
    loaded: Loaded,
    state: Arrays,
    *,
    connectors: Bools,
    config: EngineConfig,
) -> Arrays:
    """Return a state with the part of some connectors made again from all of the window."""
    first = datetime.fromtimestamp(loaded.inputs.from_s, UTC)
    closed = datetime.fromtimestamp(int(state["clock"][0]) * SLOT_S, UTC)
    part = _part_of(loaded, np.flatnonzero(connectors))
    again: Arrays | None = None
    for begin, end in blocks(first, closed, connectors=part.inputs.fleet.size):
        inputs = await read_block(connection, part, first=begin, last=end)
        again = await asyncio.to_thread(advance, inputs, config=config, state=again)
    if again is None:
        return state
    return await asyncio.to_thread(
        spliced, state, again, of_other=connectors, inputs=loaded.inputs, config=config
    )


def _rows(columns: Any, rows: Ints) -> Any:
    """Return some rows of a frozen dataclass all of whose fields are columns."""
    found = {
        name: values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]
        for name, values in vars(columns).items()
    }
    return type(columns)(**found)


def _part_of(loaded: Loaded, connectors: Ints) -> Loaded:
    """Return what is loaded of some connectors (rows, ascending), and the meters that count there.

    All that share a feeder must be among them.
    """
    inputs, registry = loaded.inputs, loaded.registry
    fleet, references = inputs.fleet, inputs.references
    layout = feeder_layout(fleet, references, as_of_s=inputs.as_of_s)
    used = np.zeros(references.size, dtype=bool)
    for group in layout.groups:
        used[group.meter] = np.isin(group.member, connectors).any(axis=1)
    series = layout.direct_meter[connectors]
    used[series[series >= 0]] = True
    meters = np.flatnonzero(used)
    place = np.full(fleet.size, -1, dtype=np.int64)
    place[connectors] = np.arange(connectors.size)
    members = [
        place[references.members[references.member_start[m] : references.member_start[m + 1]]]
        for m in meters.tolist()
    ]
    members = [rows[rows >= 0] for rows in members]
    anchors = inputs.anchors
    mine = np.flatnonzero(place[anchors.connector] >= 0)
    sessions = loaded.sessions[np.isin(loaded.sessions["connector_id"], fleet.number[connectors])]
    return replace(
        loaded,
        inputs=replace(
            inputs,
            fleet=_rows(fleet, connectors),
            references=replace(
                # Members are rows of their own, put in below.
                _rows(
                    replace(references, member_start=references.number, members=references.number),
                    meters,
                ),
                member_start=np.cumsum([0, *(rows.size for rows in members)]),
                members=np.concatenate([*members, np.zeros(0, dtype=np.int64)]),
            ),
            anchors=replace(_rows(anchors, mine), connector=place[anchors.connector[mine]]),
            declared=DeclaredChanges.none(),
        ),
        registry=replace(registry, connector_ids=registry.connector_ids[connectors]),
        sessions=sessions,
        meter_ids=loaded.meter_ids[meters],
        last_reading_s=loaded.last_reading_s[connectors],
        last_meter_s=loaded.last_meter_s[meters],
        valid_until_s=loaded.valid_until_s[connectors],
        is_part=True,
    )
