"""One risk run, from the rollups to the pages: refresh, load, find, estimate, decide, save."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np

from chargewatch import __version__
from chargewatch.domain.assessment import Assessment
from chargewatch.domain.mpe import rule_set
from chargewatch.domain.signal import Signal
from chargewatch.risk.results import EngineConfig, RunResult
from chargewatch.runs.apart import is_of_the_data
from chargewatch.runs.context import RunContext, Say, Stopwatch
from chargewatch.runs.decide import decide, tiers
from chargewatch.runs.estimate import Advanced, add_blocks, estimate, history_of
from chargewatch.runs.evidence.cut import Made, enter_run, take_evidence
from chargewatch.runs.find_signals import Found, find_signals
from chargewatch.runs.load import Loaded, load
from chargewatch.runs.owed import MONEY_VERSION, Owed, Span, money_owed, open_months
from chargewatch.runs.owed_sums import KeptMoney, kept_money
from chargewatch.runs.plan import full_instead, make_plan, mark_late, state_of
from chargewatch.runs.record import assessment_values, data_span, result_digest, run_summary
from chargewatch.runs.renewal import find_outdated, renewed
from chargewatch.runs.rollups import FirstDays, refresh_rollups
from chargewatch.runs.state import RunState, pack_state
from chargewatch.settings import Settings
from chargewatch.signals.merge import RULE_VERSION, in_order, merge_findings
from chargewatch.signals.registry import findings_of
from chargewatch.signals.stations import LeftOut, NotJudged
from chargewatch.storage import pile_index
from chargewatch.storage.archive.window import Archive, open_archive, session_names
from chargewatch.storage.database import Database
from chargewatch.storage.migrate import require_newest_schema
from chargewatch.storage.office import outcomes
from chargewatch.storage.office.evidence import KeptFile
from chargewatch.storage.runs import inputs as load_store
from chargewatch.storage.runs import money as money_store
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


def _engine_config(settings: Settings, as_of: datetime) -> EngineConfig:
    """Return the engine's numbers; the hours of situations are local ones as of the run."""
    offset = as_of.astimezone(settings.zone).utcoffset()
    return EngineConfig(
        half_life_days=settings.half_life_days,
        utc_offset_s=offset.total_seconds() if offset else 0.0,
    )


def configuration_of(settings: Settings, *, days: float, as_of: datetime) -> dict[str, Any]:
    """Return all that steers a run besides its data."""
    config = _engine_config(settings, as_of)
    return {
        "engine": asdict(config),
        "mpe_rules": settings.mpe_rules,
        "time_zone": settings.time_zone,
        "signal_rules": RULE_VERSION,
        "money_rules": MONEY_VERSION,
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
    evidence_of: Collection[str] = (),
    say: Say = _ignore,
) -> RunOutcome:
    """Do one risk run and return what it found; pages see it when it is complete.

    Where:
        as_of: only data up to this time count; default: now.
        full: recompute the window instead of going on from the last run.
        days: length of the window.
        evidence_of: names of connectors whose evidence is taken whatever is found.
        archive: folder of exported days; rollups and sessions come from it where it is current.

    Raises: DatabaseError when another run is going on or `as_of` lies in the future;
    InputFileError for a damaged file of the archive.
    """
    as_of = (as_of or datetime.now(UTC)).astimezone(UTC)
    zone, rules = settings.zone, rule_set(settings.mpe_rules)
    configuration = configuration_of(settings, days=days, as_of=as_of)
    await require_newest_schema(database)
    await store.require_not_ahead(database, as_of)
    async with store.only_run(database):
        clock = Stopwatch()
        say("bringing the rollups up to date")
        late, failed_rollups = await _refresh(database)
        clock.lap("rollups")
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
            context = RunContext(
                database=database,
                run_id=run_id,
                as_of=as_of,
                plan=plan,
                zone=zone,
                rules=rules,
                config=_engine_config(settings, as_of),
                configuration=configuration,
                evidence_files=settings.evidence_files,
                evidence_of=frozenset(evidence_of),
                archive_folder=archive,
                failed_rollups=failed_rollups,
                clock=clock,
                say=say,
            )
            try:
                return await _run(context)
            except BaseException as exc:
                # Whatever ended it, cancellation too: the run must not stay "running".
                error = f"{type(exc).__name__}: {exc}"
                await asyncio.shield(store.fail_run(database, run_id, error=error))
                if plan.mode == "full" or not is_of_the_data(exc):
                    await asyncio.shield(mark_late(database, late))
                    raise
                # What an earlier run left may be at fault: every later night would fail with it.
                log.exception("nightly_run_failed run_id=%d", run_id)
                say(f"run {run_id} failed ({error}); computing in full")
                full = True


async def _refresh(database: Database) -> tuple[FirstDays, Sequence[tuple[str, int]]]:
    """Bring the rollups up to date.

    Returns: the earliest day with new readings of each instrument, and kind and number of the
    instruments whose rollups can't be made.
    """
    late = FirstDays()
    try:
        report = await refresh_rollups(database, first_days=late)
    except BaseException:
        await asyncio.shield(mark_late(database, late))
        raise
    return late, report.failed


async def _run(context: RunContext) -> RunOutcome:
    """Do the steps of a run: load, find and estimate, decide, save."""
    database = context.database
    async with (
        load_store.snapshot(database) as connection,
        load_store.same_snapshot(database, connection) as beside,
    ):
        context, data = await _load(connection, context)
        history = history_of(beside, data.loaded, asyncio.get_running_loop())
        # Neither needs the other: the engine computes while signals wait for the database.
        estimating = asyncio.create_task(
            asyncio.to_thread(estimate, data.advanced, config=context.config, history=history)
        )
        try:
            found, signals = await _find(connection, context, data)
        except BaseException:
            estimating.cancel()
            raise
        context.clock.lap("signals")
        (result, course), out = await estimating
    context.clock.lap("engine")
    decided = await _decide(context, data, found=found, signals=signals, result=result, out=out)
    files = await take_evidence(
        context,
        Made(
            loaded=data.loaded,
            course=course,
            signals=decided.signals,
            assessments=decided.assessments,
            owed=decided.owed,
            digest=decided.digest,
        ),
    )
    context.clock.lap("evidence")
    await _save(context, decided, files)
    return RunOutcome(
        run_id=context.run_id,
        mode=context.plan.mode,
        as_of=context.as_of,
        data_from=context.plan.window_first,
        connectors=len(decided.rows),
        tiers=decided.summary["tiers"],
        expected_false_flags=decided.summary["expected_false_flags"],
        expected_missed=decided.summary["expected_missed"],
        signals=decided.summary["signals"],
        result_digest=decided.digest,
        seconds=context.clock.laps,
        summary=decided.summary,
    )


@dataclass(frozen=True, kw_only=True)
class _Data:
    """What the steps of a run work on."""

    loaded: Loaded
    prior: RunState  # what earlier runs knew
    advanced: Advanced
    left: list[LeftOut]  # stations whose rollups, or days, are missing
    months: Sequence[Span]  # whose money is counted


async def _load(connection: asyncpg.Connection, context: RunContext) -> tuple[RunContext, _Data]:
    """Read all that the run works on, and bring the engine up to the days that stay open.

    A nightly run becomes a full one here when too much of what it would go on from is out of date.
    """
    context.say("loading")
    archive, first = None, context.plan.window_first
    if context.archive_folder is not None:
        archive = await open_archive(
            connection, context.archive_folder, first=first, last=context.as_of
        )
        for note in archive.notes:
            context.say(f"archive: {note}")
    loaded = await load(
        connection,
        first=first,
        as_of=context.as_of,
        rules=context.rules,
        zone=context.zone,
        archive=archive,
    )
    context, prior = await _gone_on_from(connection, context, loaded)
    advanced = await add_blocks(connection, context, loaded, state=prior.engine)
    context.clock.lap("load")
    return context, _Data(
        loaded=loaded,
        prior=prior,
        advanced=advanced,
        left=[*_without_rollups(loaded, context.failed_rollups), *advanced.left],
        months=open_months(
            context.plan.window_first,
            context.as_of,
            context.zone,
            await money_store.counted_months(connection),
        ),
    )


async def _gone_on_from(
    connection: asyncpg.Connection, context: RunContext, loaded: Loaded
) -> tuple[RunContext, RunState]:
    """Return what the run goes on from, with what is out of date in it made again."""
    prior = state_of(context.plan, loaded)
    if prior.engine is None:
        return context, prior
    old = await asyncio.to_thread(find_outdated, loaded, context.plan, prior.engine, context.config)
    if old.is_too_much:
        plan = full_instead(context.plan, f"out of date for {old.text}")
        context.say(f"computing in full: {plan.reason}")
        return replace(context, plan=plan), state_of(plan, loaded)
    if old.connectors.any():
        context.say(f"adding the window again for {old.text}")
        engine = await renewed(
            connection, loaded, prior.engine, connectors=old.connectors, config=context.config
        )
        prior = replace(prior, engine=engine)
    return context, prior


async def _find(
    connection: asyncpg.Connection, context: RunContext, data: _Data
) -> tuple[Found, list[Signal]]:
    """Check the records; return the findings by the day, and the signals that they make."""
    loaded, archive = data.loaded, data.loaded.archive
    context.say(f"checking the records and estimating {loaded.inputs.fleet.size} connectors")
    found = await find_signals(
        connection, context, loaded, prior=data.prior, late=data.advanced.late
    )
    signals = merge_findings(found.findings, loaded.registry.names)
    signals = await _with_session_names(connection, archive, signals)
    for remark in archive.remarks() if archive else ():
        context.say(remark)
    return found, signals


@dataclass(frozen=True, kw_only=True)
class _Decided:
    """What a run says and leaves behind: all that is saved."""

    assessments: Mapping[int, Assessment]  # by row of the fleet
    rows: Sequence[tuple[Any, ...]]  # of the table of assessments
    owed: Owed
    money: KeptMoney
    signals: Sequence[Signal]
    state: Mapping[str, bytes]
    data: tuple[datetime | None, datetime | None]
    digest: str
    summary: dict[str, Any]


async def _decide(
    context: RunContext,
    data: _Data,
    *,
    found: Found,
    signals: Sequence[Signal],
    result: RunResult,
    out: Sequence[LeftOut],
) -> _Decided:
    """Return tiers, money and reasons of all connectors, and what the next run goes on from.

    Where: out: stations that the engine has no result for.
    """
    loaded, as_of = data.loaded, context.as_of
    left = NotJudged(left=[*found.left, *data.left, *out], as_of_s=as_of.timestamp())
    signals = in_order([*signals, *merge_findings(findings_of(left), loaded.registry.names)])
    owed = await asyncio.to_thread(
        money_owed,
        loaded,
        result,
        billed_rows=found.billed_rows,
        odd=found.odd_bills,
        spans=data.months,
    )
    context.clock.lap("money")
    packed, assessments = await asyncio.gather(
        asyncio.to_thread(
            pack_state,
            loaded.registry,
            engine=result.state,
            findings=found.findings,
            verified=found.verified,
            usual_gap_s=found.cadence.usual_gap_s,
            resets=found.resets,
            odd_bills=found.odd_bills,
        ),
        asyncio.to_thread(decide, loaded, result, signals, owed),
    )
    kept = _heard(loaded, result)
    shown = [assessments[row] for row in kept]
    digest = await asyncio.to_thread(result_digest, shown, signals)
    context.clock.lap("decide")
    prior = context.plan.prior
    return _Decided(
        assessments=dict(zip(kept, shown, strict=True)),
        rows=[assessment_values(context.run_id, loaded, row, assessments[row]) for row in kept],
        owed=owed,
        money=kept_money(loaded, result, owed, run_id=context.run_id),
        signals=signals,
        state=packed,
        data=data_span(result),
        digest=digest,
        summary=run_summary(
            result,
            loaded,
            signals,
            tier_counts=tiers(shown),
            continued_from=None if prior is None else prior["run_id"],
            rules=context.rules,
            day=as_of.astimezone(context.zone).date(),
        ),
    )


async def _save(context: RunContext, decided: _Decided, files: Sequence[KeptFile]) -> None:
    """Write all of a run in one transaction.

    Signals open and close, and money is counted, by the run that is as of the latest time; a replay
    of an earlier time leaves them as they are.
    """
    run_id, summary = context.run_id, decided.summary
    async with context.database.raw() as connection, connection.transaction():
        await store.save_assessments(connection, decided.rows)
        await store.save_state(connection, run_id, decided.state)
        if await store.is_newest(connection, context.as_of):
            await money_store.save_money(connection, run_id=run_id, **vars(decided.money))
            changes = await store_signals(connection, run_id, decided.signals)
            summary["signal_changes"] = changes
        await store.finish_run(
            connection,
            run_id,
            mode=context.plan.mode,
            data_from=decided.data[0],
            data_to=decided.data[1],
            digest=decided.digest,
            summary=summary,
        )
        await outcomes.count(connection, zone=context.zone.key, connector_id=None)
        await pile_index.rebuild(connection)
        await enter_run(connection, context, digest=decided.digest, files=files)
    context.clock.lap("save")


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
