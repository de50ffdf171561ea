"""Energy on a 15-minute grid: what the risk engine and the pages read."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    Column,
    Date,
    Double,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
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
rollup_pending = Table(
    "rollup_pending",
    metadata,
    Column("kind", SmallInteger, nullable=False),
    Column("instrument_id", Integer, nullable=False),
    Column("day", Date, nullable=False),
    PrimaryKeyConstraint("kind", "day", "instrument_id"),
)
