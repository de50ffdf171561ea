"""How long rows stay: raw readings, the message ledger, rollups; and what is compressed meanwhile.

Raw readings are deleted by the platform itself on every edition, because it alone knows which of
them still have to be rolled up: a TimescaleDB policy would not wait. On TimescaleDB whole chunks
are dropped, on plain PostgreSQL rows are deleted in batches. With the community licence chunks
older than the window of late data are compressed by a policy, and rollups are dropped by
policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.errors import DatabaseError
from chargewatch.storage import sql
from chargewatch.storage.capabilities import Capabilities
from chargewatch.storage.database import Database
from chargewatch.storage.intake.ledger_days import move_chunk, move_rows
from chargewatch.storage.locks import KEEP_INGEST_WAITING, WAIT_10_S
from chargewatch.storage.tables import HYPERTABLES

RAW_DAYS_COMPRESSED = 90
RAW_DAYS = 14
LEDGER_DAYS = 30
"""Single messages; then they are summed a stream and day, for good."""
NOTICE_DAYS = 400
JOB_DAYS = 90
"""After the end of a job."""
CLOSED_GAP_DAYS = 400
"""A year and a month: a dispute over lost messages ends within a year."""
NAME_MARGIN_DAYS = 8
"""Names of sessions stay so much longer than the readings that mention them."""
COMPRESS_AFTER_DAYS = 7
"""Nearly all late data come within a week; later ones are inserted into compressed chunks."""
QUARANTINE_DAYS = 180
CONTACT_DAYS = 90
"""Whom to tell of a complaint, after its end."""
DELETE_BATCH = 50_000

NOT_READ_AGAIN = (
    "codes @> ARRAY['internal_error'] AND NOT EXISTS "
    "(SELECT FROM quarantine_replay r WHERE r.quarantine_id = quarantine.quarantine_id)"
)
"""A message that the platform failed on stays until it was read again."""

RAW_KINDS = {"register_reading": 0, "reference_reading": 1}
"""Tables of raw readings, and their kind in rollup_pending."""

HELD_BACK = {**RAW_KINDS, "session_name": RAW_KINDS["register_reading"]}
"""Tables whose rows wait until raw readings are rolled up."""

SEGMENT_BY = {
    "register_reading": ("connector_id", "at"),
    "reference_reading": ("meter_id", "at"),
    "message_ledger": ("stream_id", "received_at"),
    "connector_interval": ("connector_id", "slot_at"),
    "meter_interval": ("meter_id", "slot_at"),
}
"""Column by which a compressed chunk is segmented, and the one it is ordered by."""


@dataclass(frozen=True)
class TableRetention:
    """How long the rows of one table stay."""

    table: str
    column: str
    keep_days: int
    but: str = ""  # a condition on rows that stay all the same
    margin_days: int = 0  # how much longer than what is held back

    @property
    def chunked(self) -> bool:
        """Whether TimescaleDB chunks the table by time."""
        return self.table in HYPERTABLES

    @property
    def past(self) -> str:
        """The condition on rows that go, with the parameter :limit."""
        return f"{self.column} < :limit" + (f" AND NOT ({self.but})" if self.but else "")


@dataclass(frozen=True)
class Removal:
    """What retention did, or would do, with one table."""

    table: str
    kept_from: datetime
    rows: int  # deleted one by one (plain PostgreSQL); 0 when whole chunks were dropped
    chunks: int
    held_back_by: datetime | None  # the oldest day still to be rolled up, if that decided


def raw_retention_days(capabilities: Capabilities, *, setting: int) -> int:
    """Return for how many days raw readings stay: the setting, or 90 with compression, else 14."""
    if setting > 0:
        return setting
    return RAW_DAYS_COMPRESSED if capabilities.columnstore else RAW_DAYS


def retention_rules(
    capabilities: Capabilities,
    *,
    raw_days: int,
    rollup_days: int,
    quarantine_days: int = QUARANTINE_DAYS,
    ledger_days: int = LEDGER_DAYS,
    contact_days: int = CONTACT_DAYS,
) -> tuple[TableRetention, ...]:
    """Return the rule of every table that retention looks after; `raw_days` 0: by edition."""
    raw = raw_retention_days(capabilities, setting=raw_days)
    return (
        TableRetention("register_reading", "at", raw),
        TableRetention("reference_reading", "at", raw),
        TableRetention("message_ledger", "received_at", ledger_days),
        TableRetention("ledger_gap", "closed_at", CLOSED_GAP_DAYS),
        TableRetention("job", "finished_at", JOB_DAYS),
        TableRetention("notice", "made_at", NOTICE_DAYS),
        TableRetention("session_name", "seen_on", raw, margin_days=NAME_MARGIN_DAYS),
        TableRetention("connector_interval", "slot_at", rollup_days),
        TableRetention("meter_interval", "slot_at", rollup_days),
        TableRetention("quarantine", "received_at", quarantine_days, but=NOT_READ_AGAIN),
        TableRetention("quarantine_day", "day", quarantine_days),
        TableRetention("complaint_contact", "ended_at", contact_days),
        TableRetention("evidence_file", "made_at", rollup_days),
    )


OLDEST_DUE = sql.statement(
    "retention: oldest due",
    "SELECT least((SELECT min(day) FROM rollup_pending WHERE kind = :kind), "
    "(SELECT min(day) FROM rollup_claimed WHERE kind = :kind))",
)
OLD_CHUNKS = sql.statement(
    "retention: old chunks",
    "SELECT count(*) FROM show_chunks(CAST(:table AS regclass), "
    "older_than => CAST(:limit AS timestamptz))",
)
DROP_CHUNKS = sql.statement(
    "retention: drop chunks",
    "SELECT drop_chunks(CAST(:table AS regclass), older_than => CAST(:limit AS timestamptz))",
)
NOTE_HORIZON = sql.statement(
    "retention: note horizon",
    "INSERT INTO retention_horizon (table_name, kept_from) VALUES (:table, :limit) "
    "ON CONFLICT (table_name) DO UPDATE "
    "SET kept_from = greatest(retention_horizon.kept_from, excluded.kept_from)",
)
DELETE_OLD = sql.statement(
    "retention: delete old",
    "DELETE FROM {table} WHERE ctid = ANY(ARRAY("
    "SELECT ctid FROM {table} WHERE {past} LIMIT {batch}))",
)
COUNT_OLD = sql.statement("retention: count old", "SELECT count(*) FROM {table} WHERE {past}")
COMPRESSION_ON = sql.statement(
    "retention: compression on",
    "SELECT compression_enabled FROM timescaledb_information.hypertables "
    "WHERE hypertable_schema = 'public' AND hypertable_name = :table",
)


def _midnight(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def _oldest_due(connection: AsyncConnection, table: str) -> datetime | None:
    """Return the begin of the oldest day of raw readings that is not rolled up yet."""
    if table not in HELD_BACK:
        return None
    day = await sql.value(connection, OLDEST_DUE, kind=HELD_BACK[table])
    return None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC)


async def _old_chunks(connection: AsyncConnection, rule: TableRetention, limit: datetime) -> int:
    return int(await sql.value(connection, OLD_CHUNKS, table=rule.table, limit=limit))


async def _note_horizon(connection: AsyncConnection, table: str, limit: datetime) -> None:
    await sql.run(connection, NOTE_HORIZON, table=table, limit=limit)


async def _limit_of(
    connection: AsyncConnection, rule: TableRetention, *, now: datetime
) -> tuple[datetime, datetime | None]:
    """Return the time before which rows may go, and the day that holds it back, if any.

    The lock keeps ingest from committing late readings between this look and the deletion.
    """
    margin = timedelta(days=rule.margin_days)
    limit = _midnight(now) - timedelta(days=rule.keep_days) - margin
    if rule.table not in HELD_BACK:
        return limit, None
    await sql.run(connection, WAIT_10_S)
    if rule.table in RAW_KINDS:
        await sql.run(connection, KEEP_INGEST_WAITING)
    due = await _oldest_due(connection, rule.table)
    # A day that is due needs the readings around it as well.
    if due is None or due - timedelta(days=1) - margin >= limit:
        return limit, None
    return due - timedelta(days=1) - margin, due


async def _drop_chunks(database: Database, rule: TableRetention, *, now: datetime) -> Removal:
    async with database.begin() as connection:
        limit, due = await _limit_of(connection, rule, now=now)
        chunks = await _old_chunks(connection, rule, limit)
        if chunks:
            await _note_horizon(connection, rule.table, limit)
            await sql.run(connection, WAIT_10_S)
            await sql.run(connection, DROP_CHUNKS, table=rule.table, limit=limit)
    return Removal(rule.table, limit, 0, chunks, due)


async def _sum_chunks(database: Database, rule: TableRetention, *, now: datetime) -> Removal:
    """Turn old chunks of the ledger into sums, each in a transaction of its own."""
    chunks, more = 0, True
    while more:
        async with database.begin() as connection:
            limit, _ = await _limit_of(connection, rule, now=now)
            more = await move_chunk(connection, limit=limit)
            if more:
                await _note_horizon(connection, rule.table, limit)
        chunks += more
    return Removal(rule.table, limit, 0, chunks, None)


async def _delete_in_batches(database: Database, rule: TableRetention, *, now: datetime) -> Removal:
    """Delete old rows a batch at a time, each batch in its own short transaction."""
    deleted = 0
    delete = DELETE_OLD.filled(table=rule.table, past=rule.past, batch=str(DELETE_BATCH))
    while True:
        async with database.begin() as connection:
            limit, due = await _limit_of(connection, rule, now=now)
            if rule.table == "message_ledger":
                count = await move_rows(connection, limit=limit, most=DELETE_BATCH)
            else:
                count = await sql.run(connection, delete, limit=limit)
            if count:
                await _note_horizon(connection, rule.table, limit)
        deleted += count
        if count < DELETE_BATCH:
            return Removal(rule.table, limit, deleted, 0, due)


async def _look(database: Database, rule: TableRetention, *, now: datetime) -> Removal:
    """Return what would be deleted."""
    async with database.begin() as connection:
        limit, due = await _limit_of(connection, rule, now=now)
        if rule.chunked and database.capabilities.hypertables:
            return Removal(rule.table, limit, 0, await _old_chunks(connection, rule, limit), due)
        wanted = COUNT_OLD.filled(table=rule.table, past=rule.past)
        count = int(await sql.value(connection, wanted, limit=limit))
        return Removal(rule.table, limit, count, 0, due)


async def apply_retention(
    database: Database,
    *,
    raw_days: int,
    rollup_days: int,
    quarantine_days: int = QUARANTINE_DAYS,
    ledger_days: int = LEDGER_DAYS,
    contact_days: int = CONTACT_DAYS,
    now: datetime,
    dry_run: bool = False,
) -> list[Removal]:
    """Delete rows past their time, on every edition; return what was (or would be) deleted.

    Raw readings wait until their rollups are written. Times are whole UTC days.
    Raises: DatabaseError when the role may not, or a table stays locked.
    """
    rules = retention_rules(
        database.capabilities,
        raw_days=raw_days,
        rollup_days=rollup_days,
        quarantine_days=quarantine_days,
        ledger_days=ledger_days,
        contact_days=contact_days,
    )

    async def apply_rule(rule: TableRetention) -> Removal:
        if dry_run:
            return await _look(database, rule, now=now)
        if rule.chunked and database.capabilities.hypertables:
            if rule.table == "message_ledger":
                return await _sum_chunks(database, rule, now=now)
            return await _drop_chunks(database, rule, now=now)
        return await _delete_in_batches(database, rule, now=now)

    try:
        return [await apply_rule(rule) for rule in rules]
    except DBAPIError as exc:
        raise DatabaseError(
            f"retention stopped: {exc.orig}; run it as the role that owns the tables "
            "(chargewatch_migrate), again when nothing locks them"
        ) from exc


async def _compression_on(connection: AsyncConnection, table: str) -> bool:
    return bool(await sql.value(connection, COMPRESSION_ON, table=table))


def policy_statements(rules: Sequence[TableRetention], table: str) -> list[str]:
    """Return the statements that give a table its community policies; they may be repeated."""
    segment_by, order_by = SEGMENT_BY[table]
    keep_days = next(rule.keep_days for rule in rules if rule.table == table)
    statements = [
        f"ALTER TABLE {table} SET (timescaledb.compress, "
        f"timescaledb.compress_segmentby = '{segment_by}', "
        f"timescaledb.compress_orderby = '{order_by}')",
        f"SELECT remove_compression_policy('{table}', if_exists => true)",
        f"SELECT add_compression_policy('{table}', INTERVAL '{COMPRESS_AFTER_DAYS} days')",
    ]
    # What must be rolled up or summed before it goes, the platform removes itself.
    if table not in RAW_KINDS:
        statements.append(f"SELECT remove_retention_policy('{table}', if_exists => true)")
    if table not in {*RAW_KINDS, "message_ledger"}:
        statements.append(f"SELECT add_retention_policy('{table}', INTERVAL '{keep_days} days')")
    return statements


async def apply_policies(database: Database, *, raw_days: int, rollup_days: int) -> list[str]:
    """Give every hypertable its compression and retention policies; return the tables' names.

    Only the community licence has policies: elsewhere nothing is done and [] returned.
    Inserts into compressed chunks (late data, up to 180 days) work with ON CONFLICT DO NOTHING;
    the limit on decompressed tuples doesn't bind them, because segments are found by the key.
    Raises: DatabaseError when the server refuses a statement, or is a version that loses rows
        in compressed chunks.
    """
    if not database.capabilities.policies:
        return []
    if fault := database.capabilities.columnstore_fault:
        raise DatabaseError(f"no policies were set: {fault}; upgrade TimescaleDB first")
    rules = retention_rules(database.capabilities, raw_days=raw_days, rollup_days=rollup_days)
    try:
        async with database.begin() as connection:
            await sql.run(connection, WAIT_10_S)
            for table in SEGMENT_BY:
                statements = policy_statements(rules, table)
                if await _compression_on(connection, table):
                    # Its settings can't be changed while compressed chunks exist.
                    statements = statements[1:]
                for statement in statements:
                    await connection.exec_driver_sql(statement)
    except DBAPIError as exc:
        raise DatabaseError(f"policies were not set, nothing was changed: {exc.orig}") from exc
    return list(SEGMENT_BY)
