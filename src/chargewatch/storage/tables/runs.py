"""Risk runs and what they found."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from chargewatch.domain.assessment import ASSESSMENT_COLUMNS
from chargewatch.storage.tables.base import Timestamp, metadata, record_columns

risk_run = Table(
    "risk_run",
    metadata,
    Column("run_id", BigInteger, Identity(), primary_key=True),
    # running, finished, failed; pages read finished runs only.
    Column("state", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("as_of", Timestamp, nullable=False),
    Column("data_from", Timestamp),
    Column("data_to", Timestamp),
    Column("started_at", Timestamp, nullable=False),
    Column("finished_at", Timestamp),
    Column("version", Text, nullable=False),
    Column("configuration", JSONB, nullable=False),
    Column("result_digest", Text),
    Column("summary", JSONB),
    Index(None, "as_of"),
)

assessment = Table(
    "assessment",
    metadata,
    Column("run_id", BigInteger, ForeignKey("risk_run.run_id"), nullable=False),
    Column("connector_id", Integer, ForeignKey("connector.connector_id"), nullable=False),
    *record_columns(ASSESSMENT_COLUMNS),
    PrimaryKeyConstraint("run_id", "connector_id"),
    Index(None, "connector_id", "run_id"),
    Index(
        "ix_assessment_flagged",
        "run_id",
        postgresql_include=["connector_id", "tier"],
        postgresql_where=text("tier IN ('red', 'orange')"),
    ),
)

# What the list of piles is narrowed and sorted by: storage.pile_index makes and reads it.
pile_index = Table(
    "pile_index",
    metadata,
    Column("name", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

# Sufficient statistics that the next nightly run continues from.
run_state = Table(
    "run_state",
    metadata,
    Column("run_id", BigInteger, ForeignKey("risk_run.run_id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run_id", "name"),
)

signal = Table(
    "signal",
    metadata,
    Column("signal_id", BigInteger, Identity(), primary_key=True),
    Column("code", Text, nullable=False),
    Column("severity", Text, nullable=False),
    # What it is about: "connector:<name>", "meter:<name>" or "station:<name>"; unique while open.
    Column("subject", Text, nullable=False),
    Column("connector", Text),
    Column("station_id", Text),
    Column("operator_id", Text),
    Column("first_at", Timestamp, nullable=False),
    Column("last_at", Timestamp, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("value", Double, nullable=False),
    Column("limit", Double, nullable=False),
    Column("detail", Text, nullable=False),
    Column("evidence", JSONB, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("opened_run", BigInteger, ForeignKey("risk_run.run_id"), nullable=False),
    Column("last_run", BigInteger, ForeignKey("risk_run.run_id"), nullable=False),
    Column("closed_run", BigInteger, ForeignKey("risk_run.run_id")),
    Index(
        "uq_signal_open",
        "code",
        "operator_id",
        "station_id",
        "subject",
        unique=True,
        postgresql_where=text("closed_run IS NULL"),
    ),
    # Newest first; the open ones are few among many that were closed.
    Index("ix_signal_open", "signal_id", postgresql_where=text("closed_run IS NULL")),
    Index(None, "operator_id", "signal_id"),
    Index(None, "code", "signal_id"),
    Index(None, "severity", "signal_id"),
    Index(None, "connector"),
    Index(None, "station_id"),
)
