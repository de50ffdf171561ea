"""What gateways send: registers, reference registers and sessions.

In the reading tables NaN means "not told", so that every row has one fixed binary layout.
"""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.schema import Identity

from chargewatch.domain.session import SESSION_COLUMNS
from chargewatch.storage.tables.base import Timestamp, metadata, record_columns

register_reading = Table(
    "register_reading",
    metadata,
    Column("at", DateTime(timezone=True), nullable=False),
    Column("connector_id", Integer, nullable=False),
    Column("energy_wh", Double, nullable=False),
    Column("power_w", REAL, nullable=False),
    Column("voltage_v", REAL, nullable=False),
    Column("current_a", REAL, nullable=False),
    Column("soc_pct", REAL, nullable=False),
    # Key of session_name; 0 when the reading names no session.
    Column("session_key", BigInteger, nullable=False),
    # Index into wire.payloads.CONTEXTS.
    Column("context", SmallInteger, nullable=False),
    PrimaryKeyConstraint("connector_id", "at"),
)

session_name = Table(
    "session_name",
    metadata,
    Column("session_key", BigInteger, primary_key=True, autoincrement=False),
    Column("session", Text, nullable=False),
    # The last day (of arrival) on which ingest heard it: a name outlives its readings by this.
    Column("seen_on", Date, nullable=False, server_default=text("current_date")),
    Index(None, "seen_on"),
)

reference_reading = Table(
    "reference_reading",
    metadata,
    Column("at", DateTime(timezone=True), nullable=False),
    Column("meter_id", Integer, nullable=False),
    Column("energy_wh", Double, nullable=False),
    PrimaryKeyConstraint("meter_id", "at"),
)

latest_reading = Table(
    "latest_reading",
    metadata,
    Column("connector_id", Integer, primary_key=True, autoincrement=False),
    Column("at", Timestamp, nullable=False),
    Column("energy_wh", Double, nullable=False),
    Column("power_w", REAL, nullable=False),
    Column("received_at", Timestamp, nullable=False),
    # Every reading updates its row: with room on the page no index entry is written for it.
    postgresql_with={"fillfactor": 40},
)

charging_session = Table(
    "charging_session",
    metadata,
    Column("session_id", BigInteger, Identity(), primary_key=True),
    Column("operator_id", Text, nullable=False),
    Column("station_id", Text, nullable=False),
    Column("connector_id", Integer, nullable=False),
    *record_columns(SESSION_COLUMNS),
    # SHA-256 of the canonical content: tells a re-sent session from a changed one.
    Column("content_hash", LargeBinary, nullable=False),
    Column("received_at", Timestamp, nullable=False),
    # A session's id is unique at its connector.
    UniqueConstraint(
        *("operator_id", "station_id", "session", "connector_id"), name="uq_charging_session_key"
    ),
    Index(None, "connector_id", "ended_at"),
    Index(None, "ended_at"),
    Index(None, "received_at"),
)

# What gateways declare to have changed, and what people do by hand. connector_id and meter_id are 0
# where an event is not about one: both 0 is the station.
instrument_event = Table(
    "instrument_event",
    metadata,
    Column("event_id", BigInteger, Identity(), primary_key=True),
    Column("operator_id", Text, nullable=False),
    Column("station_id", Text, nullable=False),
    Column("connector_id", Integer, nullable=False),
    Column("meter_id", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("detail", Text),
    Column("serial", Text),
    # The new register's first and the old one's last reading.
    Column("start_wh", Double),
    Column("stop_wh", Double),
    Column("received_at", Timestamp, nullable=False),
    # topic: by the gateway; office, operator: by a person of theirs, who may withdraw it.
    Column("origin", Text, nullable=False, server_default="topic"),
    Column("declared_by", Text),
    Column("withdrawn_at", Timestamp),
    Column("withdrawn_by", Text),
    Column("withdrawn_why", Text),
    # Apart, so that ingest never meets a row that a person wrote.
    Index(
        "uq_instrument_event_key",
        *("operator_id", "station_id", "connector_id", "meter_id", "kind", "at"),
        unique=True,
        postgresql_where=text("origin = 'topic'"),
    ),
    Index(
        "uq_instrument_event_by_hand",
        *("operator_id", "station_id", "connector_id", "meter_id", "kind", "at"),
        unique=True,
        postgresql_where=text("origin <> 'topic' AND withdrawn_at IS NULL"),
    ),
    Index(None, "connector_id", "at"),
    Index(None, "meter_id", "at"),
    CheckConstraint("origin IN ('topic', 'office', 'operator')", name="origin"),
)
