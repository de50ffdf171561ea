"""The pages' statements by name: how long each takes, and how the database finds its rows."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.times import DAY_S
from chargewatch.errors import NotFoundError
from chargewatch.storage import users
from chargewatch.storage.database import Database
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages import messages as message_rows
from chargewatch.storage.pages import pile as pile_rows
from chargewatch.storage.pages import piles as pile_list_rows
from chargewatch.storage.pages import stations as station_rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.storage.pages.piles import PileFilter
from chargewatch.storage.pile_index import SORTS
from chargewatch.storage.tables import HYPERTABLES


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Values that a page is asked for: one connector, its station, the newest run."""

    run_id: int | None
    connector: str
    connector_id: int
    station_id: str
    operator_id: str
    district: str
    meter_id: int
    now: datetime


Ask = Callable[[AsyncConnection, Sample], Awaitable[Any]]


@dataclass(frozen=True)
class Plan:
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


def _list(wanted: Callable[[Sample], PileFilter], *, scoped: bool = False, offset: int = 0) -> Ask:
    def ask(connection: AsyncConnection, s: Sample) -> Awaitable[Any]:
        return pile_list_rows.piles(
            connection,
            wanted(s),
            run_id=s.run_id,
            scope=s.operator_id if scoped else None,
            limit=PAGE_ROWS,
            offset=offset,
        )

    return ask


def _sorted_by(sort: str) -> Ask:
    return _list(lambda _: PileFilter(sort=sort))


def _balance(days: float, step_s: float) -> Ask:
    def ask(connection: AsyncConnection, s: Sample) -> Awaitable[Any]:
        return station_rows.balance(
            connection,
            s.meter_id,
            station_id=s.station_id,
            operator_id=s.operator_id,
            since=s.now - timedelta(days=days),
            until=s.now,
            step_s=step_s,
        )

    return ask


def _stations(*, scoped: bool = False, text: bool = False, offset: int = 0) -> Ask:
    def ask(connection: AsyncConnection, s: Sample) -> Awaitable[Any]:
        return station_rows.stations(
            connection,
            run_id=s.run_id,
            words=s.station_id if text else "",
            scope=s.operator_id if scoped else None,
            limit=PAGE_ROWS,
            offset=offset,
        )

    return ask


def _ledger(
    *,
    scoped: bool = False,
    deep: bool = False,
    only_gaps: bool = False,
    only_unbalanced: bool = False,
) -> Ask:
    def ask(connection: AsyncConnection, s: Sample) -> Awaitable[Any]:
        return message_rows.ledger(
            connection,
            scope=s.operator_id if scoped else None,
            limit=PAGE_ROWS,
            after=(s.operator_id, s.station_id, "") if deep else None,
            only_gaps=only_gaps,
            only_unbalanced=only_unbalanced,
        )

    return ask


def _quarantine(*, scoped: bool = False, code: str = "", station: bool = False) -> Ask:
    def ask(connection: AsyncConnection, s: Sample) -> Awaitable[Any]:
        return message_rows.quarantined(
            connection,
            scope=s.operator_id if scoped else None,
            limit=PAGE_ROWS,
            code=code,
            station_id=s.station_id if station else "",
        )

    return ask


def _signals(
    *, scoped: bool = False, before_id: int | None = None, only_open: bool = True, **wanted: str
) -> Ask:
    def ask(connection: AsyncConnection, s: Sample) -> Awaitable[Any]:
        return message_rows.signals(
            connection,
            scope=s.operator_id if scoped else None,
            limit=PAGE_ROWS,
            before_id=before_id,
            only_open=only_open,
            **wanted,
        )

    return ask


def _readings(connection: AsyncConnection, s: Sample) -> Awaitable[Any]:
    return pile_rows.readings(
        connection, s.connector_id, since=s.now - timedelta(days=1), until=s.now, limit=10_000
    )


def _tiers(connection: AsyncConnection, s: Sample, *, scope: str | None = None) -> Awaitable[Any]:
    return city_rows.tiers_by_district(connection, s.run_id or 0, scope=scope)


def _red(connection: AsyncConnection, s: Sample, *, scope: str | None = None) -> Awaitable[Any]:
    return city_rows.newest_red(connection, s.run_id or 0, scope=scope, limit=PAGE_ROWS)


def _coverage(
    connection: AsyncConnection, s: Sample, *, scope: str | None = None
) -> Awaitable[Any]:
    today = s.now.date()
    return city_rows.verification_coverage(
        connection, today=today, soon=today + timedelta(days=90), scope=scope
    )


def _arrival(connection: AsyncConnection, s: Sample, *, scope: str | None = None) -> Awaitable[Any]:
    return city_rows.arrival(connection, recently=s.now - timedelta(hours=1), scope=scope)


PAGE_QUERIES: Mapping[str, Ask] = {
    "newest run": lambda c, s: city_rows.newest_run(c),
    "newest red": _red,
    "newest red: scope": lambda c, s: _red(c, s, scope=s.operator_id),
    "tiers by district": _tiers,
    "tiers by district: scope": lambda c, s: _tiers(c, s, scope=s.operator_id),
    "verification coverage": _coverage,
    "verification coverage: scope": lambda c, s: _coverage(c, s, scope=s.operator_id),
    "arrival": _arrival,
    "arrival: scope": lambda c, s: _arrival(c, s, scope=s.operator_id),
    "runs": lambda c, s: city_rows.runs(c, limit=PAGE_ROWS, offset=0),
    "operators": lambda c, s: city_rows.operators(c, scope=None),
    "open signals by code": lambda c, s: city_rows.open_signals_by_code(c, scope=None),
    "open signals by code: scope": lambda c, s: city_rows.open_signals_by_code(
        c, scope=s.operator_id
    ),
    **{f"piles by {sort}": _sorted_by(sort) for sort in SORTS},
    "piles: last page": _list(lambda _: PileFilter(), offset=99_000),
    "piles: scope": _list(lambda _: PileFilter(), scoped=True),
    "piles: tier": _list(lambda _: PileFilter(tiers=("red", "orange"))),
    "piles: operator": _list(lambda s: PileFilter(operator_id=s.operator_id)),
    "piles: district": _list(lambda s: PileFilter(district=s.district)),
    "piles: signal": _list(lambda _: PileFilter(signal="fee_mismatch")),
    "piles: text": _list(lambda s: PileFilter(text=s.connector)),
    "piles: text that many have": _list(lambda s: PileFilter(text=s.connector[:3])),
    "piles: station": _list(lambda s: PileFilter(station_id=s.station_id)),
    "piles: operator, tier by money": _list(
        lambda s: PileFilter(operator_id=s.operator_id, tiers=("green",), sort="money")
    ),
    "piles: district, signal": _list(
        lambda s: PileFilter(district=s.district, signal="fee_mismatch")
    ),
    "piles: all filters": _list(
        lambda s: PileFilter(
            tiers=("grey", "green"),
            operator_id=s.operator_id,
            district=s.district,
            signal="fee_mismatch",
            text=s.connector[:3],
            sort="error",
        ),
        scoped=True,
    ),
    "pile": lambda c, s: pile_rows.pile(c, s.connector, scope=None),
    "pile: assessment": lambda c, s: pile_rows.assessment_of(
        c, s.connector_id, run_id=s.run_id or 0
    ),
    "pile: history": lambda c, s: pile_rows.history(c, s.connector_id, limit=400),
    "pile: verifications": lambda c, s: pile_rows.verifications(c, s.connector_id),
    "pile: sessions": lambda c, s: pile_rows.sessions(c, s.connector_id, limit=PAGE_ROWS, offset=0),
    "pile: session count": lambda c, s: pile_rows.session_count(c, s.connector_id),
    "pile: declared changes": lambda c, s: pile_rows.declared_changes(
        c, s.connector_id, operator_id=s.operator_id, station_id=s.station_id, limit=100
    ),
    "pile: readings of a day": _readings,
    "pile: signals": lambda c, s: pile_rows.signals_of_pile(
        c, s.connector, operator_id=s.operator_id, station_id=s.station_id
    ),
    "stations": _stations(),
    "stations: last page": _stations(offset=8_300),
    "stations: scope": _stations(scoped=True),
    "stations: text": _stations(text=True),
    "stations: count": lambda c, s: station_rows.station_count(c, words="", scope=None),
    "stations: count of text": lambda c, s: station_rows.station_count(
        c, words=s.station_id, scope=None
    ),
    "station": lambda c, s: station_rows.station(c, s.station_id, scope=None),
    "station: meters": lambda c, s: station_rows.meters(c, s.station_id, operator_id=s.operator_id),
    "station: last slot": lambda c, s: station_rows.last_slot(c, s.meter_id),
    "station: balance of 7 days": _balance(7, 3600.0),
    "station: balance of 30 days": _balance(30, float(DAY_S)),
    "station: piles": lambda c, s: station_rows.piles_of_station(
        c, s.station_id, operator_id=s.operator_id, run_id=s.run_id
    ),
    "station: gaps": lambda c, s: station_rows.gaps_of_station(
        c, s.station_id, operator_id=s.operator_id
    ),
    "ledger": _ledger(),
    "ledger: scope": _ledger(scoped=True),
    "ledger: later page": _ledger(deep=True),
    "ledger: only gaps": _ledger(only_gaps=True),
    "ledger: only unbalanced": _ledger(only_unbalanced=True),
    "ledger: totals": lambda c, s: message_rows.ledger_totals(c, scope=None),
    "ledger: totals, scope": lambda c, s: message_rows.ledger_totals(c, scope=s.operator_id),
    "ledger: open gaps": lambda c, s: message_rows.open_gaps(c, scope=None, limit=PAGE_ROWS),
    "ledger: open gaps, scope": lambda c, s: message_rows.open_gaps(
        c, scope=s.operator_id, limit=PAGE_ROWS
    ),
    "quarantine": _quarantine(),
    "quarantine: scope": _quarantine(scoped=True),
    "quarantine: code": _quarantine(code="naive_time"),
    "quarantine: station": _quarantine(station=True),
    "quarantine: codes": lambda c, s: message_rows.quarantine_codes(c, scope=None),
    "quarantine: waiting": lambda c, s: message_rows.quarantine_waiting(c, scope=None),
    "quarantine: beyond the quota": lambda c, s: message_rows.beyond_quota(
        c, scope=None, limit=PAGE_ROWS
    ),
    "quarantine: codes, scope": lambda c, s: message_rows.quarantine_codes(c, scope=s.operator_id),
    "signals": _signals(),
    "signals: scope": _signals(scoped=True),
    "signals: code": _signals(code="fee_mismatch"),
    "signals: severity": _signals(severity="severe"),
    "signals: closed too": _signals(only_open=False, code="silence", scoped=True),
    "signals: last page": _signals(before_id=100),
    "live readings": lambda c, s: message_rows.live_readings(
        c,
        since=s.now - timedelta(seconds=60),
        connectors=[s.connector],
        station_ids=[s.station_id],
    ),
    "log-in": lambda c, s: users.user_of_session(c, b"\0" * 32, now=s.now),
}
"""What every click asks; each must answer within 30 ms for 100,000 connectors."""


async def pick_samples(connection: AsyncConnection, count: int) -> list[Sample]:
    """Return values of connectors spread evenly over the registry.

    Raises: NotFoundError when there is no registered connector with a reference meter.
    """
    run = await city_rows.newest_run(connection)
    last = await connection.scalar(text("SELECT max(at) FROM latest_reading"))
    rows = (
        await connection.execute(
            text(
                "SELECT * FROM (SELECT c.connector, c.connector_id, c.station_id, c.operator_id, "
                "coalesce(s.district, '') AS district, m.meter_id, "
                "row_number() OVER (ORDER BY c.connector_id) AS place, count(*) OVER () AS size "
                "FROM connector c JOIN station s USING (station_id, operator_id) "
                "JOIN (SELECT station_id, operator_id, min(meter_id) AS meter_id "
                "FROM reference_meter WHERE registered GROUP BY station_id, operator_id) m "
                "USING (station_id, operator_id) "
                "WHERE c.registered) x WHERE place % greatest(1, size / :count) = 0 LIMIT :count"
            ),
            {"count": count},
        )
    ).mappings()
    samples = [
        Sample(
            run_id=None if run is None else run["run_id"],
            now=last or datetime.now(UTC),
            **{name: row[name] for name in row if name not in {"place", "size"}},
        )
        for row in rows
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
    rows = await connection.execute(
        text(
            "SELECT c.relname, p.relname FROM pg_inherits i "
            "JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent"
        )
    )
    return {str(row[0]): str(row[1]) for row in rows}


def _read_plan(
    name: str, statement: str, document: list[dict[str, Any]], *, parents: Mapping[str, str]
) -> Plan:
    root = document[0]["Plan"]
    scanned, chunks = set(), 0
    for node in _nodes(root):
        relation = node.get("Relation Name", "")
        chunks += relation in parents
        if node["Node Type"] == "Seq Scan":
            scanned.add(parents.get(relation, relation))
    return Plan(name, statement, root["Total Cost"], tuple(sorted(scanned)), chunks)


async def explain_pages(database: Database, *, need_index: bool = False) -> list[Plan]:
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
            await connection.execute(text("SET LOCAL enable_seqscan = off"))
        for name, ask in PAGE_QUERIES.items():
            with _recorded(connection) as sent:
                await ask(connection, sample)
            driver = (await connection.get_raw_connection()).driver_connection
            for statement, values in sent:
                # SQLAlchemy's connections decode JSON.
                document = await driver.fetchval(  # type: ignore[union-attr]
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
