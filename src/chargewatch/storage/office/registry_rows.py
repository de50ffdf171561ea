"""Single rows of the registry, and the history of their fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.pages.watched import watched

ONE = {
    "operators": sql.statement(
        "registry row: operator", "SELECT * FROM operator WHERE operator_id = :name"
    ),
    "stations": sql.statement(
        "registry row: station", "SELECT * FROM station WHERE station_id = :name"
    ),
    "connectors": sql.statement(
        "registry row: connector", "SELECT * FROM connector WHERE registered AND connector = :name"
    ),
    "reference_meters": sql.statement(
        "registry row: reference meter",
        "SELECT m.*, ARRAY(SELECT c.connector FROM reference_meter_connector "
        "JOIN connector c USING (connector_id) WHERE meter_id = m.meter_id ORDER BY c.connector) "
        "AS connectors FROM reference_meter m WHERE registered AND meter = :name",
    ),
    "verifications": sql.statement(
        "registry row: verification",
        "SELECT v.*, c.connector, c.operator_id, c.station_id FROM verification v "
        "JOIN connector c USING (connector_id) "
        "WHERE c.registered AND v.verification_id = CAST(:name AS bigint)",
    ),
    "tariffs": sql.statement(
        "registry row: tariff", "SELECT * FROM tariff WHERE tariff_id = CAST(:name AS bigint)"
    ),
    "inspectors": sql.statement(
        "registry row: inspector", "SELECT * FROM inspector WHERE name = :name"
    ),
    "ledger": sql.statement(
        "registry row: ledger",
        "SELECT e.*, c.connector, c.operator_id, c.station_id, c.current, c.model, "
        "c.accuracy_class, c.serial, c.manufacturer FROM connector c "
        "LEFT JOIN ledger_entry e USING (connector_id) WHERE c.registered AND c.connector = :name",
    ),
}
NUMBERED = {"verifications", "tariffs"}
"""Lists whose rows are asked for by their number."""

HISTORY = sql.statement(
    "registry row: history",
    "SELECT h.history_id, h.kind, h.identifier, h.changed_at, h.before, h.after, h.actor, h.why, "
    "h.import_id, i.source FROM registry_history h LEFT JOIN registry_import i USING (import_id) "
    "WHERE (h.kind, h.identifier) IN (SELECT * FROM unnest(CAST(:kinds AS text[]), "
    "CAST(:identifiers AS text[]))) AND h.history_id < CAST(:before AS bigint) "
    "AND h.history_id > CAST(:since AS bigint) ORDER BY h.history_id DESC LIMIT :limit",
)
# The change by which a row became an operator's is its own history already.
OF_OTHERS = sql.statement(
    "registry row: history of others",
    "SELECT coalesce(greatest(max(history_id) FILTER (WHERE after->>'operator_id' <> :scope), "
    "max(history_id) FILTER (WHERE before->>'operator_id' <> :scope) - 1), 0) "
    "FROM registry_history WHERE (kind, identifier) IN "
    "(SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:identifiers AS text[])))",
)
VERSION = sql.statement(
    "registry row: version",
    "SELECT coalesce(max(history_id), 0) FROM registry_history WHERE (kind, identifier) IN "
    "(SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:identifiers AS text[])))",
)
VERIFICATIONS = sql.statement(
    "registry row: verifications of a connector",
    "SELECT * FROM verification WHERE connector_id = :connector_id "
    "ORDER BY verified_on DESC, verification_id DESC LIMIT 200",
)
METERS = sql.statement(
    "registry row: meters of a connector",
    "SELECT m.meter, m.scope, m.certificate, m.valid_until FROM reference_meter m "
    "WHERE m.registered AND m.station_id = :station_id AND (NOT EXISTS (SELECT "
    "FROM reference_meter_connector x WHERE x.meter_id = m.meter_id) OR EXISTS (SELECT "
    "FROM reference_meter_connector x WHERE x.meter_id = m.meter_id "
    "AND x.connector_id = :connector_id)) ORDER BY m.meter LIMIT 200",
)
LARGEST = 2**63 - 1


async def one(connection: AsyncConnection, kind: str, name: str) -> RowMapping | None:
    """Return a registered row of a list by its name or number; None when there is none."""
    value: str | int = name
    if kind in NUMBERED:
        if not (name.isascii() and name.isdecimal()) or int(name) > LARGEST:
            return None
        value = int(name)
    return await sql.row(connection, ONE[kind], name=value)


Named = Sequence[tuple[str, str]]
"""Kind and identifier, as the history has them."""


@watched(
    {"registry: history": lambda s: {"named": [("connectors", s.connector)], "limit": 100}},
)
async def history(
    connection: AsyncConnection,
    *,
    named: Named,
    limit: int,
    before: int | None = None,
    since: int = 0,
) -> Sequence[RowMapping]:
    """Return what was changed of rows, the newest first, after the change `since`."""
    return await sql.rows(
        connection,
        HISTORY,
        kinds=[kind for kind, _ in named],
        identifiers=[identifier for _, identifier in named],
        before=LARGEST if before is None else before,
        since=since,
        limit=limit,
    )


@watched(
    {
        "registry: history of others": lambda s: {
            "named": [("connectors", s.connector)],
            "scope": s.operator_id,
        }
    },
)
async def last_of_others(connection: AsyncConnection, *, named: Named, scope: str) -> int:
    """Return the last change of rows from when they were not an operator's; 0 when there is none.

    named: the rows, and those that they belong to.
    """
    return int(
        await sql.value(
            connection,
            OF_OTHERS,
            kinds=[kind for kind, _ in named],
            identifiers=[identifier for _, identifier in named],
            scope=scope,
        )
    )


async def version(connection: AsyncConnection, *, named: Named) -> int:
    """Return the number of the newest change of a row; 0 when nobody noted any."""
    return int(
        await sql.value(
            connection,
            VERSION,
            kinds=[kind for kind, _ in named],
            identifiers=[identifier for _, identifier in named],
        )
    )


@watched({"registry: verifications": lambda s: {"connector_id": s.connector_id}})
async def verifications(connection: AsyncConnection, *, connector_id: int) -> Sequence[RowMapping]:
    """Return a connector's verifications, the newest first."""
    return await sql.rows(connection, VERIFICATIONS, connector_id=connector_id)


@watched(
    {
        "registry: meters": lambda s: {
            "connector_id": s.connector_id,
            "station_id": s.station_id,
        }
    }
)
async def meters(
    connection: AsyncConnection, *, connector_id: int, station_id: str
) -> Sequence[RowMapping]:
    """Return the reference meters that measure a connector."""
    return await sql.rows(connection, METERS, connector_id=connector_id, station_id=station_id)


def own(row: Mapping[Any, Any], kind: str, scope: str | None) -> bool:
    """Return whether somebody with a scope may see a row."""
    if scope is None:
        return True
    return kind != "inspectors" and row["operator_id"] == scope
