"""Credit grades of operators with their arithmetic, and what operators promised of themselves."""

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
    Numeric,
    Table,
    Text,
    false,
)
from sqlalchemy.dialects.postgresql import JSONB

from chargewatch.storage.tables.base import Timestamp, metadata

# A published grade. Rows are only added: a recount is the next revision of its month. `month` is
# its first day; `grade` is null where too little is known for one.
credit_grade = Table(
    "credit_grade",
    metadata,
    Column("operator_id", Text, ForeignKey("operator.operator_id"), primary_key=True),
    Column("month", Date, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("grade", Text),
    Column("score", Numeric),
    # The item with the fewest points.
    Column("worst", Text),
    # Rule set, facts and every line: supervision.credit.arithmetic.
    Column("arithmetic", JSONB, nullable=False),
    Column("rule_version", Text, nullable=False),
    Column("made_at", Timestamp, nullable=False),
    Column("made_by", Text, nullable=False),
    # Why it was counted again; "" of the first revision.
    Column("why", Text, nullable=False, server_default=""),
    CheckConstraint("grade IN ('A', 'B', 'C', 'D')", name="grade"),
    CheckConstraint("extract(day FROM month) = 1", name="month"),
    Index(None, "month"),
)

# A month that is not published yet, as it stands: the running one above all.
credit_draft = Table(
    "credit_draft",
    metadata,
    Column("operator_id", Text, ForeignKey("operator.operator_id"), primary_key=True),
    Column("month", Date, primary_key=True),
    Column("grade", Text),
    Column("score", Numeric),
    Column("worst", Text),
    Column("arithmetic", JSONB, nullable=False),
    Column("rule_version", Text, nullable=False),
    Column("made_at", Timestamp, nullable=False),
    CheckConstraint("grade IN ('A', 'B', 'C', 'D')", name="grade"),
    CheckConstraint("extract(day FROM month) = 1", name="month"),
)

# What an operator promised, until when, and whether it was kept: null while that is open.
self_commitment = Table(
    "self_commitment",
    metadata,
    Column("commitment_id", BigInteger, Identity(), primary_key=True),
    Column("operator_id", Text, ForeignKey("operator.operator_id"), nullable=False),
    Column("text", Text, nullable=False),
    Column("made_on", Date, nullable=False),
    Column("until", Date, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("kept", Boolean),
    Column("decided_on", Date),
    Column("decided_by", Text),
    Column("why", Text),
    Column("published", Boolean, nullable=False, server_default=false()),
    CheckConstraint("(kept IS NULL) = (decided_on IS NULL)", name="decided"),
    Index(None, "operator_id", "commitment_id"),
)

# What an operator's stations sent on a UTC day, and its sessions that ended then.
operator_day = Table(
    "operator_day",
    metadata,
    Column("operator_id", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    # Hours in which any station of the city was heard, times stations; and those heard of it.
    Column("station_hours", Integer),
    Column("heard_hours", Integer),
    Column("messages", BigInteger, nullable=False),
    # Single readings, sessions, events: what came, and what of it was rejected.
    Column("items", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("sessions", BigInteger, nullable=False),
    Column("summed_at", Timestamp, nullable=False),
    Index(None, "day"),
)
