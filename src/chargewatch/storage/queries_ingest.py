"""The message ledger, its gaps, quarantine and signals, as pages and API show them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.queries import Scope

LEDGER = text(
    "SELECT s.operator_id, s.station_id, s.topic, s.messages, s.received, s.stored, s.duplicate, "
    "s.rejected, s.unknown_keys, s.first_received_at, s.last_received_at, s.last_sent_at, "
    "s.received = s.stored + s.duplicate + s.rejected AS balanced, g.open_gaps, g.missing, "
    "upper(range_merge(s.seen)) - 1 AS newest_seq "
    "FROM (SELECT * FROM ledger_stream "
    "WHERE (CAST(:scope AS text) IS NULL OR operator_id = :scope) "
    "AND (:station_id = '' OR station_id = :station_id) "
    "AND (:operator_id = '' OR operator_id = :operator_id) "
    "AND (NOT :only_gaps OR stream_id IN "
    "(SELECT stream_id FROM ledger_gap WHERE closed_at IS NULL)) "
    "AND (NOT :only_unbalanced OR received <> stored + duplicate + rejected) "
    "ORDER BY operator_id, station_id, topic LIMIT :limit OFFSET :offset) s "
    "CROSS JOIN LATERAL (SELECT count(*) AS open_gaps, "
    "coalesce(sum(last_seq - first_seq + 1), 0)::bigint AS missing FROM ledger_gap "
    "WHERE stream_id = s.stream_id AND closed_at IS NULL) g "
    "ORDER BY s.operator_id, s.station_id, s.topic"
)

LEDGER_TOTALS = (
    "SELECT topic, count(*) AS streams, sum(messages)::bigint AS messages, "
    "sum(received)::bigint AS received, sum(stored)::bigint AS stored, "
    "sum(duplicate)::bigint AS duplicate, sum(rejected)::bigint AS rejected, "
    "sum(unknown_keys)::bigint AS unknown_keys, max(last_received_at) AS last_received_at, "
    "count(*) FILTER (WHERE received <> stored + duplicate + rejected) AS unbalanced "
    "FROM ledger_stream{where} GROUP BY topic ORDER BY topic"
)

OPEN_GAPS = text(
    "SELECT s.operator_id, s.station_id, s.topic, g.first_seq, g.last_seq, g.found_at "
    "FROM ledger_gap g JOIN ledger_stream s USING (stream_id) WHERE g.closed_at IS NULL "
    "AND (CAST(:scope AS text) IS NULL OR s.operator_id = :scope) "
    "AND (:station_id = '' OR s.station_id = :station_id) "
    "AND (:operator_id = '' OR s.operator_id = :operator_id) "
    "ORDER BY g.found_at DESC, g.gap_id DESC LIMIT :limit"
)

# Pages by key, not by offset: the browser of a big quarantine stays fast on its last page.
QUARANTINE = text(
    "SELECT quarantine_id, received_at, topic, operator_id, station_id, seq, code, item_index, "
    "detail, content_type, octet_length(payload) AS payload_bytes, "
    "substring(payload FROM 1 FOR 65536) AS payload "
    "FROM quarantine WHERE (CAST(:scope AS text) IS NULL OR operator_id = :scope) "
    "AND (:station_id = '' OR station_id = :station_id) AND (:code = '' OR code = :code) "
    "AND (CAST(:before_id AS bigint) IS NULL OR quarantine_id < :before_id) "
    "ORDER BY quarantine_id DESC LIMIT :limit"
)

QUARANTINE_CODES = text(
    "SELECT code, count(*) AS items FROM (SELECT code FROM quarantine "
    "WHERE CAST(:scope AS text) IS NULL OR operator_id = :scope "
    "ORDER BY quarantine_id DESC LIMIT 10000) newest GROUP BY code ORDER BY code"
)

SIGNALS = text(
    "SELECT signal_id, code, severity, subject, connector, station_id, operator_id, first_at, "
    'last_at, count, value, "limit", detail, evidence, rule_version, opened_run, last_run, '
    "closed_run FROM signal WHERE (CAST(:scope AS text) IS NULL OR operator_id = :scope) "
    "AND (:code = '' OR code = :code) AND (:severity = '' OR severity = :severity) "
    "AND (:station_id = '' OR station_id = :station_id) "
    "AND (:connector = '' OR connector = :connector) "
    "AND (NOT :only_open OR closed_run IS NULL) "
    "ORDER BY signal_id DESC LIMIT :limit OFFSET :offset"
)

LIVE_READINGS = text(
    "SELECT c.connector, l.at, l.energy_wh, l.power_w, l.received_at FROM connector c "
    "JOIN latest_reading l USING (connector_id) "
    "WHERE (:connector = '' OR c.connector = :connector) "
    "AND (:station_id = '' OR c.station_id = :station_id) "
    "AND (CAST(:scope AS text) IS NULL OR c.operator_id = :scope) "
    "AND l.received_at > :since ORDER BY l.received_at LIMIT 500"
)


async def ledger(
    connection: AsyncConnection,
    *,
    scope: Scope,
    limit: int,
    offset: int,
    station_id: str = "",
    operator_id: str = "",
    only_gaps: bool = False,
    only_unbalanced: bool = False,
) -> Sequence[RowMapping]:
    """Return one page of streams: a station, a topic, and what became of its messages."""
    values = {
        "scope": scope,
        "limit": limit,
        "offset": offset,
        "station_id": station_id,
        "operator_id": operator_id,
        "only_gaps": only_gaps,
        "only_unbalanced": only_unbalanced,
    }
    return (await connection.execute(LEDGER, values)).mappings().all()


async def ledger_totals(
    connection: AsyncConnection, *, scope: Scope, station_id: str = "", operator_id: str = ""
) -> Sequence[RowMapping]:
    """Return the ledger summed by topic."""
    # Only what narrows: conditions that hold for every stream cost more than the sums.
    clauses, values = [], {}
    if scope is not None:
        clauses.append("operator_id = :scope")
        values["scope"] = scope
    if station_id:
        clauses.append("station_id = :station_id")
        values["station_id"] = station_id
    if operator_id:
        clauses.append("operator_id = :operator_id")
        values["operator_id"] = operator_id
    where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
    result = await connection.execute(text(LEDGER_TOTALS.format(where=where)), values)
    return result.mappings().all()


async def open_gaps(
    connection: AsyncConnection,
    *,
    scope: Scope,
    limit: int,
    station_id: str = "",
    operator_id: str = "",
) -> Sequence[RowMapping]:
    """Return holes in message counters that are still open, newest first."""
    values = {
        "scope": scope,
        "limit": limit,
        "station_id": station_id,
        "operator_id": operator_id,
    }
    return (await connection.execute(OPEN_GAPS, values)).mappings().all()


async def quarantined(
    connection: AsyncConnection,
    *,
    scope: Scope,
    limit: int,
    before_id: int | None = None,
    code: str = "",
    station_id: str = "",
) -> Sequence[RowMapping]:
    """Return quarantined items, newest first, with the first 64 KiB of their bytes."""
    values = {
        "scope": scope,
        "limit": limit,
        "before_id": before_id,
        "code": code,
        "station_id": station_id,
    }
    return (await connection.execute(QUARANTINE, values)).mappings().all()


async def quarantine_codes(connection: AsyncConnection, *, scope: Scope) -> Sequence[RowMapping]:
    """Return how often each code stands among the newest 10,000 quarantined items."""
    return (await connection.execute(QUARANTINE_CODES, {"scope": scope})).mappings().all()


async def signals(
    connection: AsyncConnection, *, scope: Scope, limit: int, offset: int, **wanted: Any
) -> Sequence[RowMapping]:
    """Return signals, newest first; wanted: code, severity, station_id, connector, only_open."""
    values = {
        "scope": scope,
        "limit": limit,
        "offset": offset,
        "code": "",
        "severity": "",
        "station_id": "",
        "connector": "",
        "only_open": False,
        **wanted,
    }
    return (await connection.execute(SIGNALS, values)).mappings().all()


async def live_readings(
    connection: AsyncConnection,
    *,
    scope: Scope,
    since: datetime,
    connector: str = "",
    station_id: str = "",
) -> Sequence[RowMapping]:
    """Return the newest reading of connectors that arrived after a time, at most 500."""
    values = {
        "scope": scope,
        "since": since,
        "connector": connector,
        "station_id": station_id,
    }
    return (await connection.execute(LIVE_READINGS, values)).mappings().all()
