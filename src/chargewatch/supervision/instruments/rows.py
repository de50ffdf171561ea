"""One row of the registry: its fields, its version, and its whole history field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.errors import NotFoundError
from chargewatch.storage.office import registry_rows as rows
from chargewatch.supervision.registry_rows import (
    OF_CONNECTOR,
    identifier_of,
    plain,
    verification_name,
)
from chargewatch.wire.registry_models import LISTS

MEMBERS = "reference_meter_connectors"
"""How the history calls the connectors of a reference meter."""
INNER = {"connector_id", "registered"}
"""What the history holds beside the fields of a list."""
OF_STATIONS = frozenset({"stations", "connectors", "reference_meters", "verifications", "ledger"})
"""Lists whose rows change hands with their station."""


@dataclass(frozen=True, kw_only=True)
class RegistryRow:
    """A registered row.

    Attributes:
        kind: its list.
        name: by which it is asked for.
        identifier: what the history calls it.
        values: its fields as JSON holds them.
        keys: fields that identify it and can't be edited.
        version: number of its newest change, 0 when none was noted.
        stored: the row as the database has it.
    """

    kind: str
    name: str
    identifier: str
    values: Mapping[str, Any]
    keys: tuple[str, ...]
    version: int
    stored: Mapping[str, Any]

    @property
    def is_fixed(self) -> bool:
        """Whether it is a verification of the office, which isn't edited but withdrawn."""
        return self.kind == "verifications" and (
            self.stored["entered_at"] is not None or self.stored["withdrawn_at"] is not None
        )

    @property
    def named(self) -> rows.Named:
        """How the history calls what belongs to it."""
        return named_in_history(self.kind, self.identifier)


def named_in_history(kind: str, identifier: str) -> rows.Named:
    """Return the kinds and identifiers under which the history has a row."""
    more = [(MEMBERS, identifier)] if kind == "reference_meters" else []
    return [(kind, identifier), *more]


def _identifier(kind: str, row: Mapping[Any, Any]) -> str:
    if kind == "verifications":
        return verification_name(dict(row))
    if kind == "tariffs":
        return identifier_of(dict(row), LISTS[kind].key_columns)
    keys = {"ledger": ("connector",)}.get(kind, LISTS[kind].key_columns)
    return identifier_of(dict(row), keys)


async def find_row(
    connection: AsyncConnection, kind: str, name: str, *, scope: str | None
) -> RegistryRow:
    """Return a row of a list by its name; verifications and tariffs by their number.

    Args:
        connection: to the registry.
        kind: one of the lists.
        name: of the row.
        scope: the one operator whose rows may be seen; None: everybody's.

    Raises: NotFoundError, alike for what isn't there and what may not be seen.
    """
    found = await rows.one(connection, kind, name) if kind in LISTS else None
    if found is None or not rows.own(found, kind, scope):
        raise NotFoundError(f"no row {name!r} of {kind} that you may see: search the registry")
    model = LISTS[kind]
    values = {column: plain(found[column]) for column in model.model_fields if column in found}
    if kind == "tariffs":
        values["station_id"] = values["station_id"] or None
    if kind == "ledger":
        values["extra"] = values["extra"] or {}
    identifier = _identifier(kind, found)
    return RegistryRow(
        kind=kind,
        name=name,
        identifier=identifier,
        values=values,
        # What the ledger shares with the connector is edited there.
        keys=("connector", *OF_CONNECTOR) if kind == "ledger" else model.key_columns,
        version=await rows.version(connection, named=named_in_history(kind, identifier)),
        stored=dict(found),
    )


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """A field that was changed: when, by whom, why, from what to what.

    before and after are None for a row that was new, whose fields stand in `after` alone.
    """

    history_id: int
    kind: str
    identifier: str
    at: datetime
    actor: str
    why: str
    source: str
    is_new: bool
    fields: Mapping[str, tuple[Any, Any]]


def field_changes(found: Sequence[Mapping[Any, Any]], *, scope: str | None) -> list[FieldChange]:
    """Return the entries of a history, field by field.

    An operator's user learns neither who changed something nor why, nor whose it was before.
    """
    changes = []
    for row in found:
        before, after = row["before"], row["after"]
        if scope is not None and before is not None and before.get("operator_id", scope) != scope:
            before = None
        hidden = INNER if scope is None else INNER | {"operator_id"}
        fields = {
            name: (None if before is None else before.get(name), value)
            for name, value in after.items()
            if name not in hidden
            and (value not in (None, [], {}) if before is None else before.get(name) != value)
        }
        if not fields:
            continue
        changes.append(
            FieldChange(
                history_id=row["history_id"],
                kind="reference_meters" if row["kind"] == MEMBERS else row["kind"],
                identifier=row["identifier"],
                at=row["changed_at"],
                actor=row["actor"] if scope is None else "",
                why=row["why"] if scope is None else "",
                source=(row["source"] or "") if scope is None else "",
                is_new=before is None,
                fields=fields,
            )
        )
    return changes


async def whole_history(
    connection: AsyncConnection,
    row: RegistryRow,
    *,
    scope: str | None,
    limit: int,
    before: int | None = None,
) -> list[FieldChange]:
    """Return every change of a row, the newest first.

    Of a connector also those of its verifications and of its line in the ledger. An operator's
    user learns nothing from the time before the row was its operator's.
    """
    named = [*row.named]
    if row.kind == "connectors":
        named.append(("ledger", row.identifier))
        connector_id = row.stored["connector_id"]
        for found in await rows.verifications(connection, connector_id=connector_id):
            told = dict(found) | {"connector": row.identifier}
            named.append(("verifications", verification_name(told)))
    since = 0
    if scope is not None and row.kind in OF_STATIONS:
        owners = [*named, ("stations", row.stored["station_id"])]
        if row.kind in {"ledger", "verifications"}:
            owners.append(("connectors", row.stored["connector"]))
        since = await rows.last_of_others(connection, named=owners, scope=scope)
    found_rows = await rows.history(
        connection, named=named, limit=limit, before=before, since=since
    )
    return field_changes(found_rows, scope=scope)
