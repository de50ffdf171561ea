"""The pages' statements by name: how long each takes, and how the database finds its rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.errors import NotFoundError
from chargewatch.storage import sql, users
from chargewatch.storage.database import Database
from chargewatch.storage.office import cases as case_rows
from chargewatch.storage.office import complaints as complaint_rows
from chargewatch.storage.office import credit as credit_rows
from chargewatch.storage.office import draws as draw_rows
from chargewatch.storage.office import inspections as inspection_rows
from chargewatch.storage.office import money as money_rows
from chargewatch.storage.office import operator_days as operator_day_rows
from chargewatch.storage.office import outcomes as outcome_rows
from chargewatch.storage.office import public as public_rows
from chargewatch.storage.office import verifications as verification_rows
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages import messages as message_rows
from chargewatch.storage.pages import pile as pile_rows
from chargewatch.storage.pages import piles as pile_list_rows
from chargewatch.storage.pages import stations as station_rows
from chargewatch.storage.pages.watched import Ask, SampleValues, watched_queries
from chargewatch.storage.pile_index import driver_of
from chargewatch.storage.tables import HYPERTABLES


@dataclass(frozen=True)
class QueryPlan:
    """How the database answers one statement of a page."""

    name: str
    statement: str
    cost: float
    scanned: tuple[str, ...]  # tables read from begin to end
    chunks: int  # chunks of hypertables that the plan opens

    @property
    def faults(self) -> tuple[str, ...]:
        """Hypertables that are read from begin to end: they must not be."""
        return tuple(table for table in self.scanned if table in HYPERTABLES)


PAGE_MODULES = (
    *(city_rows, pile_list_rows, pile_rows, station_rows, message_rows, users),
    case_rows,
    credit_rows,
    operator_day_rows,
    *(complaint_rows, public_rows),
    *(draw_rows, inspection_rows),
    money_rows,
    *(verification_rows, outcome_rows),
)
PAGE_QUERIES: dict[str, Ask] = {
    name: ask for module in PAGE_MODULES for name, ask in watched_queries(module.__name__).items()
}
"""What every click asks; each must answer within 30 ms for 100,000 connectors."""

LAST_READING = sql.statement("statements: last reading", "SELECT max(at) FROM latest_reading")
SAMPLES = sql.statement(
    "statements: samples",
    "SELECT * FROM (SELECT c.connector, c.connector_id, c.station_id, c.operator_id, "
    "coalesce(s.district, '') AS district, m.meter_id, "
    "row_number() OVER (ORDER BY c.connector_id) AS place, count(*) OVER () AS size "
    "FROM connector c JOIN station s USING (station_id, operator_id) "
    "JOIN (SELECT station_id, operator_id, min(meter_id) AS meter_id "
    "FROM reference_meter WHERE registered GROUP BY station_id, operator_id) m "
    "USING (station_id, operator_id) "
    "WHERE c.registered) x WHERE place % greatest(1, size / :count) = 0 LIMIT :count",
)
CHUNKS = sql.statement(
    "statements: chunks",
    "SELECT c.relname AS chunk, p.relname AS hypertable FROM pg_inherits i "
    "JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent",
)
NO_SCANS = sql.statement("statements: no scans", "SET LOCAL enable_seqscan = off")


async def pick_samples(connection: AsyncConnection, count: int) -> list[SampleValues]:
    """Return values of connectors spread evenly over the registry.

    Raises: NotFoundError when there is no registered connector with a reference meter.
    """
    run = await city_rows.newest_run(connection)
    last = await sql.value(connection, LAST_READING)
    found = await sql.rows(connection, SAMPLES, count=count)
    samples = [
        SampleValues(
            run_id=None if run is None else run["run_id"],
            now=last or datetime.now(UTC),
            **{name: row[name] for name in row if name not in {"place", "size"}},
        )
        for row in found
    ]
    if not samples:
        raise NotFoundError(
            "no registered connector whose station has a reference meter: "
            "import a registry first (`chargewatch registry import`)"
        )
    return samples


@contextmanager
def _recorded(connection: AsyncConnection) -> Iterator[list[tuple[str, Sequence[Any]]]]:
    """Record the statements that a connection sends, with their values."""
    sent: list[tuple[str, Sequence[Any]]] = []

    def record(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        sent.append((statement, values))

    event.listen(connection.sync_connection, "before_cursor_execute", record)
    try:
        yield sent
    finally:
        event.remove(connection.sync_connection, "before_cursor_execute", record)


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


async def _parents(connection: AsyncConnection) -> dict[str, str]:
    """Return the hypertable of every chunk."""
    return {row["chunk"]: row["hypertable"] for row in await sql.rows(connection, CHUNKS)}


def _read_plan(
    name: str, statement: str, document: list[dict[str, Any]], *, parents: Mapping[str, str]
) -> QueryPlan:
    root = document[0]["Plan"]
    scanned, chunks = set(), 0
    for node in _nodes(root):
        relation = node.get("Relation Name", "")
        chunks += relation in parents
        if node["Node Type"] == "Seq Scan":
            scanned.add(parents.get(relation, relation))
    return QueryPlan(name, statement, root["Total Cost"], tuple(sorted(scanned)), chunks)


async def explain_pages(database: Database, *, need_index: bool = False) -> list[QueryPlan]:
    """Return the plan of every statement that the pages send.

    need_index: make a sequential scan so expensive that it is chosen only where no index can
    answer; for databases so small that reading everything is the fastest way.
    Raises: NotFoundError when the registry is empty.
    """
    plans = []
    async with database.connect() as connection:
        sample = (await pick_samples(connection, 1))[0]
        parents = await _parents(connection)
        if need_index:
            await sql.run(connection, NO_SCANS)
        for name, ask in PAGE_QUERIES.items():
            with _recorded(connection) as sent:
                await ask(connection, sample)
            driver = await driver_of(connection)
            for statement, values in sent:
                # SQLAlchemy's connections decode JSON.
                document = await driver.fetchval(
                    f"EXPLAIN (FORMAT JSON) {statement}", *values, timeout=60
                )
                plans.append(_read_plan(name, statement, document, parents=parents))
        await connection.rollback()
    return plans


@dataclass(frozen=True)
class Timing:
    """How long one page's query took over many samples, seconds."""

    name: str
    runs: int
    p50_s: float
    p95_s: float
    worst_s: float


def _timing(name: str, seconds: list[float]) -> Timing:
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return Timing(
        name, len(ordered), ordered[round(0.5 * last)], ordered[round(0.95 * last)], ordered[-1]
    )


async def time_pages(database: Database, *, runs: int = 40) -> list[Timing]:
    """Return how long each page's query takes, rows fetched, for `runs` different connectors.

    Two runs before the first one counted fill the caches, as a served page's would be.
    """
    timings = []
    async with database.connect() as connection:
        samples = await pick_samples(connection, runs)
        for name, ask in PAGE_QUERIES.items():
            for sample in samples[:2]:
                await ask(connection, sample)
            seconds = []
            for sample in samples:
                begun = time.perf_counter()
                await ask(connection, sample)
                seconds.append(time.perf_counter() - begun)
            await connection.rollback()
            timings.append(_timing(name, seconds))
    return timings
