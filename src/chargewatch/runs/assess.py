"""One risk run, from the rollups to the pages: refresh, load, find, estimate, decide, save."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import numpy as np

from chargewatch import __version__
from chargewatch.domain.arrays import Ints
from chargewatch.domain.mpe import rule_set
from chargewatch.domain.signal import Signal
from chargewatch.domain.times import DAY_S
from chargewatch.risk.engine import advance, assess
from chargewatch.risk.memory import Arrays
from chargewatch.risk.results import EngineConfig, RunResult
from chargewatch.risk.run_inputs import RunInputs
from chargewatch.runs.apart import (
    LeftOut,
    each_apart,
    inputs_of,
    is_of_the_data,
    left_out_findings,
)
from chargewatch.runs.decide import decide, tiers
from chargewatch.runs.find_register_signals import Say
from chargewatch.runs.find_signals import find_signals
from chargewatch.runs.find_station_signals import LateEnergy
from chargewatch.runs.load import Loaded, blocks, load, read_block
from chargewatch.runs.plan import Plan, make_plan, mark_late, scan_of, state_of
from chargewatch.runs.record import assessment_values, data_span, result_digest, run_summary
from chargewatch.runs.rollups import refresh_rollups
from chargewatch.runs.state import pack_state
from chargewatch.settings import Settings
from chargewatch.signals.findings import RULE_VERSION, in_order, merge_findings
from chargewatch.storage import pile_index
from chargewatch.storage.archive.window import Archive, open_archive, session_names
from chargewatch.storage.database import Database
from chargewatch.storage.migrate import require_newest_schema
from chargewatch.storage.runs import inputs as load_store
from chargewatch.storage.runs import results as store
from chargewatch.storage.runs.signals import store_signals

log = logging.getLogger("chargewatch.runs")

WINDOW_DAYS = 90.0


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What a run did, for people and for `--json`."""

    run_id: int
    mode: str
    as_of: datetime
    data_from: datetime
    connectors: int
    tiers: Mapping[str, int]
    expected_false_flags: float
    expected_missed: float
    signals: Mapping[str, int]
    result_digest: str
    seconds: Mapping[str, float]
    summary: Mapping[str, Any]


def _ignore(_line: str) -> None:
    """Take a line of progress and drop it."""


def configuration_of(settings: Settings, *, days: float) -> dict[str, Any]:
    """Return all that steers a run besides its data."""
    config = EngineConfig(half_life_days=settings.half_life_days)
    return {
        "engine": asdict(config),
        "mpe_rules": settings.mpe_rules,
        "time_zone": settings.time_zone,
        "signal_rules": RULE_VERSION,
        "window_days": days,
    }


async def run_assessment(
    database: Database,
    settings: Settings,
    *,
    as_of: datetime | None = None,
    full: bool = False,
    days: float = WINDOW_DAYS,
    archive: Path | None = None,
    say: Say = _ignore,
) -> RunOutcome:
    """Do one risk run and return what it found; pages see it when it is complete.

    Where:
        as_of: only data up to this time count; default: now.
        full: recompute the window instead of going on from the last run.
        days: length of the window.
        archive: folder of exported days; rollups and sessions come from it where it is current.

    Raises: DatabaseError when another run is going on or `as_of` lies in the future;
    InputFileError for a damaged file of the archive.
    """
    as_of = (as_of or datetime.now(UTC)).astimezone(UTC)
    await require_newest_schema(database)
    await store.require_not_ahead(database, as_of)
    async with store.only_run(database):
        clock = _Stopwatch()
        late: dict[int, int] = {}
        say("bringing the rollups up to date")
        try:
            report = await refresh_rollups(database, first_days=late)
        except BaseException:
            await asyncio.shield(mark_late(database, late))
            raise
        clock.lap("rollups")
        configuration = configuration_of(settings, days=days)
        while True:
            plan = await make_plan(
                database, as_of, full=full, days=days, late=late, config=configuration
            )
            run_id = await store.begin_run(
                database,
                mode=plan.mode,
                as_of=as_of,
                version=__version__,
                configuration=configuration,
            )
            say(f"run {run_id}, {plan.mode}{f' ({plan.reason})' if plan.reason else ''}")
            try:
                return await _run(
                    database,
                    settings,
                    run_id,
                    as_of=as_of,
                    plan=plan,
                    no_rollups=report.failed,
                    folder=archive,
                    clock=clock,
                    say=say,
                )
            except BaseException as exc:
                # Whatever ended it, cancellation too: the run must not stay "running".
                await asyncio.shield(
                    store.fail_run(database, run_id, error=f"{type(exc).__name__}: {exc}")
                )
                if plan.mode == "full" or not is_of_the_data(exc):
                    await asyncio.shield(mark_late(database, late))
                    raise
                # What an earlier run left may be at fault: every later night would fail with it.
                log.exception("nightly_run_failed run_id=%d", run_id)
                say(f"run {run_id} failed ({type(exc).__name__}: {exc}); computing in full")
                full = True


async def _run(
    database: Database,
    settings: Settings,
    run_id: int,
    *,
    as_of: datetime,
    plan: Plan,
    no_rollups: Sequence[tuple[str, int]],
    folder: Path | None,
    clock: _Stopwatch,
    say: Say,
) -> RunOutcome:
    zone, rules = ZoneInfo(settings.time_zone), rule_set(settings.mpe_rules)
    config = EngineConfig(half_life_days=settings.half_life_days)
    async with load_store.snapshot(database) as connection:
        say("loading")
        archive = None
        if folder is not None:
            first = plan.window_first
            archive = await open_archive(connection, folder, first=first, last=as_of)
            for note in archive.notes:
                say(f"archive: {note}")
        loaded = await load(
            connection,
            first=plan.window_first,
            as_of=as_of,
            rules=rules,
            zone=zone,
            archive=archive,
        )
        state = state_of(plan, loaded)
        left = _without_rollups(loaded, no_rollups)
        inputs, engine_state, late = await _advance(
            connection, loaded, plan, state.engine, as_of=as_of, config=config, left=left, say=say
        )
        clock.lap("load")
        say(f"checking the records and estimating {loaded.inputs.fleet.size} connectors")
        # Neither needs the other: the engine computes while signals wait for the database.
        estimate = asyncio.create_task(
            asyncio.to_thread(
                each_apart,
                "estimate",
                np.arange(len(loaded.registry.places)),
                lambda part: assess(_part(inputs, part), config=config, state=engine_state),
                costly=True,
            )
        )
        try:
            found = await find_signals(
                connection,
                loaded,
                scan_of(plan, as_of),
                prior=state.findings,
                usual_gap_s=state.usual_gap_s,
                verified=state.verified,
                late=late,
                zone=zone,
                say=say,
            )
            signals = await _with_session_names(
                connection, archive, merge_findings(found.findings, loaded.registry.names)
            )
        except BaseException:
            estimate.cancel()
            raise
    for remark in archive.remarks() if archive else ():
        say(remark)
    clock.lap("signals")
    result, out = await estimate
    clock.lap("engine")
    untold = left_out_findings([*found.left, *left, *out], as_of_s=as_of.timestamp())
    signals = in_order([*signals, *merge_findings(untold, loaded.registry.names)])
    days = (as_of - plan.window_first).total_seconds() / DAY_S
    packed, assessments = await asyncio.gather(
        asyncio.to_thread(
            pack_state,
            loaded.registry,
            engine=result.state,
            findings=found.findings,
            verified=found.verified,
            usual_gap_s=found.cadence.usual_gap_s,
        ),
        asyncio.to_thread(
            decide, loaded, result, signals, days=days, default_price=config.energy_price
        ),
    )
    kept = _heard(loaded, result)
    shown = [assessments[row] for row in kept]
    digest = await asyncio.to_thread(result_digest, shown, signals)
    clock.lap("decide")
    summary = run_summary(
        result,
        loaded,
        signals,
        tier_counts=tiers(shown),
        continued_from=None if plan.prior is None else plan.prior["run_id"],
        rules=rules,
        day=as_of.astimezone(zone).date(),
    )
    await _save(
        database,
        run_id,
        as_of=as_of,
        rows=[assessment_values(run_id, loaded, row, assessments[row]) for row in kept],
        signals=signals,
        state=packed,
        data=data_span(result),
        digest=digest,
        summary=summary,
    )
    clock.lap("save")
    return RunOutcome(
        run_id=run_id,
        mode=plan.mode,
        as_of=as_of,
        data_from=plan.window_first,
        connectors=len(shown),
        tiers=summary["tiers"],
        expected_false_flags=summary["expected_false_flags"],
        expected_missed=summary["expected_missed"],
        signals=summary["signals"],
        result_digest=digest,
        seconds=clock.laps,
        summary=summary,
    )


async def _advance(
    connection: asyncpg.Connection,
    loaded: Loaded,
    plan: Plan,
    state: Arrays | None,
    *,
    as_of: datetime,
    config: EngineConfig,
    left: list[LeftOut],
    say: Say,
) -> tuple[RunInputs, Arrays | None, LateEnergy]:
    """Add all but the last block of days to the engine's state; return the last block too.

    The next block is read while the one before it is added. Stations that a block can't be added
    for are added to `left`.
    """
    everywhere = np.arange(len(loaded.registry.places))
    size = loaded.inputs.fleet.size
    late = LateEnergy.none(size)
    parts = blocks(plan.first, as_of, connectors=size)
    inputs = await read_block(connection, loaded, first=parts[0][0], last=parts[0][1])
    for (_, done), (first, last) in pairwise(parts):
        late = late.with_intervals(inputs.connector_intervals, loaded.valid_until_s)
        (state, out), inputs = await asyncio.gather(
            asyncio.to_thread(_add_block, inputs, everywhere, config=config, state=state),
            read_block(connection, loaded, first=first, last=last),
        )
        left += out
        say(f"days up to {done.date()} of {as_of.date()}")
    return inputs, state, late.with_intervals(inputs.connector_intervals, loaded.valid_until_s)


def _add_block(
    inputs: RunInputs, stations: Ints, *, config: EngineConfig, state: Arrays | None
) -> tuple[Arrays, list[LeftOut]]:
    return each_apart(
        "estimate",
        stations,
        lambda part: advance(_part(inputs, part), config=config, state=state),
        costly=True,
    )


def _part(inputs: RunInputs, stations: Ints) -> RunInputs:
    """Return the inputs of some stations; the inputs themselves when those are all."""
    whole = np.isin(inputs.fleet.station, stations).all()
    whole &= np.isin(inputs.references.station, stations).all()
    return inputs if whole else inputs_of(inputs, stations)


def _without_rollups(loaded: Loaded, failed: Sequence[tuple[str, int]]) -> list[LeftOut]:
    """Return the stations of instruments whose rollups can't be made."""
    registry = loaded.registry
    rows = {
        ("connector", int(number)): row
        for number, row in zip(registry.connector_ids, registry.connectors, strict=True)
    } | {
        ("meter", int(number)): row
        for number, row in zip(registry.meter_ids, registry.meters, strict=True)
    }
    found = [(kind, rows[kind, number]) for kind, number in failed if (kind, number) in rows]
    return [
        LeftOut(
            registry.place_rows[row["operator_id"], row["station_id"]],
            "rollups",
            f"{kind} {row[kind]}",
        )
        for kind, row in found
    ]


def _heard(loaded: Loaded, result: RunResult) -> list[int]:
    """Return the rows to save: registered connectors, and others that sent something by as_of."""
    fleet = loaded.inputs.fleet
    rows = loaded.registry.connector_rows(loaded.sessions["connector_id"])
    heard = np.isfinite(loaded.last_reading_s) | np.isfinite(result.data_to_s)
    heard[rows] = True
    return [int(row) for row in np.flatnonzero(fleet.registered | heard)]


async def _with_session_names(
    connection: asyncpg.Connection, archive: Archive | None, signals: Sequence[Signal]
) -> list[Signal]:
    """Return signals whose evidence names sessions by their text instead of their row."""
    keys = ("session", "session_before")
    ids = {r[k] for s in signals for r in s.evidence["records"] for k in keys if k in r}
    names = await session_names(connection, archive, sorted(ids))
    renamed = []
    for signal in signals:
        records = [
            {k: names.get(v, v) if k in keys else v for k, v in record.items()}
            for record in signal.evidence["records"]
        ]
        renamed.append(replace(signal, evidence={**signal.evidence, "records": records}))
    return renamed


async def _save(
    database: Database,
    run_id: int,
    *,
    as_of: datetime,
    rows: Sequence[tuple[Any, ...]],
    signals: Sequence[Signal],
    state: Mapping[str, bytes],
    data: tuple[datetime | None, datetime | None],
    digest: str,
    summary: dict[str, Any],
) -> None:
    """Write all of a run in one transaction.

    Signals open and close by the run that is as of the latest time; a replay of an earlier time
    leaves them as they are.
    """
    async with database.raw() as connection, connection.transaction():
        await store.save_assessments(connection, rows)
        await store.save_state(connection, run_id, state)
        if await store.is_newest(connection, as_of):
            summary["signal_changes"] = await store_signals(connection, run_id, signals)
        await store.finish_run(
            connection,
            run_id,
            data_from=data[0],
            data_to=data[1],
            digest=digest,
            summary=summary,
        )
        await pile_index.rebuild(connection)


class _Stopwatch:
    """Seconds of each part of a run."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Book the time since the last lap under a name."""
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 3)
        self._last = now
