"""Alembic's environment: runs inside the connection that storage.migrate hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Column

from chargewatch.storage.tables import metadata


def include_name(name, kind, parents):
    # TimescaleDB keeps its chunks in schemas of its own.
    if kind == "schema":
        return name is None
    return True


def include_object(item, name, kind, reflected, compare_to):
    # An expression reads differently in the catalog; tests compare these indexes by name.
    if kind == "index" and any(not isinstance(part, Column) for part in item.expressions):
        return False
    # TimescaleDB makes an index of its own on the time column of a hypertable.
    if kind == "index" and reflected and compare_to is None:
        return not (name or "").endswith(("_at_idx", "_received_at_idx", "_slot_at_idx"))
    return True


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    include_name=include_name,
    include_object=include_object,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
