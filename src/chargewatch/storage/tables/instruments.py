"""What the office keeps of instruments and inspectors beside the registry itself."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from chargewatch.storage.tables.base import Timestamp, metadata

inspector = Table(
    "inspector",
    metadata,
    Column("inspector_id", Integer, Identity(), primary_key=True),
    Column("name", Text, nullable=False),
    # Of app_user, when the inspector logs in.
    Column("username", Text),
    Column("active", Boolean, nullable=False, server_default=true()),
    # Operators whose piles the inspector must not inspect.
    Column("recused_operators", ARRAY(Text), nullable=False, server_default="{}"),
    UniqueConstraint("name"),
    Index(None, "username", unique=True),
)

# Columns of the national ledger that nothing else of the registry holds.
ledger_entry = Table(
    "ledger_entry",
    metadata,
    Column("connector_id", Integer, ForeignKey("connector.connector_id"), primary_key=True),
    Column("instrument_name", Text),
    Column("item", Text),
    Column("kind", Text),
    Column("measuring_range", Text),
    Column("origin", Text),
    Column("place", Text),
    # GB/T 2260; null: that of the station's district.
    Column("place_code", Text),
    Column("quantity", Integer),
    Column("purpose", Text),
    Column("submission", Text),
    # Columns of a ledger that chargewatch doesn't know, as they were given.
    Column("extra", JSONB, nullable=False, server_default="{}"),
)

# Until when a connector's verifications hold; derived from `verification` by its triggers.
instrument_validity = Table(
    "instrument_validity",
    metadata,
    Column("connector_id", Integer, ForeignKey("connector.connector_id"), primary_key=True),
    # The last day: of the passes since the last fail, or the day before that fail; null: none told.
    Column("until", Date),
    Column("failed", Boolean, nullable=False, server_default=false()),
    # The verification that decides it.
    Column("verification_id", BigInteger),
    Index(None, "until", "connector_id"),
)

# A step on the way from an ending verification to the next one.
due_step = Table(
    "due_step",
    metadata,
    Column("step_id", BigInteger, Identity(), primary_key=True),
    Column("connector_id", Integer, ForeignKey("connector.connector_id"), nullable=False),
    # verification_id of the verification that ends; 0 for an instrument that never had one.
    Column("cycle", BigInteger, nullable=False),
    Column("step", Text, nullable=False),
    Column("done_on", Date, nullable=False),
    Column("note", Text, nullable=False, server_default=""),
    Column("at", Timestamp, nullable=False, server_default=func.now()),
    Column("actor", Text, nullable=False),
    UniqueConstraint("connector_id", "cycle", "step"),
    CheckConstraint(
        "step IN ('filed', 'booked', 'accepted', 'verified', 'certificate')", name="step"
    ),
)
