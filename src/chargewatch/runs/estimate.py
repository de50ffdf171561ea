"""The engine's part of a run: all days but the last block are added, the last one is judged."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import asyncpg
import numpy as np

from chargewatch.domain.arrays import Ints
from chargewatch.risk.engine import Course, advance, assessed
from chargewatch.risk.memory import Arrays, closed_until_s
from chargewatch.risk.rebuilding import History, part_of
from chargewatch.risk.results import EngineConfig, RunResult
from chargewatch.risk.run_inputs import RunInputs
from chargewatch.runs.apart import each_apart, inputs_of
from chargewatch.runs.context import RunContext
from chargewatch.runs.find_station_signals import LateEnergy
from chargewatch.runs.load import Loaded, blocks, read_block, read_some
from chargewatch.signals.stations import LeftOut


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """How far the engine is when all blocks of days but the last are added."""

    stations: Ints  # all of them
    state: Arrays | None  # None: nothing was added yet
    last: RunInputs  # of the last block
    late: LateEnergy  # of all blocks
    left: list[LeftOut]  # stations that a block could not be added for


async def add_blocks(
    connection: asyncpg.Connection, context: RunContext, loaded: Loaded, *, state: Arrays | None
) -> Advanced:
    """Add the days that this run closes to the engine's state, and read those that stay open.

    The next block is read while the one before it is added.
    """
    everywhere = np.arange(len(loaded.registry.places))
    size = loaded.inputs.fleet.size
    late, left = LateEnergy.none(size), list[LeftOut]()
    closed = datetime.fromtimestamp(closed_until_s(context.as_of.timestamp()), UTC)
    closed = max(context.plan.first, closed)
    parts = [
        *blocks(context.plan.first, closed, connectors=size),
        (closed, context.as_of),
    ]
    inputs = await read_block(connection, loaded, first=parts[0][0], last=parts[0][1])
    for (_, done), (first, last) in pairwise(parts):
        late = late.with_intervals(inputs.connector_intervals, loaded.valid_until_s)
        (state, out), inputs = await asyncio.gather(
            asyncio.to_thread(_add_block, inputs, everywhere, config=context.config, state=state),
            read_block(connection, loaded, first=first, last=last),
        )
        left += out
        context.say(f"days up to {done.date()} of {context.as_of.date()}")
    late = late.with_intervals(inputs.connector_intervals, loaded.valid_until_s)
    return Advanced(stations=everywhere, state=state, last=inputs, late=late, left=left)


def _add_block(
    inputs: RunInputs, stations: Ints, *, config: EngineConfig, state: Arrays | None
) -> tuple[Arrays, list[LeftOut]]:
    return each_apart(
        "estimate",
        stations,
        lambda part: advance(_part(inputs, part), config=config, state=state),
        costly=True,
    )


def history_of(
    connection: asyncpg.Connection, loaded: Loaded, loop: asyncio.AbstractEventLoop
) -> History:
    """Return what gives the engine, in a thread of its own, the intervals of some feeders.

    Where: connection: used by nobody else, and open until the engine is done.
    """

    def history(meters: Ints, connectors: Ints, from_s: float) -> RunInputs:
        reading = read_some(connection, loaded, meters=meters, connectors=connectors, from_s=from_s)
        whole = asyncio.run_coroutine_threadsafe(reading, loop).result()
        return part_of(whole, meters, connectors, from_s)

    return history


def estimate(
    advanced: Advanced, *, config: EngineConfig, history: History
) -> tuple[tuple[RunResult, Course], list[LeftOut]]:
    """Return the engine's result of all stations that it can be had for, how, and the others."""
    return each_apart(
        "estimate",
        advanced.stations,
        lambda part: assessed(
            _part(advanced.last, part), config=config, state=advanced.state, history=history
        ),
        costly=True,
    )


def _part(inputs: RunInputs, stations: Ints) -> RunInputs:
    """Return the inputs of some stations; the inputs themselves when those are all."""
    whole = np.isin(inputs.fleet.station, stations).all()
    whole &= np.isin(inputs.references.station, stations).all()
    return inputs if whole else inputs_of(inputs, stations)
