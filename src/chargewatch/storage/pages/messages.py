"""The message ledger, its gaps, quarantine and signals, as pages and API show them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.identity import StreamKey
from chargewatch.storage import sql
from chargewatch.storage.pages.city import PAGE_ROWS, Scope, narrowed
from chargewatch.storage.pages.watched import Arguments, SampleValues, watched

# Pages by key, not by offset: the last page of a long list is as fast as its first.

# A rare quality is found first and sorted then: in the sorted index it may stand anywhere.
UNBALANCED = "received <> stored + duplicate + rejected"

LEDGER = sql.statement(
    "messages: ledger",
    "SELECT s.operator_id, s.station_id, s.topic, s.messages, s.received, s.stored, s.duplicate, "
    "s.rejected, s.unknown_keys, s.rounded, s.first_received_at, s.last_received_at, "
    "s.last_sent_at, "
    "s.received = s.stored + s.duplicate + s.rejected AS balanced, g.open_gaps, g.missing, "
    "g.jumps, s.last_seq AS newest_seq, s.restarts, s.restarted_at[cardinality(s.restarted_at)] "
    "AS last_restart_at, s.untracked_gaps, "
    "least(s.untracked_missing, 9223372036854775807)::bigint AS untracked_missing "
    "FROM (SELECT stream_id FROM "
    "(SELECT stream_id, operator_id, station_id, topic FROM ledger_stream{where}{fence}) wanted "
    "ORDER BY operator_id, station_id, topic LIMIT :limit) page "
    "JOIN ledger_stream s USING (stream_id) "
    "CROSS JOIN LATERAL (SELECT count(*) AS open_gaps, "
    "count(*) FILTER (WHERE implausible) AS jumps, "
    "least(coalesce(sum(last_seq - first_seq + 1) FILTER (WHERE NOT implausible), 0), "
    "9223372036854775807)::bigint AS missing FROM ledger_gap "
    "WHERE stream_id = s.stream_id AND closed_at IS NULL) g "
    "ORDER BY s.operator_id, s.station_id, s.topic",
)
WITH_GAP = "stream_id IN (SELECT stream_id FROM ledger_gap WHERE closed_at IS NULL)"
AFTER = (
    "(operator_id, station_id, topic) > "
    "(CAST(:after_operator AS text), CAST(:after_station AS text), CAST(:after_topic AS text))"
)

LEDGER_TOTALS = sql.statement(
    "messages: ledger totals",
    "SELECT topic, count(*) AS streams, sum(messages)::bigint AS messages, "  # noqa: S608
    "sum(received)::bigint AS received, sum(stored)::bigint AS stored, "
    "sum(duplicate)::bigint AS duplicate, sum(rejected)::bigint AS rejected, "
    "sum(unknown_keys)::bigint AS unknown_keys, sum(rounded)::bigint AS rounded, "
    "max(last_received_at) AS last_received_at, "
    f"count(*) FILTER (WHERE {UNBALANCED}) AS unbalanced "
    "FROM ledger_stream{where} GROUP BY topic ORDER BY topic",
)

OPEN_GAPS = sql.statement(
    "messages: open gaps",
    "SELECT s.operator_id, s.station_id, s.topic, g.first_seq, g.last_seq, g.found_at, "
    "g.from_at, g.to_at, g.implausible "
    "FROM (SELECT * FROM ledger_gap WHERE closed_at IS NULL{newest}) g "
    "JOIN ledger_stream s USING (stream_id){where} "
    "ORDER BY g.found_at DESC, g.gap_id DESC LIMIT :limit",
)
NEWEST_GAPS = " ORDER BY found_at DESC, gap_id DESC LIMIT :limit"

QUARANTINE = sql.statement(
    "messages: quarantine",
    "SELECT q.quarantine_id, q.received_at, q.topic, q.operator_id, q.station_id, q.seq, q.code, "
    "q.codes, q.rejected, q.errors, q.content_type, octet_length(q.payload) AS payload_bytes, "
    "substring(q.payload FROM 1 FOR 65536) AS payload, r.replayed_at, "
    "r.stored AS replay_stored, r.duplicate AS replay_duplicate, r.rejected AS replay_rejected "
    "FROM (SELECT * FROM quarantine{where} ORDER BY quarantine_id DESC LIMIT :limit) q "
    "LEFT JOIN quarantine_replay r USING (quarantine_id) ORDER BY q.quarantine_id DESC",
)
OF_CODE = "codes @> ARRAY[CAST(:code AS text)]"

QUARANTINE_CODES = sql.statement(
    "messages: quarantine codes",
    "SELECT code, count(*) AS messages FROM (SELECT unnest(codes) AS code FROM ("
    "SELECT codes FROM quarantine{where} ORDER BY quarantine_id DESC LIMIT 10000) newest) single "
    "GROUP BY code ORDER BY code",
)

# What the platform failed on and nobody has read again.
QUARANTINE_WAITING = sql.statement(
    "messages: quarantine waiting",
    "SELECT count(*) FROM quarantine q{where} AND NOT EXISTS "
    "(SELECT FROM quarantine_replay r WHERE r.quarantine_id = q.quarantine_id)",
)

BEYOND_QUOTA = sql.statement(
    "messages: beyond quota",
    "SELECT day, operator_id, station_id, kept, more, more_rejected FROM quarantine_day{where} "
    "ORDER BY day DESC, operator_id, station_id LIMIT :limit",
)

SIGNAL_COLUMNS = (
    "signal_id, code, severity, subject, connector, station_id, operator_id, first_at, "
    'last_at, count, value, "limit", detail, evidence, rule_version, opened_run, last_run, '
    "closed_run"
)
SIGNALS = sql.statement(
    "messages: signals",
    f"SELECT {SIGNAL_COLUMNS} FROM signal{{where}} "  # noqa: S608 - a constant
    "ORDER BY signal_id DESC LIMIT :limit",
)

LIVE_READINGS = sql.statement(
    "messages: live readings",
    "SELECT c.connector, c.station_id, c.operator_id, l.at, l.energy_wh, l.power_w, l.received_at "
    "FROM connector c JOIN latest_reading l USING (connector_id) "
    "WHERE (c.connector = ANY(CAST(:connectors AS text[])) "
    "OR c.station_id = ANY(CAST(:station_ids AS text[]))) "
    "AND l.received_at > :since ORDER BY l.received_at LIMIT 5000",
)


def _page(**more: Any) -> Arguments:
    return lambda _: {"scope": None, "limit": PAGE_ROWS, **more}


def _own_page(**more: Any) -> Arguments:
    return lambda s: {"scope": s.operator_id, "limit": PAGE_ROWS, **more}


def _everybody(_: SampleValues) -> dict[str, Any]:
    return {"scope": None}


def _own(s: SampleValues) -> dict[str, Any]:
    return {"scope": s.operator_id}


@watched(
    {
        "ledger": _page(),
        "ledger: scope": _own_page(),
        "ledger: later page": lambda s: {
            **_page()(s),
            "after": (s.operator_id, s.station_id, ""),
        },
        "ledger: only gaps": _page(only_gaps=True),
        "ledger: only unbalanced": _page(only_unbalanced=True),
    }
)
async def ledger(
    connection: AsyncConnection,
    *,
    scope: Scope,
    limit: int,
    after: StreamKey | None = None,
    station_id: str = "",
    operator_id: str = "",
    only_gaps: bool = False,
    only_unbalanced: bool = False,
) -> Sequence[RowMapping]:
    """Return one page of streams: a station, a topic, and what became of its messages."""
    rare = [WITH_GAP] * only_gaps + [UNBALANCED] * only_unbalanced
    clauses = [*rare] if after is None else [*rare, AFTER]
    where, values = narrowed(*clauses, scope=scope, station_id=station_id, operator_id=operator_id)
    if after is not None:
        values |= dict(zip(("after_operator", "after_station", "after_topic"), after, strict=True))
    wanted = LEDGER.filled(where=where, fence=" OFFSET 0" if rare else "")
    return await sql.rows(connection, wanted, limit=limit, **values)


@watched({"ledger: totals": _everybody, "ledger: totals, scope": _own})
async def ledger_totals(
    connection: AsyncConnection, *, scope: Scope, station_id: str = "", operator_id: str = ""
) -> Sequence[RowMapping]:
    """Return the ledger summed by topic."""
    where, values = narrowed(scope=scope, station_id=station_id, operator_id=operator_id)
    return await sql.rows(connection, LEDGER_TOTALS.filled(where=where), **values)


@watched({"ledger: open gaps": _page(), "ledger: open gaps, scope": _own_page()})
async def open_gaps(
    connection: AsyncConnection,
    *,
    scope: Scope,
    limit: int,
    station_id: str = "",
    operator_id: str = "",
) -> Sequence[RowMapping]:
    """Return holes in message counters that are still open, newest first."""
    where, values = narrowed(scope=scope, station_id=station_id, operator_id=operator_id)
    # Of every stream's gaps the newest are known before any stream is looked up.
    wanted = OPEN_GAPS.filled(where=where, newest="" if where else NEWEST_GAPS)
    return await sql.rows(connection, wanted, limit=limit, **values)


@watched(
    {
        "quarantine": _page(),
        "quarantine: scope": _own_page(),
        "quarantine: code": _page(code="naive_time"),
        "quarantine: station": lambda s: {**_page()(s), "station_id": s.station_id},
    }
)
async def quarantined(
    connection: AsyncConnection,
    *,
    scope: Scope,
    limit: int,
    before_id: int | None = None,
    code: str = "",
    station_id: str = "",
) -> Sequence[RowMapping]:
    """Return rejected messages, newest first, with the first 64 KiB of their bytes."""
    clauses = [] if before_id is None else ["quarantine_id < :before_id"]
    clauses += [OF_CODE] * bool(code)
    where, values = narrowed(*clauses, scope=scope, station_id=station_id)
    values |= {"limit": limit} | ({} if before_id is None else {"before_id": before_id})
    values |= {"code": code} if code else {}
    return await sql.rows(connection, QUARANTINE.filled(where=where), **values)


@watched({"quarantine: codes": _everybody, "quarantine: codes, scope": _own})
async def quarantine_codes(connection: AsyncConnection, *, scope: Scope) -> Sequence[RowMapping]:
    """Return how often each code stands among the newest 10,000 rejected messages."""
    where, values = narrowed(scope=scope)
    return await sql.rows(connection, QUARANTINE_CODES.filled(where=where), **values)


@watched({"quarantine: waiting": _everybody})
async def quarantine_waiting(connection: AsyncConnection, *, scope: Scope) -> int:
    """Return how many messages wait to be read again because the platform failed on them."""
    where, values = narrowed(OF_CODE, scope=scope)
    wanted = QUARANTINE_WAITING.filled(where=where)
    return int(await sql.value(connection, wanted, code="internal_error", **values))


@watched({"quarantine: beyond the quota": _page()})
async def beyond_quota(
    connection: AsyncConnection, *, scope: Scope, limit: int, station_id: str = ""
) -> Sequence[RowMapping]:
    """Return the stations and days with more rejected messages than are kept, newest first."""
    where, values = narrowed("more > 0", scope=scope, station_id=station_id)
    return await sql.rows(connection, BEYOND_QUOTA.filled(where=where), limit=limit, **values)


@watched(
    {
        "signals": _page(only_open=True),
        "signals: scope": _own_page(only_open=True),
        "signals: code": _page(only_open=True, code="fee_mismatch"),
        "signals: severity": _page(only_open=True, severity="severe"),
        "signals: closed too": _own_page(code="silence"),
        "signals: last page": _page(only_open=True, before_id=100),
    }
)
async def signals(
    connection: AsyncConnection,
    *,
    scope: Scope,
    limit: int,
    before_id: int | None = None,
    only_open: bool = False,
    **wanted: str,
) -> Sequence[RowMapping]:
    """Return signals, newest first; wanted: code, severity, station_id, connector."""
    clauses = ["closed_run IS NULL"] * only_open
    if before_id is not None:
        clauses.append("signal_id < :before_id")
    where, values = narrowed(*clauses, scope=scope, **wanted)
    values |= {"limit": limit} | ({} if before_id is None else {"before_id": before_id})
    return await sql.rows(connection, SIGNALS.filled(where=where), **values)


@watched(
    {
        "live readings": lambda s: {
            "since": s.now - timedelta(seconds=60),
            "connectors": [s.connector],
            "station_ids": [s.station_id],
        }
    }
)
async def live_readings(
    connection: AsyncConnection,
    *,
    since: datetime,
    connectors: Sequence[str] = (),
    station_ids: Sequence[str] = (),
) -> Sequence[RowMapping]:
    """Return the newest readings, at most 5,000, that arrived after a time.

    Of connectors of these names or at these stations, whoever's they are: who may see which is
    up to the caller.
    """
    return await sql.rows(
        connection,
        LIVE_READINGS,
        since=since,
        connectors=list(connectors),
        station_ids=list(station_ids),
    )
