"""Energy on a 15-minute grid: what the risk engine and the pages read."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    Column,
    Date,
    Double,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
)

from chargewatch.storage.tables.base import Timestamp, metadata

# quality: bits of risk.registers.Quality (interpolated, gap, reset, fault).
connector_interval = Table(
    "connector_interval",
    metadata,
    Column("slot_at", Timestamp, nullable=False),
    Column("connector_id", Integer, nullable=False),
    Column("energy_wh", Double, nullable=False),
    # Standard uncertainty of energy_wh from interpolation and resolution.
    Column("u_wh", REAL, nullable=False),
    Column("quality", SmallInteger, nullable=False),
    PrimaryKeyConstraint("connector_id", "slot_at"),
)

meter_interval = Table(
    "meter_interval",
    metadata,
    Column("slot_at", Timestamp, nullable=False),
    Column("meter_id", Integer, nullable=False),
    Column("energy_wh", Double, nullable=False),
    Column("u_wh", REAL, nullable=False),
    Column("quality", SmallInteger, nullable=False),
    PrimaryKeyConstraint("meter_id", "slot_at"),
)

# UTC days whose rollups must be computed (again) because readings of them arrived.
# instrument: connector_id for kind 0, meter_id for kind 1.
# Written after the readings in the readings' own transaction; ON CONFLICT DO NOTHING is enough,
# because a refresh first moves rows to rollup_claimed and then waits for older transactions.
rollup_pending = Table(
    "rollup_pending",
    metadata,
    Column("kind", SmallInteger, nullable=False),
    Column("instrument_id", Integer, nullable=False),
    Column("day", Date, nullable=False),
    PrimaryKeyConstraint("kind", "day", "instrument_id"),
)

# Pairs that a refresh has taken over; they stay here until their rollups are committed.
# claimed_xid: the claiming transaction; readings of older transactions are visible once it is
# older than every transaction under way.
rollup_claimed = Table(
    "rollup_claimed",
    metadata,
    Column("kind", SmallInteger, nullable=False),
    Column("instrument_id", Integer, nullable=False),
    Column("day", Date, nullable=False),
    Column("claimed_xid", BigInteger, nullable=False),
    PrimaryKeyConstraint("kind", "day", "instrument_id"),
)

# The state of a UTC day's rollups and readings: a new random version whenever a refresh takes the
# day over or changes one of its rows. Equal versions mean equal rows, in a restored dump too.
rollup_version = Table(
    "rollup_version",
    metadata,
    Column("kind", SmallInteger, nullable=False),
    Column("day", Date, nullable=False),
    Column("version", Uuid, nullable=False),
    PrimaryKeyConstraint("kind", "day"),
)

# What retention has deleted: rows of the table older than kept_from are gone, all or in part.
retention_horizon = Table(
    "retention_horizon",
    metadata,
    Column("table_name", Text, primary_key=True),
    Column("kept_from", Timestamp, nullable=False),
)
