"""The office's cases, what was done and said in each, and the files that belong to them."""

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
    LargeBinary,
    Table,
    Text,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from chargewatch.storage.tables.base import Timestamp, metadata

# A file that somebody handed in, as it came; its type was found from its bytes.
office_file = Table(
    "office_file",
    metadata,
    Column("file_id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size", Integer, nullable=False),
    # Of the content, in hexadecimal.
    Column("sha256", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("added_at", Timestamp, nullable=False, server_default=func.now()),
    Column("added_by", Text, nullable=False),
)

# The last number that was given to a case of a year: numbers have no holes.
case_year = Table(
    "case_year",
    metadata,
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("last", Integer, nullable=False),
)

office_case = Table(
    "office_case",
    metadata,
    Column("case_id", BigInteger, Identity(), primary_key=True),
    # What people call it, as 2026-000123.
    Column("number", Text, nullable=False, unique=True),
    Column("operator_id", Text, nullable=False),
    Column("station_id", Text, nullable=False),
    Column("connector", Text),
    # What it is about, as a signal's: "connector:<name>", "station:<name>", "meter:<name>", or
    # "operator:<name>".
    Column("subject", Text, nullable=False),
    # flag, signal, complaint, hand; and which signal or complaint.
    Column("origin", Text, nullable=False),
    Column("origin_key", Text, nullable=False, server_default=""),
    Column("title", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text),
    # A user's name.
    Column("owner", Text),
    Column("deadline", Date),
    Column("opened_at", Timestamp, nullable=False),
    Column("opened_by", Text, nullable=False),
    Column("closed_at", Timestamp),
    # Since when the pile had been flagged without a break when the case was opened.
    Column("flagged_at", Timestamp),
    Column("changed_at", Timestamp, nullable=False),
    # From when on the operator sees the case: when the office first told it something.
    Column("shown_at", Timestamp),
    CheckConstraint(
        "state IN ('open', 'assigned', 'inspecting', 'waiting_for_operator', 'closed')",
        name="state",
    ),
    CheckConstraint("outcome IN ('confirmed', 'not_confirmed', 'inconclusive')", name="outcome"),
    CheckConstraint("origin IN ('flag', 'signal', 'complaint', 'hand')", name="origin"),
    CheckConstraint(
        "(state = 'closed') = (outcome IS NOT NULL) "
        "AND (state = 'closed') = (closed_at IS NOT NULL)",
        name="closed_with_outcome",
    ),
    CheckConstraint(
        "state NOT IN ('assigned', 'inspecting') OR owner IS NOT NULL", name="work_has_owner"
    ),
    # No two open cases for one thing.
    Index(
        "uq_office_case_open",
        "operator_id",
        "subject",
        unique=True,
        postgresql_where=text("state <> 'closed'"),
    ),
    Index(None, "subject", "case_id"),
    Index(None, "station_id", "case_id"),
    Index(None, "operator_id", "case_id"),
    Index(None, "owner", "case_id"),
    Index(None, "state", "case_id"),
    Index(None, "changed_at", "case_id"),
    Index(
        "ix_office_case_deadline",
        text("coalesce(deadline, 'infinity'::date)"),
        "case_id",
        postgresql_where=text("state <> 'closed'"),
    ),
)

# What was done and said in a case, in order. detail: who was mentioned (`mentions`), who owns the
# case now (`owner`), what was before.
case_entry = Table(
    "case_entry",
    metadata,
    Column("entry_id", BigInteger, Identity(), primary_key=True),
    Column("case_id", BigInteger, ForeignKey("office_case.case_id"), nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("author", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("text", Text, nullable=False, server_default=""),
    # Whether the operator sees it.
    Column("for_operator", Boolean, nullable=False, server_default=false()),
    Column("file_id", BigInteger, ForeignKey("office_file.file_id")),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Index(None, "case_id", "entry_id"),
    Index(None, "file_id", unique=True),
)
